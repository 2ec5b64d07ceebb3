"""What an audit compares the other records with: which requests ended in a window."""

import sqlite3
from typing import Final, NamedTuple

CHUNK: Final = 5_000
_OTHERS: Final = ("fleet_events", "node_samples")
Position = tuple[float, int]  # finished_at and row number of the last one seen


class Ended(NamedTuple):
    """One request as an audit needs it; `timestamp` (receipt) and `finished_at` in unix seconds."""

    request_id: str
    finished_at: float
    status: str
    model: str | None
    node_id: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    span_id: str
    timestamp: float
    endpoint: str


class Kept(NamedTuple):
    """From when on there are rows: receipt and number of the oldest, and the oldest moment that anything tells of."""

    oldest: float | None = None
    first_id: int | None = None
    began: float | None = None


def chunk(connection: sqlite3.Connection, after: Position, until: float) -> tuple[list[Ended], Position]:
    """The first requests that ended after a position and before `until`, in that order, and the new position."""
    at, number = after
    found = connection.execute(
        """SELECT request_id, finished_at, status, model, node_id, prompt_tokens, completion_tokens,
                  span_id, timestamp, endpoint, id
           FROM request_traces
           WHERE finished_at >= ? AND finished_at < ? AND (finished_at > ? OR id > ?)
           ORDER BY finished_at, id LIMIT ?""",
        (at, until, at, number, CHUNK),
    ).fetchall()
    reached = (found[-1]["finished_at"], found[-1]["id"]) if found else after
    return [Ended(*tuple(row)[:-1]) for row in found], reached


def kept(connection: sqlite3.Connection) -> Kept:
    """From when on the database tells of requests."""
    # One minimum to a query: only then does SQLite look at the ends of its indexes instead of at every row.
    oldest, first_id = (
        connection.execute(f"SELECT MIN({name}) FROM request_traces").fetchone()[0] for name in ("timestamp", "id")
    )
    others = (connection.execute(f"SELECT MIN(at) FROM {table}").fetchone()[0] for table in _OTHERS)
    return Kept(oldest, first_id, min((at for at in (oldest, *others) if at is not None), default=None))
