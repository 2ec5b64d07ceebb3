"""What the page asks of the store, written out as the bytes that it gets: JSON, or CSV for a spreadsheet.

Whoever runs a query makes its answer, so that a thousand rows never cross from one process to another as objects.
"""

import csv
import io
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec

from herd.store import fleet_events, traces
from herd.store.connections import Question
from herd.store.fleet_events import EventFilter
from herd.store.reports import Report
from herd.store.rows import TRACE_COLUMNS
from herd.store.traces import TraceFilter

P = ParamSpec("P")
Document = dict[str, Any]
JSON: Final = "application/json"
CSV: Final = "text/csv; charset=utf-8"
IDS: Final = 10  # of requests that begin as one that is not there

# A spreadsheet takes a cell that begins so for a formula; names of models and tags are whatever a client sent.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of an answer; `next_cursor` leads to the page after this one, where there is one."""

    body: bytes
    media_type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    next_cursor: str | None = None


def page(connection: sqlite3.Connection, which: TraceFilter, cursor: str | None, limit: int, format: str) -> Answer:
    """A page of traces, newest first. ValueError for a cursor that is not one."""
    found = traces.page(connection, which, cursor, limit)
    if format == "csv":
        return csv_answer("traces", found.traces, TRACE_COLUMNS, found.next_cursor)
    told = {"traces": found.traces, "next_cursor": found.next_cursor, "searched_until": found.searched_until}
    return Answer(as_json(told), next_cursor=found.next_cursor)  # not by asdict, which would copy every value


def trace(connection: sqlite3.Connection, request_id: str) -> Answer:
    """One request with everything that is known of it; where there is none, a 404 with the ids that begin so."""
    found = traces.one(connection, request_id)
    if found is not None:
        return Answer(as_json(traces.whole(found)))
    text = f"no request {request_id!r} on record; it may still run, or retention has deleted it"
    return Answer(as_json({"error": text, "ids": traces.ids(connection, request_id, IDS)}), status=404)


def events(connection: sqlite3.Connection, which: EventFilter, limit: int) -> Answer:
    """The latest events of the fleet that pass a filter."""
    return Answer(as_json({"events": fleet_events.page(connection, which, limit)}))


def table(
    connection: sqlite3.Connection,
    window: Document,
    name: str,
    format: str,
    make: Question[P, Report],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> Answer:
    """A report with the window that it is about; `name` is that of the file that a CSV becomes."""
    report = make(connection, *args, **kwargs)
    if format == "csv":
        return csv_answer(name, report.data, report.columns)
    return Answer(as_json({**window, **report.document}))


def as_json(content: Any) -> bytes:
    """JSON with escapes: a model's name may hold a lone surrogate, which UTF-8 has no bytes for."""
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def csv_answer(name: str, rows: Iterable[Document], columns: Sequence[str], next_cursor: str | None = None) -> Answer:
    """Rows as a file of that name; lists within a cell are separated by spaces, objects are JSON, None is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    disposition = {"content-disposition": f'attachment; filename="herd-{name}.csv"'}
    body = text.getvalue().encode("utf-8", "backslashreplace")
    return Answer(body, CSV, headers=disposition, next_cursor=next_cursor)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    elif isinstance(value, dict | bool):
        value = json.dumps(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
