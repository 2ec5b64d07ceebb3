"""Every path that the router serves, read from the tables and routers that serve them."""

from collections.abc import Iterator, Sequence
from inspect import getdoc
from typing import Any, Final

from fastapi.routing import APIRoute

from herd.core.dialects import ENDPOINTS, Endpoint
from herd.core.placement import NEEDS_ROOM
from herd.core.request import Dialect
from herd.routes import (
    dashboard,
    dashboard_api,
    fleet,
    health,
    merged,
    operations,
    plan,
    recommendations,
    runbook,
    settings,
)
from herd.routes.inference import MANAGED
from herd.routes.parameters import names

CONTROL: Final = (
    ("merged", merged.router),
    ("fleet", fleet.router),
    ("dashboard", dashboard_api.router),
    ("dashboard", recommendations.router),
    ("dashboard", plan.router),
    ("health", health.router),
    ("settings", settings.router),
    ("page", dashboard.router),
    ("page", runbook.router),
    ("operations", operations.router),
)
NAMES: Final = {Dialect.OLLAMA: "Ollama", Dialect.OPENAI: "OpenAI", Dialect.ANTHROPIC: "Anthropic"}
BLOBS: Final = "/api/blobs/{digest}"


def endpoints() -> list[dict[str, Any]]:
    """Each endpoint with its methods, its kind and its meaning, in the order in which a reader wants them."""
    found = [_inference(endpoint) for endpoint in ENDPOINTS.values()]
    found += [_managed(path, methods) for path, methods in MANAGED.items()]
    found.append(_managed(BLOBS, ("HEAD", "POST")))
    return [*found, *_control()]


def _inference(endpoint: Endpoint) -> dict[str, Any]:
    streams = "streams unless `stream` is false" if endpoint.streams_unasked else "streams if `stream` is true"
    operation = endpoint.operation.replace("_", " ")
    told = f"{operation} in {NAMES[endpoint.dialect]}'s dialect" + ("" if operation == "embeddings" else f"; {streams}")
    return _entry(["POST"], endpoint.path, "inference", f"{told[:1].upper()}{told[1:]}.")


def _managed(path: str, methods: Sequence[str]) -> dict[str, Any]:
    roomy = path.replace("/{digest}", "") in NEEDS_ROOM
    where = "the node with the most room" if roomy else "a node that has the model"
    return _entry(list(methods), path, "management", f"Forwarded to the node `node_id`, or to {where}.", ["node_id"])


def _control() -> Iterator[dict[str, Any]]:
    for kind, router in CONTROL:
        routes = [route for route in router.routes if isinstance(route, APIRoute)]
        for route in routes:
            if not route.include_in_schema:
                continue
            methods = {method for each in routes if each.path == route.path and each.endpoint is route.endpoint
                       for method in each.methods or ()}  # fmt: skip
            meaning = " ".join((getdoc(route.endpoint) or "").split())
            query = list(names(route.dependant))
            yield _entry(sorted(methods), route.path.replace(":path}", "}"), kind, meaning, query)


def _entry(methods: list[str], path: str, kind: str, meaning: str, query: Sequence[str] = ()) -> dict[str, Any]:
    return {"methods": methods, "path": path, "kind": kind, "query": list(query), "help": meaning}
