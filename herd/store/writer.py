"""The sink that keeps: takes events without waiting, and writes them from a thread of its own, many to a commit.

Whatever is wrong with the disk or the file, requests go on: events wait in a bounded queue, what does not fit is
counted, and writing begins again by itself when it can.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from herd.core.events import Event, Finished
from herd.core.value import value
from herd.store.file import StoreFile
from herd.store.retention import Retention
from herd.store.rows import STORED, Rows, Stored, rows_of
from herd.store.schema import StoreRefused

logger = logging.getLogger(__name__)

CAPACITY: Final = 10_000
BATCH: Final = 500
COMMIT_EVERY_S: Final = 0.05
LOOK_EVERY_S: Final = 1.0  # how often an idle writer looks whether its file is still there
SWEEP_EVERY_S: Final = 60.0
ROLL_EVERY_S: Final = 60.0
ROLL_ROWS: Final = 2_000  # rows that make a roll-up worth while before its time
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0

# What stands in the way of any row, so that waiting helps, and what is wrong with one row, so that it does not.
OBSTACLES: Final = (sqlite3.Error, OSError, StoreRefused)
UNSTORABLE: Final = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
DEFECTS: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@value
class StoreStats:
    """Requests by outcome, the commits' lengths, and whether the store can write at this moment.

    `written`, `dropped` (no room in the queue) and `failed` (given up) count requests; `others_lost` the other events
    that were dropped or given up. `waiting` events are in the queue, `bytes` on disk with the log. `disposed` events,
    in the order in which they were taken, are written or given up.
    """

    written: int = 0
    dropped: int = 0
    failed: int = 0
    others_lost: int = 0
    waiting: int = 0
    commits: int = 0
    commit_seconds_sum: float = 0.0
    bytes: int = 0
    up: bool = False
    last_error: str | None = None
    disposed: int = 0


@value
class Lost:
    """Stands in the queue for an event that was lost on its way here, a request or not."""

    request: bool


class Writer:
    """The store's side of `emit`; what it calls, it calls on a thread of its own.

    `on_commit` gets each commit's seconds; `on_close` is called whenever it lets go of the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        retention_days: float = 30,
        limit_bytes: int = Retention().limit_bytes,
        on_commit: Callable[[float], None] | None = None,
        on_close: Callable[[], None] = lambda: None,
        capacity: int = CAPACITY,
    ) -> None:
        self._keep = Retention(retention_days, limit_bytes)
        self._file = StoreFile(path, self._keep, on_close)
        self._on_commit = on_commit
        self._capacity = capacity
        self._queue: deque[tuple[float, Stored | Lost, bool]] = deque()
        self._batch: list[Rows] = []
        self._stats = StoreStats()
        self._lock = threading.Lock()
        self._arrived, self._hurry, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._sweep_at = 0.0
        self._roll_at, self._unrolled = 0.0, 0
        self._thread = threading.Thread(target=self._run, name="herd-store", daemon=True)

    def start(self) -> None:
        """Start the thread; it makes the database where there is none."""
        self._thread.start()

    def take(self, event: Event, at: float | None = None, repeat: bool = False) -> None:
        """Queue an event that leaves rows; returns at once, and counts what there is no room for.

        `at` (unix s) is when it came, where that is not now; `repeat`: its rows may be there already.
        """
        if not isinstance(event, STORED):
            return
        if len(self._queue) + len(self._batch) >= self._capacity or self._closing.is_set():
            self._lose(isinstance(event, Finished), "dropped")
            return
        self._put(event, time.time() if at is None else at, repeat)

    def lose(self, request: bool) -> None:
        """Count an event as given up, in its place among the others."""
        self._put(Lost(request), 0.0, repeat=False)

    def set_retention(self, days: float, limit_bytes: int) -> None:
        """Keep rows so long, and the file so small, from now on."""
        self._keep = Retention(days, limit_bytes)
        self._sweep_at = 0.0
        self._hurry.set()
        self._arrived.set()

    def hurry(self) -> None:
        """Write what waits now, without waiting for company."""
        self._hurry.set()
        self._arrived.set()

    def close(self, timeout: float) -> bool:
        """Take nothing more, write what waits, let go of the file; False where `timeout` seconds were not enough."""
        self._closing.set()
        self._hurry.set()
        self._arrived.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def stats(self) -> StoreStats:
        """The counters as of now."""
        stats = self._stats
        return replace(stats, waiting=len(self._queue) + len(self._batch), up=stats.up and self._thread.is_alive())

    def _put(self, event: Stored | Lost, at: float, repeat: bool) -> None:
        self._queue.append((at, event, repeat))
        if not self._arrived.is_set():
            self._arrived.set()

    # From here on: the writer's thread.

    def _run(self) -> None:
        pause = 0.0
        ending = False
        while not ending:
            self._rest(pause)
            ending = self._closing.is_set()
            written = self._work()
            if ending and written:
                ending = not self._queue
            pause = 0.0 if written else min(max(FIRST_PAUSE_S, pause * 2), LONGEST_PAUSE_S)
        self._give_up()
        self._file.close()

    def _rest(self, pause: float) -> None:
        """Wait: after a failure for its pause, else for the first event and then for company to share its commit."""
        if pause:
            self._closing.wait(pause)
        elif len(self._queue) < BATCH:
            if not self._queue and time.monotonic() < min(self._sweep_at, self._roll_at):
                self._arrived.wait(LOOK_EVERY_S)
            self._hurry.wait(COMMIT_EVERY_S)
        self._arrived.clear()
        self._hurry.clear()

    def _work(self) -> bool:
        """Write a batch, then tidy up; False where something stood in the way, with the batch kept for the next try."""
        try:
            self._file.ready()
            self._tidy()  # before the batch: where the file is at its limit, only a sweep makes room
            self._fill_batch()
            self._write_batch()
        except OBSTACLES as error:
            self._blocked(error)
            return False
        self._unblocked()
        self._roll_up()
        return True

    def _fill_batch(self) -> None:
        while self._queue and len(self._batch) < BATCH:
            at, event, repeat = self._queue[0]
            rows = self._rows_of(event, at)
            self._batch.append(rows._replace(repeat=repeat) if repeat else rows)
            self._queue.popleft()  # only now: who asks whether anything waits must not find it in neither

    def _rows_of(self, event: Stored | Lost, at: float) -> Rows:
        """The rows of an event; none of one that has none, which is disposed of when those before it are."""
        if isinstance(event, Lost):
            self._lose(event.request, "failed")
            return Rows()
        try:
            return rows_of(event, at)
        except DEFECTS:
            logger.exception("A %s cannot be made into rows", type(event).__name__)
            self._lose(isinstance(event, Finished), "failed")
            return Rows()

    def _write_batch(self) -> None:
        if not self._batch:
            return
        try:
            self._committed(self._batch, self._file.write(self._batch))
            self._batch = []
        except UNSTORABLE:
            self._write_one_by_one()

    def _write_one_by_one(self) -> None:
        """One row of the batch is wrong, and the others must not suffer for it."""
        while self._batch:
            try:
                self._committed(self._batch[:1], self._file.write(self._batch[:1]))
            except UNSTORABLE:
                logger.exception("The database refused a row")
                self._lose(self._batch[0].trace is not None, "failed", disposed=1)
            del self._batch[0]

    def _committed(self, batch: list[Rows], seconds: float) -> None:
        self._unrolled += len(batch)
        with self._lock:
            stats = self._stats
            self._stats = replace(
                stats,
                written=stats.written + sum(rows.trace is not None for rows in batch),
                commits=stats.commits + 1,
                commit_seconds_sum=stats.commit_seconds_sum + seconds,
                disposed=stats.disposed + len(batch),
            )
        if self._on_commit:
            self._on_commit(seconds)

    def _tidy(self) -> None:
        if self._keep is not self._file.keep:
            self._file.set_retention(self._keep)
        if time.monotonic() >= self._sweep_at and not self._file.sweep():
            self._sweep_at = time.monotonic() + SWEEP_EVERY_S
        self._file.trim_wal()

    def _roll_up(self) -> None:
        """Take a step of the rollups when it is time. Rows come first: what fails here waits, and readers read rows."""
        due = time.monotonic() >= self._roll_at or self._unrolled >= ROLL_ROWS
        if not due or self._closing.is_set():
            return
        more = False
        try:
            more = self._file.roll_up()
        except (*OBSTACLES, *DEFECTS):
            logger.exception("The rollups wait")
        self._unrolled = 0
        self._roll_at = 0.0 if more else time.monotonic() + ROLL_EVERY_S

    def _blocked(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != self._stats.last_error:
            logger.warning("Trace store cannot write, requests go on without it: %s", text)
        # A fresh connection next time; and a sweep, for the limit itself may be what stands in the way.
        self._file.close()
        self._sweep_at = 0.0
        with self._lock:
            self._stats = replace(self._stats, up=False, last_error=text, bytes=self._file.bytes())

    def _unblocked(self) -> None:
        if self._stats.last_error:
            logger.warning("Trace store writes again")
        with self._lock:
            self._stats = replace(self._stats, up=True, last_error=None, bytes=self._file.bytes())

    def _give_up(self) -> None:
        """Count what could not be written before the end."""
        for rows in self._batch:
            self._lose(rows.trace is not None, "failed", disposed=1)
        self._batch = []
        while self._queue:
            _, event, _ = self._queue.popleft()
            self._lose(event.request if isinstance(event, Lost) else isinstance(event, Finished), "failed", disposed=1)
        with self._lock:
            self._stats = replace(self._stats, up=False)

    def _lose(self, request: bool, outcome: Literal["dropped", "failed"], disposed: int = 0) -> None:
        name = outcome if request else "others_lost"
        with self._lock:
            stats = self._stats
            more: dict[str, Any] = {name: getattr(stats, name) + 1, "disposed": stats.disposed + disposed}
            self._stats = replace(stats, **more)
