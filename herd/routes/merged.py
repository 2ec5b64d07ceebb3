"""What a client asks of "the server" and the whole fleet answers: tags, ps, models, version, root.

Each list has what can be answered in its dialect, and each entry all fields of the dialect's type, whatever its engine
says of it: Ollama's own command line cuts the digest without a look at its length.
"""

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from herd import wire
from herd.core.dialects import error_document
from herd.core.request import Dialect
from herd.fleet.entry import Entry
from herd.routes.surface import surface_of

router = APIRouter()
Document = dict[str, Any]
OLLAMAS_PATHS: Final = frozenset({"/api/chat", "/api/generate", "/api/embed", "/api/embeddings"})
OPENAIS_FIELDS: Final = frozenset({"id", "object", "created", "owned_by", "aliases", "tags", "meta"})
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
LATEST: Final = 4_102_444_800  # the year 2100: what is beyond it is no time of a file
STAYS: Final = "2300-01-01T00:00:00Z"  # Ollama's command line shows what is so far away as "Forever"
NO_DETAILS: Final = {"parent_model": "", "format": "", "family": "", "families": [], "parameter_size": "",
                     "quantization_level": ""}  # fmt: skip


@router.head("/", include_in_schema=False)
@router.get("/")
async def root() -> Response:
    """Ollama's greeting, which clients use to detect a server."""
    return PlainTextResponse("Ollama is running")


@router.head("/api/version", include_in_schema=False)
@router.get("/api/version")
async def version(request: Request) -> Document:
    """The lowest engine version in the fleet, since clients can rely on no more."""
    versions = [entry.heartbeat.engine.version for entry in _present(request) if entry.node.engine == "ollama"]
    known = sorted((found for found in versions if found), key=_version_key)
    return {"version": known[0] if known else "0.0.0"}


@router.head("/api/tags", include_in_schema=False)
@router.get("/api/tags")
async def tags(request: Request) -> Document:
    """All models of the fleet in Ollama's format, newest first, with the nodes that have each."""
    merged = _merged((entry, entry.heartbeat.engine.models) for entry in _present(request))
    here = [ollamas(model) for model in merged if _spoken(request, model)]
    return {"models": sorted(here, key=lambda model: str(model["modified_at"]), reverse=True)}


@router.head("/api/ps", include_in_schema=False)
@router.get("/api/ps")
async def ps(request: Request) -> Document:
    """All loaded models of the fleet in Ollama's format, with the nodes that have each loaded."""
    merged = _merged((entry, entry.heartbeat.engine.loaded) for entry in _present(request))
    return {"models": [in_memory(model) for model in merged if _spoken(request, model)]}


@router.get("/v1/models/", include_in_schema=False)
@router.get("/v1/models")
async def models(request: Request) -> Document:
    """All models of the fleet in OpenAI's format, with the nodes that have each."""
    return {"object": "list", "data": _openai_models(request)}


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> Response:
    """One model in OpenAI's format."""
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
            basis: Document = {"name": item.name, "model": item.name, "size": item.size_bytes}
            if isinstance(item, wire.LoadedModel):
                until = datetime.fromtimestamp(item.expires_at, UTC).isoformat() if item.expires_at else STAYS
                basis |= {"size_vram": item.vram_bytes, "context_length": item.context_length or 0, "expires_at": until}
            merged = found.setdefault(wire.canonical_name(item.name), {**basis, **item.entry, "nodes": []})
            merged["nodes"].append(entry.node.node_id)
    return list(found.values())


def _spoken(request: Request, model: Document) -> bool:
    """Whether one of the nodes that hold a model answers for it in Ollama's dialect; elsewhere it would be refused."""
    entries = surface_of(request).keeper.cell.entries
    return any(not OLLAMAS_PATHS.isdisjoint(entries[node_id].node.endpoints) for node_id in model["nodes"])


def ollamas(listed: Document) -> Document:
    """An entry with all fields of Ollama's type, each of its type; what the engine does not say is made up or empty."""
    meta, details = (found if isinstance(found := listed.get(key), dict) else {} for key in ("meta", "details"))
    size, digest = listed.get("size"), str(listed.get("digest"))
    known = f"{listed['name']} {meta.get('size')} {meta.get('n_params')}"  # the rest of it changes with each start
    return {
        **{key: value for key, value in listed.items() if key not in OPENAIS_FIELDS},
        "size": size if isinstance(size, int) else 0,
        "digest": digest if DIGEST.fullmatch(digest) else hashlib.sha256(known.encode()).hexdigest(),
        "modified_at": _modified(listed),
        "details": {**NO_DETAILS, "format": "gguf", "parameter_size": _parameters(meta), **details},
    }


def in_memory(listed: Document) -> Document:
    """An entry of a loaded model, likewise."""
    return {key: value for key, value in ollamas(listed).items() if key != "modified_at" or key in listed}


def _modified(listed: Document) -> str:
    text = listed.get("modified_at")
    if isinstance(text, str) and RFC3339.match(text):
        return text
    return datetime.fromtimestamp(min(_unix(listed), LATEST), UTC).isoformat().replace("+00:00", "Z")


def _parameters(meta: Document) -> str:
    count = meta.get("n_params")
    if not isinstance(count, int) or count <= 0:
        return ""
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"


def _openai_models(request: Request) -> list[Document]:
    listed = _merged((entry, entry.heartbeat.engine.models) for entry in _present(request))
    return [
        {
            "id": item["name"],
            "object": "model",
            "created": _unix(item),
            "owned_by": "library",
            **({"meta": item["meta"]} if "meta" in item else {}),
            "nodes": item["nodes"],
        }
        for item in listed
    ]


def _unix(item: Document) -> int:
    created = item.get("created")
    if isinstance(created, int) and 0 <= created <= LATEST:
        return created
    try:
        return int(datetime.fromisoformat(str(item.get("modified_at"))[:19] + "+00:00").timestamp())
    except ValueError:
        return 0


def _version_key(version: str) -> list[int]:
    return [int("".join(re.findall(r"[0-9]", part))[:9] or 0) for part in version.split(".")[:3]]
