"""The dashboard's questions about what was served: traces, one trace, and the sums by tag, node, model and day.

Reads parameters and shapes answers; what is asked of the store is the reader's to know.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BeforeValidator

from herd.core.events import Status
from herd.store.queries import Reader, StoreUnreadable
from herd.store.traces import StoredTrace, TraceFilter, whole

router = APIRouter(prefix="/dashboard/api")
Document = dict[str, Any]


class AsciiJSON(JSONResponse):
    """JSON with escapes: a model's name may hold a lone surrogate, which UTF-8 has no bytes for."""

    def render(self, content: Any) -> bytes:
        """The bytes of an answer."""
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def moment(text: object) -> float:
    """Unix seconds, from themselves or from ISO 8601 (without an offset: UTC). ValueError for anything else."""
    if not isinstance(text, str):
        raise ValueError("unix seconds or an ISO 8601 time")
    try:
        seconds = float(text)
    except ValueError:
        seconds = _from_iso(text)
    if not math.isfinite(seconds):
        raise ValueError("unix seconds or an ISO 8601 time, and a finite one")
    return seconds


Moment = Annotated[float | None, BeforeValidator(moment)]
Text = Annotated[str | None, Query(min_length=1, max_length=256)]
Days = Annotated[int, Query(ge=1, le=365)]


@router.get("/traces")
async def traces(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    status: Status | None = None,
    model: Text = None,
    node_id: Text = None,
    tag: Text = None,
    since: Moment = None,
    until: Moment = None,
    min_latency_ms: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None,
    q: Text = None,
    cursor: Text = None,
) -> Response:
    """Requests, newest first; `next_cursor` leads to the page after this one, null at the end."""
    which = TraceFilter(status and status.value, model, node_id, tag, since, until, min_latency_ms, q)
    try:
        return await _answer(request, lambda reader: AsciiJSON(asdict(reader.traces(which, cursor, limit))))
    except ValueError as error:
        problem = {"type": "value_error", "loc": ("query", "cursor"), "msg": str(error), "input": cursor}
        raise RequestValidationError([problem]) from error


@router.get("/traces/{request_id}")
async def trace(request: Request, request_id: str) -> Response:
    """One request: its row, its attempts, and the decision with all candidates' signals and all rejections."""
    return await _answer(request, lambda reader: _trace(request_id, reader.trace(request_id)))


@router.get("/apps")
async def apps(request: Request, days: Days = 7) -> Response:
    """Requests, errors, speed and tokens by tag."""
    return await _answer(request, lambda reader: AsciiJSON({"days": days, "data": reader.apps(days)}))


@router.get("/apps/daily")
async def apps_daily(request: Request, days: Days = 7) -> Response:
    """The same by tag and UTC day."""
    return await _answer(request, lambda reader: AsciiJSON({"days": days, "data": reader.apps_daily(days)}))


@router.get("/usage")
async def usage(request: Request, days: Days = 7) -> Response:
    """Requests by status, tokens, retries, fallbacks and speed, by node, model and UTC day."""
    return await _answer(request, lambda reader: AsciiJSON({"days": days, "data": reader.usage(days)}))


async def _answer(request: Request, make: Callable[[Reader], Response]) -> Response:
    """Read and write out on a thread of the reader's: a thousand rows as JSON would hold up every stream."""
    reader: Reader = request.app.state.reader
    try:
        return await reader.ask(make, reader)
    except StoreUnreadable as error:
        return AsciiJSON({"error": str(error)}, 503)


def _trace(request_id: str, found: StoredTrace | None) -> Response:
    if found is None:
        text = f"no request {request_id!r} on record; it may still run, or be older than what is kept"
        return AsciiJSON({"error": text}, 404)
    return AsciiJSON(whole(found))


def _from_iso(text: str) -> float:
    # In a query, an unescaped `+` of an offset arrives as a space.
    try:
        found = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise ValueError("unix seconds or an ISO 8601 time") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
