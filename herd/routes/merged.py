"""What a client asks of "the server" and the whole fleet answers: tags, ps, models, version, root."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from herd import wire
from herd.core.request import Dialect
from herd.dataplane.dialects import error_document
from herd.fleet.entry import Entry
from herd.routes.surface import surface_of

router = APIRouter()
Document = dict[str, Any]


@router.api_route("/", methods=["GET", "HEAD"])
async def root() -> Response:
    """What Ollama's clients look for to know that a server is there."""
    return PlainTextResponse("Ollama is running")


@router.api_route("/api/version", methods=["GET", "HEAD"])
async def version(request: Request) -> Document:
    """The lowest version among the fleet's engines, since that is what a client may rely on."""
    versions = [entry.heartbeat.engine.version for entry in _present(request) if entry.node.engine == "ollama"]
    known = sorted((found for found in versions if found), key=_version_key)
    return {"version": known[0] if known else "0.0.0"}


@router.api_route("/api/tags", methods=["GET", "HEAD"])
async def tags(request: Request) -> Document:
    """Every model of the fleet in Ollama's own fields, newest first, with the nodes that hold it."""
    merged = _merged((entry, entry.heartbeat.engine.models) for entry in _present(request))
    return {"models": sorted(merged, key=lambda model: str(model.get("modified_at", "")), reverse=True)}


@router.api_route("/api/ps", methods=["GET", "HEAD"])
async def ps(request: Request) -> Document:
    """Every loaded model of the fleet in Ollama's own fields, with the nodes that have it in memory."""
    return {"models": _merged((entry, entry.heartbeat.engine.loaded) for entry in _present(request))}


@router.get("/v1/models")
async def models(request: Request) -> Document:
    """Every model of the fleet as OpenAI lists them, with the nodes that hold it."""
    return {"object": "list", "data": _openai_models(request)}


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> Response:
    """One model as OpenAI describes it."""
    wanted = surface_of(request).keeper.cell.spelled(name)
    found = next((entry for entry in _openai_models(request) if wire.canonical_name(entry["id"]) == wanted), None)
    if found is None:
        error = error_document(Dialect.OPENAI, 404, f"model '{name}' not found", "model_missing")
        return JSONResponse(error, status_code=404)
    return JSONResponse({**found, "id": name})


def _present(request: Request) -> list[Entry]:
    entries = surface_of(request).keeper.cell.entries
    present = [entry for entry in entries.values() if entry.node.status != "offline"]
    return sorted(present, key=lambda entry: entry.node.engine != "ollama")  # its listings alone have Ollama's fields


def _merged(listings: Iterable[tuple[Entry, Iterable[wire.Model | wire.LoadedModel]]]) -> list[Document]:
    found: dict[str, Document] = {}
    for entry, listed in listings:
        for item in listed:
            basis = {"name": item.name, "model": item.name, "size": item.size_bytes}
            merged = found.setdefault(wire.canonical_name(item.name), {**basis, **item.entry, "nodes": []})
            merged["nodes"].append(entry.node.node_id)
    return list(found.values())


def _openai_models(request: Request) -> list[Document]:
    listed = _merged((entry, entry.heartbeat.engine.models) for entry in _present(request))
    return [
        {"id": item["name"], "object": "model", "created": _unix(item), "owned_by": "library", "nodes": item["nodes"]}
        for item in listed
    ]


def _unix(item: Document) -> int:
    created = item.get("created")
    if isinstance(created, int):
        return created
    try:
        return int(datetime.fromisoformat(str(item.get("modified_at"))[:19] + "+00:00").timestamp())
    except ValueError:
        return 0


def _version_key(version: str) -> list[int]:
    return [int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")[:3]]
