"""The traces as readers ask for them: a page of the newest, filtered, or one with everything that is known of it."""

import json
import math
import re
import sqlite3
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from herd.core.why import Outcome, why
from herd.store.decision import StoredDecision, decode, replay
from herd.store.rows import ATTEMPT_COLUMNS, BOOLEAN_COLUMNS, JSON_COLUMNS, TRACE_COLUMNS, tag_text
from herd.wire import canonical_name

Document = dict[str, Any]

_SEARCHED: Final = ("request_id", "model", "node_id", "error_message", "tags")
_CLAUSES: Final = {
    "status": "status = :status",
    "model": "model = :model",
    "node_id": "node_id = :node_id",
    # The first half is a cheap look at the text, the second makes it exact.
    "tag": "instr(tags, :tag_text) > 0 AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag)",
    "since": "timestamp >= :since",
    "until": "timestamp < :until",
    "min_latency_ms": "latency_ms >= :min_latency_ms",
    "q": "(" + " OR ".join(f"{name} LIKE :pattern ESCAPE '\\'" for name in _SEARCHED) + ")",
}
_AFTER: Final = "timestamp <= :at AND (timestamp < :at OR id < :id)"
_WILDCARD, _ESCAPED = re.compile(r"([%_\\])"), r"\\\1"
_BEHIND_ANY: Final = "\x7f"  # sorts behind every character that a request id may have
_CURSOR: Final = re.compile(r"([0-9.e+-]{1,32})_([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """What a trace must be, where not None; `since` (inclusive) and `until` (exclusive) are unix seconds of receipt.

    `q` is a piece of the request's id, model, node, error message or tags, in any case of ASCII letters.
    """

    status: str | None = None
    model: str | None = None
    node_id: str | None = None
    tag: str | None = None
    since: float | None = None
    until: float | None = None
    min_latency_ms: float | None = None
    q: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Traces, newest first, and where the next page begins; None at the end."""

    traces: tuple[Document, ...] = ()
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """One request: its row, its attempts in order, and its decision; `unreadable` says why there is none to read."""

    row: Document
    attempts: tuple[Document, ...]
    decision: StoredDecision | None
    unreadable: str | None = None


def page(connection: sqlite3.Connection, which: TraceFilter, cursor: str | None, limit: int) -> Page:
    """One page; a request that ends meanwhile moves nothing. ValueError for a cursor that is not one."""
    wanted = {name: value for name, value in asdict(which).items() if value is not None}
    clauses = [_CLAUSES[name] for name in wanted]
    if "tag" in wanted:
        wanted["tag_text"] = tag_text(wanted["tag"])
    if "model" in wanted:
        wanted["model"] = canonical_name(wanted["model"])
    if "q" in wanted:
        wanted["pattern"] = f"%{_WILDCARD.sub(_ESCAPED, wanted['q'])}%"
    if cursor is not None:
        wanted["at"], wanted["id"] = _position(cursor)
        clauses.append(_AFTER)
    found = connection.execute(_page_query(clauses), {**wanted, "rows": limit + 1}).fetchall()
    last = found[limit - 1] if len(found) > limit else None
    return Page(tuple(document(row) for row in found[:limit]), f"{last['timestamp']!r}_{last['id']}" if last else None)


def one(connection: sqlite3.Connection, request_id: str) -> StoredTrace | None:
    """Everything about one request; None where there is no such row."""
    row = connection.execute(
        f"SELECT {', '.join(TRACE_COLUMNS)}, decision FROM request_traces WHERE request_id = ?", (request_id,)
    ).fetchone()
    if row is None:
        return None
    attempts = connection.execute(
        f"SELECT {', '.join(ATTEMPT_COLUMNS[1:])} FROM request_attempts WHERE request_id = ? ORDER BY number",
        (request_id,),
    )
    told = document(row)
    text = told.pop("decision")
    decision, unreadable = _decoded(text)
    return StoredTrace(told, tuple(document(attempt) for attempt in attempts), decision, unreadable)


def whole(found: StoredTrace) -> Document:
    """One request as a document: its row, its attempts, its decision, `why` in a sentence, and whether `decide` says
    the same today.

    Where it does not, `replayed` is what it says.
    """
    told = {**found.row, "attempts": list(found.attempts)}
    stored = found.decision
    if stored is None:
        return {**told, "decision": None, "decision_missing": found.unreadable}
    outcome = Outcome(**{field.name: found.row[field.name] for field in fields(Outcome)})
    decision = {
        **asdict(stored.decision),
        "why": why(stored.decision, outcome),
        "policy": asdict(stored.policy),
        "request": asdict(stored.request),
    }
    again = replay(stored)
    if again == stored.decision:
        return {**told, "decision": {**decision, "replays": True}}
    return {**told, "decision": {**decision, "replays": False, "replayed": asdict(again)}}


def ids(connection: sqlite3.Connection, prefix: str, limit: int) -> list[str]:
    """The first request ids that begin with a prefix, in their order."""
    found = connection.execute(
        "SELECT request_id FROM request_traces WHERE request_id >= ? AND request_id < ? ORDER BY request_id LIMIT ?",
        (prefix, prefix + _BEHIND_ANY, limit),
    )
    return [row["request_id"] for row in found]


def document(row: sqlite3.Row) -> Document:
    """A row as JSON would have it: lists and objects instead of their text, true and false instead of 1 and 0."""
    told = dict(row)
    told.pop("id", None)
    for name, value in told.items():
        if value is None:
            continue
        if name in JSON_COLUMNS:
            told[name] = json.loads(value)
        elif name in BOOLEAN_COLUMNS:
            told[name] = bool(value)
    return told


def _page_query(clauses: list[str]) -> str:
    # The narrow index answers any filter in time order; only the rows of the page are read from the table itself.
    where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
    return f"""
        SELECT id, {", ".join(TRACE_COLUMNS)} FROM request_traces WHERE id IN (
            SELECT id FROM request_traces INDEXED BY traces_by_time {where}
            ORDER BY timestamp DESC, id DESC LIMIT :rows
        ) ORDER BY timestamp DESC, id DESC
    """


def _position(cursor: str) -> tuple[float, int]:
    match = _CURSOR.fullmatch(cursor)
    try:
        at, number = (float(match[1]), int(match[2])) if match else (math.nan, 0)
    except ValueError:
        at, number = math.nan, 0
    if not math.isfinite(at):
        raise ValueError(f"not a cursor: {cursor!r}; take `next_cursor` of the page before, as it is")
    return at, number


def _decoded(text: str | None) -> tuple[StoredDecision | None, str | None]:
    if text is None:
        return None, "the request ended before anything was decided"
    try:
        return decode(text), None
    except ValueError as error:
        return None, str(error)
