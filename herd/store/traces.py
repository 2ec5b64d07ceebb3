"""The traces as readers ask for them: a page of the newest, filtered, or one with everything that is known of it."""

import json
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from herd.core.breaker import FAULTS_OF_THE_NODE
from herd.core.names import canonical_name
from herd.core.routing import Decision
from herd.core.why import LEFT_OUT, Outcome, why
from herd.store.decision import VERSION, StoredDecision, decode, replay
from herd.store.rows import ATTEMPT_COLUMNS, BOOLEAN_COLUMNS, JSON_COLUMNS, TRACE_COLUMNS, tag_text
from herd.store.stretches import ERRORS, ERRORS_ARE, Stretch, stretches

Document = dict[str, Any]

LOOKED_THROUGH: Final = 100_000  # rows that one page looks through at most: some hundredths of a second
STEP: Final = 5_000
_BY_ID: Final = (
    "(request_id >= :q AND request_id < :q_end) OR id IN (SELECT id FROM request_traces WHERE trace_id = :q)"
)
_JSON_MARKS: Final = frozenset('[]",')  # between tags, and in none of them
_FAULTS: Final = ", ".join(f"'{name}'" for name in sorted(FAULTS_OF_THE_NODE))
_CLAUSES: Final = {
    "status": f"(status = :status OR (:status = '{ERRORS}' AND status IN {ERRORS_ARE}))",
    "model": "model = :model COLLATE NOCASE",
    "node_id": "node_id = :node_id",
    # The first half is a cheap look at the text, the second makes it exact.
    "tag": "instr(tags, :tag_text) > 0 AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag)",
    "min_latency_ms": "latency_ms >= :min_latency_ms",
    "tried": f"""EXISTS (
        SELECT 1 FROM request_attempts AS attempt WHERE attempt.request_id = request_traces.request_id
        AND attempt.node_id = :tried AND attempt.error_type IN ({_FAULTS})
    )""",
    "retried": "(retry_count > 0) = :retried",
}
_NEXT_ROWS: Final = """
    SELECT COUNT(*), MIN(timestamp) FROM (
        SELECT timestamp FROM request_traces INDEXED BY traces_by_time WHERE timestamp >= ? AND timestamp < ?
        ORDER BY timestamp DESC LIMIT ?
    )"""
_AFTER: Final = "timestamp <= :at AND (timestamp < :at OR id < :id)"
_WILDCARD, _ESCAPED = re.compile(r"([%_\\])"), r"\\\1"
_BEHIND_ANY: Final = "\x7f"  # sorts behind every character that a request id may have
_CURSOR: Final = re.compile(r"([0-9.e+-]{1,32})_([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """What a trace must be, where not None; `since` (inclusive) and `until` (exclusive) are unix seconds of receipt.

    `model` is a whole name, `q` a piece of the model, the node, the error message or a tag, both in any case of ASCII
    letters; or `q` is the beginning of the request's id, or the whole trace id. `status` may also be `errors`: failed
    or incomplete. `tried` is a node at which an attempt failed by the node's fault, whoever answered in the end.
    """

    status: str | None = None
    model: str | None = None
    node_id: str | None = None
    tag: str | None = None
    since: float | None = None
    until: float | None = None
    min_latency_ms: float | None = None
    q: str | None = None
    tried: str | None = None
    retried: bool | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Traces, newest first, and where the next page begins; None at the end.

    `searched_until` (unix s) is set where the search stopped before the page was full: it has found all of that time
    and later, and goes on from the cursor.
    """

    traces: tuple[Document, ...] = ()
    next_cursor: str | None = None
    searched_until: float | None = None


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """One request: its row, its attempts in order, and its decision; `unreadable` says why there is none to read."""

    row: Document
    attempts: tuple[Document, ...]
    decision: StoredDecision | None
    unreadable: str | None = None


def page(
    connection: sqlite3.Connection,
    which: TraceFilter,
    cursor: str | None,
    limit: int,
    looked_through: int = LOOKED_THROUGH,
    step: int = STEP,
) -> Page:
    """One page; a request that ends meanwhile moves nothing. ValueError for a cursor that is not one.

    After so many rows it stops, `step` of them at a time, and says so.
    """
    wanted = {name: value for name, value in asdict(which).items() if value is not None}
    since, until = wanted.pop("since", -math.inf), wanted.pop("until", math.inf)
    clauses = [_q_clause(wanted["q"]) if name == "q" else _CLAUSES[name] for name in wanted]
    if "tag" in wanted:
        wanted["tag_text"] = tag_text(wanted["tag"])
    if "model" in wanted:
        wanted["model"] = canonical_name(wanted["model"])
    if "q" in wanted:
        wanted |= {"pattern": f"%{_WILDCARD.sub(_ESCAPED, wanted['q'])}%", "q_end": wanted["q"] + _BEHIND_ANY}
    if cursor is not None:
        wanted["at"], wanted["id"] = at, number = _position(cursor)
        until = min(until, math.nextafter(at, math.inf) if number else at)  # 0: none of that moment is left
        clauses.append(_AFTER)
    query = _page_query(_columns(connection), clauses)
    found: list[sqlite3.Row] = []
    left = looked_through
    for low, high, rows in _pieces(connection, stretches(connection, wanted, since, until), step):
        if left <= 0:
            return Page(tuple(document(row) for row in found), f"{high!r}_0", high)
        bounds = {"low": low, "high": high, "rows": limit + 1 - len(found)}
        found += connection.execute(query, {**wanted, **bounds})
        if len(found) > limit:
            last = found[limit - 1]
            return Page(tuple(document(row) for row in found[:limit]), f"{last['timestamp']!r}_{last['id']}")
        left -= rows
    return Page(tuple(document(row) for row in found))


def one(connection: sqlite3.Connection, request_id: str) -> StoredTrace | None:
    """Everything about one request; None where there is no such row."""
    row = connection.execute(
        f"SELECT {_columns(connection)}, decision FROM request_traces WHERE request_id = ?", (request_id,)
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
    """One request as a document: its row, its attempts, its decision, `why` in words, and whether `decide` says
    the same today.

    Where it does not, `replayed` is what it says.
    """
    told = {**found.row, "attempts": list(found.attempts)}
    stored = found.decision
    if stored is None:
        return {**told, "decision": None, "decision_missing": found.unreadable}
    outcome = Outcome(**{field.name: found.row[field.name] for field in fields(Outcome)})
    decision = {
        **_in_words(stored.decision),
        "why": why(stored.decision, outcome),
        "policy": asdict(stored.policy),
        "request": asdict(stored.request),
        "unit": stored.unit,
    }
    if stored.version != VERSION:
        return {**told, "decision": {**decision, "replays": None}}
    again = replay(stored)
    if again == stored.decision:
        return {**told, "decision": {**decision, "replays": True}}
    return {**told, "decision": {**decision, "replays": False, "replayed": _in_words(again)}}


def _in_words(decision: Decision) -> Document:
    """A decision as a document, with each reason of the rejected in words beside its name."""
    rejected = [{**asdict(entry), "why": LEFT_OUT[entry.reason]} for entry in decision.rejected]
    plan = [
        {**asdict(entry), "predicted": entry.predicted._asdict() if entry.predicted else None}
        for entry in decision.plan
    ]
    return {**asdict(decision), "plan": plan, "rejected": rejected}


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


def _pieces(connection: sqlite3.Connection, found: Iterable[Stretch], step: int) -> Iterator[tuple[float, float, int]]:
    """Stretches in pieces of `step` rows, or more where they are of one moment; each with how many rows it has."""
    for since, until in found:
        high, rows = until, step
        while rows == step:
            rows, earliest = connection.execute(_NEXT_ROWS, (since, high, step)).fetchone()
            low = earliest if rows == step else since
            yield low, high, rows
            high = low


def _q_clause(q: str) -> str:
    names = ("model", "node_id", "error_message", *(() if _JSON_MARKS & set(q) else ("tags",)))
    pieces = (f"{name} LIKE :pattern ESCAPE '\\'" for name in names)
    return f"({' OR '.join((*pieces, _BY_ID))})"


def _columns(connection: sqlite3.Connection) -> str:
    """What is read of a row; a column that came later is NULL in a file that no newer router has opened yet."""
    there = {row[1] for row in connection.execute("PRAGMA table_info(request_traces)")}
    return ", ".join(name if name in there else f"NULL AS {name}" for name in TRACE_COLUMNS)


def _page_query(columns: str, clauses: list[str]) -> str:
    # The narrow index answers any filter in time order; only the rows of the page are read from the table itself.
    where = " AND ".join(("timestamp >= :low", "timestamp < :high", *clauses))
    return f"""
        SELECT id, {columns} FROM request_traces WHERE id IN (
            SELECT id FROM request_traces INDEXED BY traces_by_time WHERE {where}
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
