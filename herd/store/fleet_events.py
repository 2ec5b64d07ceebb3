"""What happened to the fleet and its router, as readers ask for it: the latest first, by kind, node and time."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from herd.store.rows import EVENT_COLUMNS
from herd.store.traces import document

# One for each request of a kind: they have lists of their own, and would bury the rest.
OF_REQUESTS: Final = ("fallback", "context_protection", "managed", "door_closed", "pull_progress")


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What an event must be, where not None; `since` (inclusive) and `until` (exclusive) in unix seconds.

    Without `kinds`, all are meant but those that come with single requests.
    """

    since: float | None = None
    until: float | None = None
    kinds: Sequence[str] | None = None
    node_id: str | None = None


def page(connection: sqlite3.Connection, which: EventFilter, limit: int) -> list[dict[str, Any]]:
    """The latest events that pass, the latest first."""
    among = which.kinds or OF_REQUESTS
    clauses = [f"kind {'' if which.kinds else 'NOT '}IN ({', '.join('?' * len(among))})"]
    values: list[str | float] = list(among)
    for clause, value in (("at >= ?", which.since), ("at < ?", which.until), ("node_id = ?", which.node_id)):
        if value is not None:
            clauses.append(clause)
            values.append(value)
    found = connection.execute(
        f"""SELECT {", ".join(EVENT_COLUMNS)} FROM fleet_events INDEXED BY events_by_time
            WHERE {" AND ".join(clauses)} ORDER BY at DESC, id DESC LIMIT ?""",
        (*values, limit),
    )
    return [document(row) for row in found]
