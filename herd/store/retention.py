"""What is kept: rows younger than so many days, in a file of at most so many bytes; the oldest go first.

Each call takes one small step, because the thread that deletes is the one that writes.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from herd.store.rollups import DAY_S, HOUR_S, Key

STEP_ROWS: Final = 250
STEP_PAGES: Final = 256
KEPT_LONGER_S: Final = 366 * DAY_S  # how much longer than the rows the daily rollups stay
FULL: Final = 0.95  # share of the limit from which the oldest rows go
HARD_LIMIT: Final = 1.05  # share of the limit at which SQLite itself refuses to grow the file
_ROLLUP: Final = ", ".join(Key._fields)

# Tables in the order in which they give way when the file is too large. Hourly rollups go when all their rows have;
# daily ones stay a year longer.
_OLDEST: Final = (
    f"""SELECT {_ROLLUP} FROM rollups INDEXED BY rollups_by_start WHERE span = {HOUR_S} AND start <= MIN(
            :before, COALESCE((SELECT MIN(timestamp) FROM request_traces), :before)
        ) - {HOUR_S} ORDER BY start LIMIT :rows""",
    "SELECT id FROM request_traces WHERE timestamp < :before ORDER BY timestamp LIMIT :rows",
    "SELECT id FROM fleet_events WHERE at < :before ORDER BY at LIMIT :rows",
    "SELECT node_id, at FROM node_samples WHERE at < :before ORDER BY at LIMIT :rows",
    """SELECT id FROM health_findings INDEXED BY findings_by_time
        WHERE last_seen < :before AND resolved_at IS NOT NULL ORDER BY last_seen LIMIT :rows""",
    f"""SELECT {_ROLLUP} FROM rollups INDEXED BY rollups_by_start
        WHERE span = {DAY_S} AND start <= :before - {KEPT_LONGER_S} ORDER BY start LIMIT :rows""",
)
_DELETE_ROLLUP: Final = f"DELETE FROM rollups WHERE ({_ROLLUP}) = (?, ?, ?, ?, ?, ?)"
_DELETE: Final = (
    (_DELETE_ROLLUP,),
    (
        "DELETE FROM request_attempts WHERE request_id = (SELECT request_id FROM request_traces WHERE id = ?)",
        "DELETE FROM request_traces WHERE id = ?",
    ),
    ("DELETE FROM fleet_events WHERE id = ?",),
    ("DELETE FROM node_samples WHERE node_id = ? AND at = ?",),
    ("DELETE FROM health_findings WHERE id = ?",),
    (_DELETE_ROLLUP,),
)


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days rows stay, and how many bytes the database may have."""

    days: float = 30
    limit_bytes: int = 10_000 * 2**20


def sweep(connection: sqlite3.Connection, retention: Retention, now: float, full: bool = False) -> bool:
    """Take one step at `now` (unix s); True where another may be needed. Raises sqlite3.Error.

    `full` says that a batch found no room: then a step's worth goes even where the limit is only near.
    """
    if _delete_before(connection, now - retention.days * DAY_S, every_table=True):
        return True
    size, used = sizes(connection)
    near = retention.limit_bytes * FULL
    if used > near or (full and size > near):
        return _delete_before(connection, float("inf"), every_table=False) and used > near
    if size > retention.limit_bytes and size > used:
        connection.execute(f"PRAGMA incremental_vacuum({STEP_PAGES})").fetchall()
        return sizes(connection)[0] < size
    return False


def sizes(connection: sqlite3.Connection) -> tuple[int, int]:
    """Bytes of the database, and how many of them hold something."""
    page_size, pages, free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    )
    return page_size * pages, page_size * (pages - free)


def limit_growth(connection: sqlite3.Connection, retention: Retention) -> None:
    """Have SQLite refuse, as on a full disk, what would take the file far over its limit before a sweep comes."""
    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {int(retention.limit_bytes * HARD_LIMIT / page_size)}")


def _delete_before(connection: sqlite3.Connection, before: float, every_table: bool) -> bool:
    """Delete a step's worth of rows older than `before`: of every table, or of the first that has any."""
    deleted = False
    connection.execute("BEGIN IMMEDIATE")
    try:
        for oldest, statements in zip(_OLDEST, _DELETE, strict=True):
            keys = connection.execute(oldest, {"before": before, "rows": STEP_ROWS}).fetchall()
            for statement in statements:
                connection.executemany(statement, keys)
            deleted = deleted or bool(keys)
            if deleted and not every_table:
                break
        # The number of the last row may be given again once that row is gone.
        connection.execute(
            """UPDATE rollup_state
               SET rolled_through = MIN(rolled_through, (SELECT COALESCE(MAX(id), 0) FROM request_traces))"""
        )
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.rollback()
        raise
    return deleted
