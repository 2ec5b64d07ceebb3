"""The dashboard's questions about what was served: traces, one trace, and tables of what the requests came to.

Reads parameters and shapes answers; what is asked of the store is the reader's to know.
"""

import math
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Final, ParamSpec

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import AfterValidator, BeforeValidator

from herd.core.events import Status
from herd.routes.parameters import only_known
from herd.routes.surface import surface_of
from herd.routes.tables import Format, response
from herd.store import answers, reports
from herd.store import calibration as compare
from herd.store.answers import Answer
from herd.store.connections import Question
from herd.store.fleet_events import EventFilter
from herd.store.queries import StoreUnreadable
from herd.store.reports import Report
from herd.store.rollups import DAY_S, HOUR_S
from herd.store.stretches import ERRORS
from herd.store.traces import TraceFilter
from herd.store.windows import Scope

router = APIRouter(prefix="/dashboard/api", dependencies=[only_known])
Document = dict[str, Any]
P = ParamSpec("P")
STATUSES: Final = (*(status.value for status in Status), ERRORS)


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


def ended(text: str) -> str:
    """A status of a request, or `errors` for failed and incomplete together. ValueError for anything else."""
    if text not in STATUSES:
        raise ValueError(f"one of {', '.join(STATUSES)}")
    return text


Ended = Annotated[str | None, AfterValidator(lambda text: text and ended(text)),
                  Query(json_schema_extra={"enum": list(STATUSES)})]  # fmt: skip
Moment = Annotated[float | None, BeforeValidator(moment)]
Text = Annotated[str | None, Query(min_length=1, max_length=256)]
Days = Annotated[int, Query(ge=1, le=365)]
Hours = Annotated[int, Query(ge=1, le=365 * 24)]


def scope(tag: Text = None, model: Text = None, node_id: Text = None) -> Scope:
    """The requests that a table covers."""
    return Scope(tag, model, node_id)


Which = Annotated[Scope, Depends(scope)]


@router.get("/traces")
async def traces(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    status: Ended = None,
    model: Text = None,
    node_id: Text = None,
    tag: Text = None,
    since: Moment = None,
    until: Moment = None,
    min_latency_ms: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None,
    q: Text = None,
    tried: Text = None,
    retried: bool | None = None,
    cursor: Text = None,
    format: Format = "json",
) -> Response:
    """Requests, newest first; `next_cursor` is the cursor of the next page, null on the last.

    `q` matches part of a model, node, tag or error, the beginning of a request id, or a whole trace id.
    `status=errors` is failed or incomplete; `tried` is a node where an attempt failed, whichever node answered.
    `searched_until` (unix seconds) is null, or how far back an unfinished search has come; the cursor continues it.
    With CSV, the next page is in the response's `Link` header.
    """
    which = TraceFilter(status, model, node_id, tag, since, until, min_latency_ms, q, tried, retried)
    try:
        found = await _ask(request, answers.page, which, cursor, limit, format)
    except ValueError as error:
        problem = {"type": "value_error", "loc": ("query", "cursor"), "msg": str(error), "input": cursor}
        raise RequestValidationError([problem]) from error
    answer = response(found)
    if format == "csv" and found.next_cursor:
        after = request.url.include_query_params(cursor=found.next_cursor)
        answer.headers["link"] = f'<?{after.query}>; rel="next"'
    return answer


@router.get("/traces/{request_id}")
async def trace(request: Request, request_id: str) -> Response:
    """One request: its row, its attempts, and the decision with all candidates' signals and all rejections.

    If there is none, the 404 has `ids`: the first ones that begin with this id.
    """
    return response(await _ask(request, answers.trace, request_id))


@router.get("/events")
async def events(
    request: Request,
    since: Moment = None,
    until: Moment = None,
    kind: Annotated[list[str] | None, Query(max_length=32)] = None,
    node_id: Text = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """What happened to fleet and router, the latest first: starts and stops, joins and losses, loads, drains, settings.

    `kind` may be given several times; without it, all but those that come with single requests (fallbacks, …).
    """
    return response(await _ask(request, answers.events, EventFilter(since, until, kind, node_id), limit))


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
    """Requests, errors, tokens, p50 and p95 of every measure, by UTC hour (`hour`: its start, unix seconds)."""
    now = time.time()
    return await _table(request, {"hours": hours}, format, reports.trends, now - hours * HOUR_S, now, which)


@router.get("/latency")
async def latency(request: Request, which: Which, hours: Hours = 24, format: Format = "json") -> Response:
    """Percentiles of latency, first token, time per token, queue wait and router overhead: total, by model, by node."""
    since = time.time() - hours * HOUR_S
    return await _table(request, {"hours": hours}, format, reports.latency, since, which)


@router.get("/calibration")
async def calibration(request: Request, which: Which, hours: Hours = 24, format: Format = "json") -> Response:
    """Predicted against actual times of streams, by node, model and part; errors in percent of the actual time.

    `bias_pct` below 0: predictions are too short. In a large window one stream in `every` is sampled.
    """
    since = time.time() - hours * HOUR_S
    return await _table(request, {"hours": hours}, format, compare.calibration, since, which)


async def _days(request: Request, table: reports.Query, days: int, which: Scope, format: str) -> Response:
    since = time.time() - days * DAY_S
    return await _table(request, {"days": days}, format, table, since, which)


async def _table(
    request: Request,
    window: Document,
    format: str,
    make: Question[P, Report],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Response:
    """A report in the requested format, with its time window."""
    name = request.url.path.rpartition("/api/")[2].replace("/", "-")
    return response(await _ask(request, answers.table, window, name, format, make, *args, **kwargs))


async def _ask(
    request: Request,
    question: Question[P, Answer],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Answer:
    """Have it read and written out elsewhere: a thousand rows as JSON would hold up every stream."""
    reader = surface_of(request).reader
    try:
        return await reader.ask(lambda: reader.answer(question, *args, **kwargs))
    except StoreUnreadable as error:
        return Answer(answers.as_json({"error": str(error)}), status=503)


def _from_iso(text: str) -> float:
    # In a query, an unescaped `+` of an offset arrives as a space.
    try:
        found = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise ValueError("unix seconds or an ISO 8601 time") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
