"""`/openapi.json`: what FastAPI knows of the control plane, and what it does not: the paths that go to nodes."""

import re
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from herd.core.dialects import ENDPOINTS
from herd.routes.inference import MANAGED

Document = dict[str, Any]
BLOBS: Final = "/api/blobs/{digest}"
ERROR: Final = {"description": "An error, in the dialect of the path.", "content": {"application/json": {"schema": {
    "type": "object", "properties": {"error": {"type": ["string", "object"]}}, "required": ["error"]}}}}  # fmt: skip
BODY: Final = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
PASSED: Final = {"description": "The node's answer, whole or as a stream; other statuses are passed on, too."}
NODE: Final = {"name": "node_id", "in": "query", "required": False, "schema": {"type": "string"}}
BODILESS: Final = ("GET", "requestBody")
HANDED: Final = "Handed to one node."
DIGEST: Final = {"name": "digest", "in": "path", "required": True, "schema": {"type": "string"}}


def describe(app: FastAPI) -> None:
    """Have the application describe all of its paths, each operation under an id of its own."""

    def openapi() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _document(app: FastAPI) -> Document:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    document["paths"].update(_nodes_paths())
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].setdefault("default", ERROR)
    return document


def _nodes_paths() -> Document:
    inference = {
        path: {"post": _operation(path, f"{endpoint.operation} in the dialect of {endpoint.dialect.value}")}
        for path, endpoint in ENDPOINTS.items()
    }
    managed = {
        path: {
            method.lower(): {
                key: value for key, value in _operation(path, HANDED, NODE).items() if (method, key) != BODILESS
            }
            for method in methods
        }
        for path, methods in MANAGED.items()
    }
    blobs = {method: _operation(f"{BLOBS}/{method}", HANDED, DIGEST, NODE) for method in ("head", "post")}
    return {**inference, **managed, BLOBS: blobs}


def _operation(name: str, summary: str, *parameters: Document) -> Document:
    return {
        "summary": summary.replace("_", " "),
        "operationId": "nodes" + re.sub(r"\W+", "_", name),
        **({"parameters": list(parameters)} if parameters else {}),
        "requestBody": BODY,
        "responses": {"200": PASSED},
    }
