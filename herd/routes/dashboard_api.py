"""The dashboard's questions about what was served: traces, one trace, and tables of what the requests came to.

Reads parameters and shapes answers; what is asked of the store is the reader's to know.
"""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BeforeValidator

from herd.core.events import Status
from herd.routes.parameters import only_known
from herd.routes.surface import surface_of
from herd.routes.tables import AsciiJSON, Format, as_csv
from herd.store import reports
from herd.store.queries import Reader, StoreUnreadable
from herd.store.reports import Report
from herd.store.rollups import DAY_S, HOUR_S
from herd.store.rows import TRACE_COLUMNS
from herd.store.traces import Page, TraceFilter, whole
from herd.store.windows import Scope

router = APIRouter(prefix="/dashboard/api", dependencies=[only_known])
Document = dict[str, Any]


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
Hours = Annotated[int, Query(ge=1, le=365 * 24)]


def scope(tag: Text = None, model: Text = None, node_id: Text = None) -> Scope:
    """Which requests a table is about."""
    return Scope(tag, model, node_id)


Which = Annotated[Scope, Depends(scope)]


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
    format: Format = "json",
) -> Response:
    """Requests, newest first; `next_cursor` leads to the page after this one, null at the end.

    `q` is a piece of a model, node, tag or error, the beginning of a request's id, or a whole trace id.
    `searched_until` (unix seconds) is null, or says how far back a long search has come: the cursor goes on from there.
    As CSV, the page after this one is the `Link` of the answer.
    """
    which = TraceFilter(status and status.value, model, node_id, tag, since, until, min_latency_ms, q)
    try:
        return await _answer(request, lambda reader: _page(request, reader.traces(which, cursor, limit), format))
    except ValueError as error:
        problem = {"type": "value_error", "loc": ("query", "cursor"), "msg": str(error), "input": cursor}
        raise RequestValidationError([problem]) from error


@router.get("/traces/{request_id}")
async def trace(request: Request, request_id: str) -> Response:
    """One request: its row, its attempts, and the decision with all candidates' signals and all rejections.

    Where there is none of that id, the 404 has `ids`: the first of those that begin so.
    """
    return await _answer(request, lambda reader: _trace(request_id, reader))


@router.get("/apps")
async def apps(request: Request, which: Which, days: Days = 7, format: Format = "json") -> Response:
    """Requests, errors, speed and tokens by tag."""
    return await _days(request, reports.apps, days, which, format)


@router.get("/apps/daily")
async def apps_daily(request: Request, which: Which, days: Days = 7, format: Format = "json") -> Response:
    """The same by tag and UTC day."""
    return await _days(request, reports.apps_daily, days, which, format)


@router.get("/usage")
async def usage(request: Request, which: Which, days: Days = 7, format: Format = "json") -> Response:
    """Requests by status, tokens, retries, fallbacks and speed, by node, model and UTC day."""
    return await _days(request, reports.usage, days, which, format)


@router.get("/models")
async def models(request: Request, which: Which, days: Days = 7, format: Format = "json") -> Response:
    """Requests, errors, tokens and percentiles of latency, first token and time per token, by model."""
    return await _days(request, reports.models, days, which, format)


@router.get("/trends")
async def trends(request: Request, which: Which, hours: Hours = 24, format: Format = "json") -> Response:
    """Requests, errors, tokens, p50 and p95 of every measure, by UTC hour (`hour`: its beginning, unix seconds)."""
    return await _table(request, lambda reader: reader.trends(hours, which), {"hours": hours}, format)


@router.get("/latency")
async def latency(request: Request, which: Which, hours: Hours = 24, format: Format = "json") -> Response:
    """Percentiles of latency, first token, time per token, queueing and overhead: of all, by model, by node."""
    since = time.time() - hours * HOUR_S
    return await _table(request, lambda reader: reader.report(reports.latency, since, which), {"hours": hours}, format)


async def _days(request: Request, table: reports.Query, days: int, which: Scope, format: str) -> Response:
    since = time.time() - days * DAY_S
    return await _table(request, lambda reader: reader.report(table, since, which), {"days": days}, format)


async def _table(request: Request, make: Callable[[Reader], Report], window: Document, format: str) -> Response:
    """A report in the format asked for, with the window that it is about."""

    def answer(reader: Reader) -> Response:
        report = make(reader)
        if format == "csv":
            name = request.url.path.rpartition("/api/")[2].replace("/", "-")
            return as_csv(name, report.data, report.columns)
        return AsciiJSON({**window, **report.document})

    return await _answer(request, answer)


async def _answer(request: Request, make: Callable[[Reader], Response]) -> Response:
    """Read and write out on a thread of the reader's: a thousand rows as JSON would hold up every stream."""
    reader = surface_of(request).reader
    try:
        return await reader.ask(make, reader)
    except StoreUnreadable as error:
        return AsciiJSON({"error": str(error)}, 503)


def _page(request: Request, page: Page, format: str) -> Response:
    if format == "json":
        told = {"traces": page.traces, "next_cursor": page.next_cursor, "searched_until": page.searched_until}
        return AsciiJSON(told)  # not by asdict, which would copy every value of every row
    answer = as_csv("traces", page.traces, TRACE_COLUMNS)
    if page.next_cursor:
        after = request.url.include_query_params(cursor=page.next_cursor)
        answer.headers["link"] = f'<?{after.query}>; rel="next"'
    return answer


def _trace(request_id: str, reader: Reader) -> Response:
    found = reader.trace(request_id)
    if found is None:
        text = f"no request {request_id!r} on record; it may still run, or retention has deleted it"
        return AsciiJSON({"error": text, "ids": reader.ids(request_id)}, 404)
    return AsciiJSON(whole(found))


def _from_iso(text: str) -> float:
    # In a query, an unescaped `+` of an offset arrives as a space.
    try:
        found = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise ValueError("unix seconds or an ISO 8601 time") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
