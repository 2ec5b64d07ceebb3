"""The database file while it is open for writing: transactions, its log's size, and whether it is still the same file.

Knows SQL and the file system; not where the rows come from or what to do when they cannot be written.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from herd.store import retention, rollups, schema
from herd.store.retention import Retention
from herd.store.rows import (
    ATTEMPT_COLUMNS,
    EVENT_COLUMNS,
    FINDING_COLUMNS,
    NODE_COLUMNS,
    SAMPLE_COLUMNS,
    TRACE_COLUMNS,
    Rows,
    Value,
)

WAL_LIMIT: Final = 16 * 2**20
CHECKPOINT_EVERY_S: Final = 1.0  # a reader can hold the log; asking again at once would only wait for it again
CHECKPOINT_BUSY_MS: Final = 50


def _insert(table: str, columns: Sequence[str], conflict: str = "") -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}){conflict}"


_TRACE: Final = _insert("request_traces", (*TRACE_COLUMNS, "decision"), " ON CONFLICT (request_id) DO NOTHING")
_SAME: Final = "SELECT 1 FROM request_traces WHERE request_id = ? AND span_id = ?"
_ATTEMPT: Final = _insert("request_attempts", ATTEMPT_COLUMNS, " ON CONFLICT DO NOTHING")
_SAMPLE: Final = _insert("node_samples", SAMPLE_COLUMNS, " ON CONFLICT DO NOTHING")
_EVENT: Final = _insert("fleet_events", EVENT_COLUMNS)
_EVENT_ONCE: Final = f"""INSERT INTO fleet_events ({", ".join(EVENT_COLUMNS)})
    SELECT {", ".join(f":{name}" for name in EVENT_COLUMNS)} WHERE NOT EXISTS (
        SELECT 1 FROM fleet_events INDEXED BY events_by_time WHERE at = :at
        AND {" AND ".join(f"{name} IS :{name}" for name in EVENT_COLUMNS[1:])}
    )"""
_FINDING: Final = _insert("health_findings", FINDING_COLUMNS).replace("INSERT", "INSERT OR REPLACE", 1)
_NODE: Final = _insert("nodes", NODE_COLUMNS).replace("INSERT", "INSERT OR REPLACE", 1)
_FORGET: Final = "DELETE FROM nodes WHERE node_id = ?"
_SPAN_ID: Final = TRACE_COLUMNS.index("span_id")
assert TRACE_COLUMNS[0] == ATTEMPT_COLUMNS[0] == "request_id"


class StoreFile:
    """One database file; opened on first use, and again where it was deleted or replaced. For one thread only.

    `on_close` is called when it lets go of the file, so that others of this process do as well.
    """

    def __init__(self, path: Path, keep: Retention, on_close: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.keep = keep
        self._on_close = on_close
        self._wal = path.with_name(f"{path.name}-wal")
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._checkpoint_at = 0.0
        self._full = False  # whether the last batch met the end of the room there is

    def ready(self) -> sqlite3.Connection:
        """The connection. Raises OSError, sqlite3.Error or StoreRefused where there can be none."""
        if self._connection is not None and self._identity != identity(self.path):
            self._leave_moved(self._connection)
        if self._connection is None:
            self._connection = schema.open_for_writing(self.path)
            retention.limit_growth(self._connection, self.keep)
            self._identity = identity(self.path)
        schema.refuse_newer(self._connection)  # a newer herd may have migrated it while this one ran
        return self._connection

    def write(self, batch: Sequence[Rows]) -> float:
        """Commit a batch as one transaction; returns seconds. Raises as `ready` does, with nothing of it written."""
        connection = self.ready()
        begun = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        try:
            schema.refuse_newer(connection)  # again, now that nobody else can change it
            for rows in batch:
                _write(connection, rows)
            connection.execute("COMMIT")
        except (sqlite3.Error, schema.StoreRefused) as error:
            connection.rollback()
            self._full = _is_full(error)
            raise
        self._full = False
        return time.perf_counter() - begun

    def set_retention(self, keep: Retention) -> None:
        """Keep so much from now on."""
        self.keep = keep
        if self._connection is not None:
            retention.limit_growth(self._connection, keep)

    def sweep(self) -> bool:
        """Take one step of retention; True where another may be needed."""
        return retention.sweep(self.ready(), self.keep, time.time(), self._full)

    def roll_up(self) -> bool:
        """Bring the next rows into the rollups; True where there are more. Raises as `ready` does."""
        try:
            return rollups.step(self.ready())
        except sqlite3.Error as error:
            self._full = _is_full(error)
            raise

    def trim_wal(self) -> None:
        """Bring a large write-ahead log into the database; at most once a second, and without patience."""
        if _size(self._wal) <= WAL_LIMIT or time.monotonic() < self._checkpoint_at:
            return
        self._checkpoint_at = time.monotonic() + CHECKPOINT_EVERY_S
        connection = self.ready()
        connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_BUSY_MS}")
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {schema.BUSY_MS}")

    def bytes(self) -> int:
        """Bytes on disk, the log included."""
        return _size(self.path) + _size(self._wal)

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._on_close()

    def _leave_moved(self, connection: sqlite3.Connection) -> None:
        # The log belongs to the file that was moved away. Left as it is beside another file, SQLite would take its
        # pages for that one's. Its index is still mapped by whoever reads the old file: sharing it with the new one
        # would lose SQLite's locks on it, and the next process to open it would cut it off under our feet (SIGBUS).
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.close()
        if identity(self.path) is None or not _size(self._wal):
            with suppress(OSError):
                self.path.with_name(f"{self.path.name}-shm").unlink()


def _write(connection: sqlite3.Connection, rows: Rows) -> None:
    if rows.trace is not None:
        request_id = _write_trace(connection, rows.trace)
        attempts = ((request_id, *attempt[1:]) for attempt in rows.attempts)
        connection.executemany(_ATTEMPT, attempts)
    if rows.samples:
        connection.executemany(_SAMPLE, rows.samples)
    if rows.events and rows.repeat:
        connection.executemany(_EVENT_ONCE, [dict(zip(EVENT_COLUMNS, event, strict=True)) for event in rows.events])
    elif rows.events:
        connection.executemany(_EVENT, rows.events)
    if rows.findings:
        connection.executemany(_FINDING, rows.findings)
    if rows.nodes:
        connection.executemany(_NODE, rows.nodes)
    if rows.forgotten:
        connection.executemany(_FORGET, rows.forgotten)


def _write_trace(connection: sqlite3.Connection, trace: tuple[Value, ...]) -> Value:
    """Insert a row; returns its request_id.

    A caller may send the same X-Request-Id twice: the later request keeps its row, under an id made longer by its span.
    The same span is the same request, come a second time.
    """
    request_id, span_id = trace[0], trace[_SPAN_ID]
    if connection.execute(_TRACE, trace).rowcount:
        return request_id
    if connection.execute(_SAME, (request_id, span_id)).fetchone() is None:
        request_id = f"{request_id}.{span_id}"
        connection.execute(_TRACE, (request_id, *trace[1:]))
    return request_id


def _is_full(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def identity(path: Path) -> tuple[int, int] | None:
    """Which file a path leads to: another one after it was replaced, None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
