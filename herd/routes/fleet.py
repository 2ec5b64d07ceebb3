"""The fleet's surface: heartbeats in, status out, and what an operator does to a node."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from herd import __version__, wire
from herd.core.clock import Moment, moment
from herd.core.quarantine import Suspect
from herd.dataplane.under_way import under_way
from herd.fleet.cell import TwinHeard
from herd.fleet.entry import Entry
from herd.routes.surface import Surface, surface_of
from herd.security.access import AccessUnreadable
from herd.security.node_door import Asked, Refused
from herd.wire.joining import JOIN_PATH

router = APIRouter()
Document = dict[str, Any]
GB = 1024**3
MOST_NODES = 128


@router.post("/heartbeat")
async def heartbeat(request: Request) -> Response:
    """Receive a node's heartbeat; a malformed one is a 422 that names the field. Any content type is accepted."""
    body = await _limited(request)
    if body is None:
        return JSONResponse({"error": f"a heartbeat is at most {wire.MOST_BYTES} bytes"}, status_code=413)
    try:
        beat = wire.Heartbeat.model_validate_json(body)
    except ValidationError as error:
        found = [{"field": ".".join(map(str, item["loc"])), "message": item["msg"]} for item in error.errors()]
        text = "; ".join(f"{item['field'] or 'body'}: {item['message']}" for item in found[:3])
        return JSONResponse({"error": f"malformed heartbeat: {text}", "fields": found}, status_code=422)
    surface = surface_of(request)
    keeper, asked = surface.keeper, _asked(request, body)
    try:
        beat, observed = surface.door.taken(asked, beat)
    except Refused as refused:
        return _refused(surface, asked, refused, beat.node_id)
    if observed:
        surface.report(observed)
    known = keeper.cell.entries
    if beat.node_id not in known and len(known) >= MOST_NODES:
        text = f"the fleet has {MOST_NODES} nodes; remove offline ones first"
        return JSONResponse({"error": text}, status_code=409)
    try:
        keeper.heard(beat)
    except TwinHeard as twin:
        return JSONResponse({"error": str(twin)}, status_code=409)
    reply = wire.HeartbeatReply(router_version=__version__, draining=keeper.cell.entries[beat.node_id].drained)
    return JSONResponse(reply.model_dump())


@router.post(JOIN_PATH)
async def join(request: Request) -> Response:
    """Introduce a node by its certificate: with a join code, with this machine's local code, or to be accepted."""
    surface, body = surface_of(request), await _limited(request)
    asked = _asked(request, body or b"")
    try:
        reply = await asyncio.to_thread(surface.door.introduce, asked)
    except ValidationError as error:
        found = [{"field": ".".join(map(str, item["loc"])), "message": item["msg"]} for item in error.errors()]
        return JSONResponse({"error": "malformed introduction", "fields": found}, status_code=422)
    except (AccessUnreadable, OSError) as error:
        return JSONResponse({"error": f"the router cannot keep a node now: {error}"}, status_code=503)
    except Refused as refused:
        return _refused(surface, asked, refused, None)
    return JSONResponse(reply.model_dump(), status_code=200 if reply.state == "accepted" else 202)


def _asked(request: Request, body: bytes) -> Asked:
    client, private = request.client.host if request.client else "", request.url.scheme == "https"
    return Asked(request.url.path, request.headers, client, body, private)


def _refused(surface: Surface, asked: Asked, refused: Refused, node_id: str | None) -> Response:
    surface.report(surface.door.refusal(asked, refused))
    if node_id and refused.reason == "other_key":
        surface.keeper.twin(node_id, asked.client)
    return JSONResponse({"error": refused.error.message, "reason": refused.reason}, status_code=refused.error.status)


async def _limited(request: Request) -> bytes | None:
    """The body; None as soon as it is larger than any heartbeat."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > wire.MOST_BYTES:
            return None
    return bytes(body)


@router.get("/fleet/status")
async def status(request: Request) -> Document:
    """Nodes, queues, pulls in progress, and counts; objects are never null."""
    surface, now = surface_of(request), moment()
    cell = surface.keeper.cell
    in_flight = cell.slots.in_flight()
    nodes = [_node(entry, sum(in_flight.get(name, {}).values()), now) for name, entry in cell.entries.items()]
    here = [node for node in nodes if node["status"] != "offline"]
    return {
        "fleet": {
            "nodes_total": len(nodes),
            "nodes_online": len(here),
            "models_loaded": sum(len(node["ollama"]["models_loaded"]) for node in here),
            "requests_active": len(surface.flights),
        },
        "nodes": nodes,
        "queues": {model: {"depth": depth} for model, depth in cell.slots.depths().items()},
        "pulls": surface.pulls(),
        "quarantine": [_suspect(suspect, now) for suspect in surface.quarantine.view(now.tick)],
        "timestamp": now.at,
    }


@router.get("/fleet/requests")
async def requests(request: Request) -> Document:
    """The requests in flight and queued, the oldest first: phase, node, age, tokens so far, and predicted end.

    `phase` is receiving, queued, loading, prefill or decode; working where an answer that does not stream is made.
    """
    surface = surface_of(request)
    entries = surface.keeper.cell.entries

    def is_loaded(node_id: str, model: str) -> bool:
        return node_id in entries and model in entries[node_id].node.loaded

    found = sorted((under_way(flight, is_loaded) for flight in surface.flights), key=lambda each: -each["age_s"])
    return {"requests": found, "timestamp": moment().at}


@router.post("/fleet/requests/{request_id}/cancel")
async def cancel(request: Request, request_id: str) -> Response:
    """Cancel a request in flight: its client gets an error, its node stops, its record says `cancelled`."""
    if surface_of(request).flights.cancel(request_id):
        return JSONResponse({"request_id": request_id, "cancelled": True})
    text = f"no request {request_id!r} is in flight; `GET /fleet/requests` lists them"
    return JSONResponse({"error": text}, status_code=404)


@router.post("/fleet/nodes/{node_id}/drain")
async def drain(request: Request, node_id: str, draining: bool = True) -> Response:
    """Drain a node: send it no new requests (`?draining=false`: resume it)."""
    keeper = surface_of(request).keeper
    if node_id not in keeper.cell.entries:
        return _no_such_node(node_id)
    keeper.drain(node_id, draining)
    return JSONResponse({"node_id": node_id, "draining": keeper.cell.entries[node_id].node.draining})


@router.delete("/fleet/nodes/{node_id}")
async def forget(request: Request, node_id: str) -> Response:
    """Remove an offline node from the fleet."""
    try:
        surface_of(request).keeper.forget(node_id)
    except KeyError:
        return _no_such_node(node_id)
    except ValueError as error:
        return JSONResponse({"error": str(error)}, status_code=409)
    return JSONResponse({"node_id": node_id, "forgotten": True})


def _suspect(suspect: Suspect, now: Moment) -> Document:
    """A body that is refused, for another `ends_in_s` seconds, because these nodes died on it in a row."""
    last = suspect.deaths[-1]
    return {
        "digest": suspect.digest,
        "model": last.model,
        "request_id": last.request_id,
        "nodes": [death.node_id for death in suspect.deaths],
        "ends_in_s": round((suspect.until or now.tick) - now.tick, 1),
    }


def _no_such_node(node_id: str) -> Response:
    text = f"there is no node {node_id!r} in the fleet; `herd status` lists them"
    return JSONResponse({"error": text}, status_code=404)


def _node(entry: Entry, in_flight: int, now: Moment) -> Document:
    beat, node = entry.heartbeat, entry.node
    return {
        "node_id": node.node_id,
        "status": node.status,
        "left": entry.left,
        "url": node.url,
        "cpu": {
            "utilization_pct": round(beat.cpu.utilization * 100, 1),
            "cores": beat.cpu.cores,
            "temperature_c": beat.cpu.temperature_c,
            "throttled": beat.cpu.throttled,
        },
        "memory": {
            "used_gb": round(beat.memory.used_bytes / GB, 2),
            "total_gb": round(beat.memory.total_bytes / GB, 2),
            "available_gb": round(beat.memory.available_bytes / GB, 2),
            "swap_used_gb": round(beat.memory.swap_used_bytes / GB, 2),
            "pressure": beat.memory.pressure,
        },
        "disk": {"free_gb": round(beat.disk.free_bytes / GB, 2), "total_gb": round(beat.disk.total_bytes / GB, 2)}
        if beat.disk
        else {},
        "gpus": [
            {
                "index": gpu.index,
                "name": gpu.name,
                "kind": gpu.kind,
                "memory_used_gb": round(gpu.memory_used_bytes / GB, 2),
                "memory_total_gb": round(gpu.memory_total_bytes / GB, 2),
                "utilization_pct": None if gpu.utilization is None else round(gpu.utilization * 100, 1),
            }
            for gpu in beat.gpus
        ],
        "ollama": _engine(entry, in_flight),
        "version": beat.agent_version,
        "last_seen_s": round(entry.silent_s(now), 2),
        "clock_skew_s": round(entry.clock_skew_s, 2),
        "draining": node.draining,
        "breaker": entry.breaker(now).value,
    }


def _engine(entry: Entry, in_flight: int) -> Document:
    engine = entry.heartbeat.engine
    return {
        "engine": engine.kind,
        "version": engine.version,
        "reachable": engine.reachable,
        "error": engine.error,
        "slots": engine.slots,
        "models_loaded": [
            {
                "name": model.name,
                "size_gb": round(model.size_bytes / GB, 2),
                "vram_gb": round(model.vram_bytes / GB, 2),
                "context_length": model.context_length,
                "expires_at": model.expires_at,
            }
            for model in engine.loaded
        ],
        "models_available": sorted(entry.node.models),
        "requests_active": in_flight,
    }
