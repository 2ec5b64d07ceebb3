"""The recorder's side of the pipe: reads events, hands them to log, store and spans, and tells how far those are.

It ends when the router closes the pipe, in order or by dying, after it has written what it got; and it ends within a
bound, whatever stands in the way.
"""

import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from herd import __version__
from herd.core.events import Finished, Managed
from herd.recorder.frames import (
    BEGIN,
    END,
    HURRY,
    ITEMS,
    MOST_ATOMIC,
    MOST_COMMITS,
    SET,
    Beginning,
    Report,
    Splitter,
    report_out,
)
from herd.recorder.outbox import LOG, SPANS, STORE
from herd.recorder.packing import NUMBERS, Unpacker, shape
from herd.store.writer import Writer
from herd.telemetry.counts import NO_SPANS
from herd.telemetry.log import LogSink
from herd.telemetry.log_lines import Line

if TYPE_CHECKING:
    from herd.telemetry.spans import SpanSink

logger = logging.getLogger(__name__)

# What unpacking can raise where a value is not of the type that its place is for.
UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
CHUNK: Final = 2**20
GATHER_S: Final = 0.01  # after a reading, so that the next one is worth while
LOOK_S: Final = 0.02  # how often it is looked how far the records are, while they are not done
HURRY_S: Final = 0.002
HURRIED_S: Final = 0.5
TELL_S: Final = 0.05
IDLE_S: Final = 1.0
ORPHAN_S: Final = 10.0  # what is written of a dead router's events is written by then
GARBAGE: Final = 10_000  # objects between two looks for circles, which events have none of
UNTOLD_COMMITS: Final = 10_000
UNBOUNDED: Final = sys.maxsize  # the router bounds what is on its way


class Records:
    """Log, store and spans of one router, as its beginning says."""

    def __init__(self, beginning: Beginning) -> None:
        self.let_go = 0
        self._commits: deque[float] = deque(maxlen=UNTOLD_COMMITS)
        self._given = dict.fromkeys((LOG, STORE, SPANS), 0)
        self.log = LogSink(Path(beginning.log_dir), beginning.files_kept, UNBOUNDED)
        self.log.expect_repeats(beginning.repeats)
        self.log.attach(beginning.log_level)
        self.store = Writer(
            Path(beginning.database),
            retention_days=beginning.retention_days,
            limit_bytes=beginning.limit_bytes,
            on_commit=self._commits.append,
            on_close=self._closed,
            capacity=UNBOUNDED,
        )
        self.store.start()
        self.spans: SpanSink | None = None
        if beginning.spans:
            made = import_module("herd.telemetry.spans").SpanSink(
                beginning.endpoint, __version__, UNBOUNDED, beginning.instance
            )
            self.spans = cast("SpanSink", made)

    def take(self, lanes: int, at: float, repeat: bool, item: Any) -> None:
        """Have an event or a line recorded where it is to be."""
        if lanes & LOG:
            self._given[LOG] += 1
            if isinstance(item, Line):
                self.log.take_line(item, repeat)
            else:
                self.log.take(item, at, repeat)
        if lanes & STORE:
            self._given[STORE] += 1
            self.store.take(item, at, repeat)
        if lanes & SPANS and self.spans is not None and isinstance(item, Finished | Managed):
            self._given[SPANS] += 1
            self.spans.take(item)

    def lose(self, lanes: int, request: bool) -> None:
        """Count an item that cannot be read as lost, in its place among the others of each lane that it was for."""
        if lanes & LOG:
            self._given[LOG] += 1
            self.log.lose()
        if lanes & STORE:
            self._given[STORE] += 1
            self.store.lose(request)
        if lanes & SPANS and self.spans is not None:
            self._given[SPANS] += 1
            self.spans.lose()

    def busy(self, report: Report) -> bool:
        """Whether anything that was taken was not done with when that was told."""
        done = {LOG: report.log.disposed, STORE: report.store.disposed, SPANS: report.spans.disposed}
        return done != self._given

    def report(self) -> Report:
        """How far everything is."""
        spans = self.spans.stats() if self.spans else NO_SPANS
        commits = tuple(self._commits[place] for place in range(min(len(self._commits), MOST_COMMITS)))
        return Report(self.log.stats(), self.store.stats(), spans, commits, self.let_go)

    def told(self, report: Report) -> None:
        """A report has gone out: the commits in it are not told again."""
        for _ in report.commits:
            self._commits.popleft()

    def close(self, timeout: float, meanwhile: Callable[[], None]) -> None:
        """Write what waits, side by side, so that a collector that hangs delays no row and no line."""
        closing: list[Callable[[float], object]] = [self.store.close]
        if self.spans is not None:
            closing.append(self.spans.close)
        threads = [threading.Thread(target=close, args=(timeout,), daemon=True) for close in closing]
        for thread in threads:
            thread.start()
        end = time.monotonic() + timeout
        for thread in threads:
            while thread.is_alive() and time.monotonic() < end:
                thread.join(LOOK_S)
                meanwhile()
        self.log.close(max(0.1, end - time.monotonic()))  # last: the others may have something to say
        meanwhile()

    def _closed(self) -> None:
        self.let_go += 1


class Process:
    """Reads from one pipe, tells on the other."""

    def __init__(self, inbound: int, outbound: int) -> None:
        self._in, self._out = inbound, outbound
        os.set_blocking(outbound, False)
        self._splitter = Splitter()
        self._unpacker = Unpacker()
        self._records: Records | None = None
        self._hurried_until = 0.0
        self._told: Report | None = None
        self._told_at = 0.0
        self._patience: float | None = None
        self._unreadable = False

    def run(self) -> int:
        """Record until the router has gone, or has said that it is enough."""
        poll = select.poll()
        poll.register(self._in, select.POLLIN)
        while self._patience is None:
            if poll.poll(self._rest() * 1000):
                self._read()
                if not self._hurried:
                    time.sleep(GATHER_S)
            self._tell(TELL_S)
        if self._records is not None:
            signal.setitimer(signal.ITIMER_REAL, self._patience + 5)  # nothing, not even a disk, keeps it for ever
            self._records.close(self._patience, lambda: self._tell(0.0))
        return 0

    @property
    def _hurried(self) -> bool:
        return time.monotonic() < self._hurried_until

    def _rest(self) -> float:
        """How long to wait for more, in seconds."""
        if self._records is None:
            return IDLE_S
        told = self._told
        opened = told is not None and (told.store.up or told.store.last_error is not None)
        if told is not None and opened and not self._records.busy(told):
            return IDLE_S
        return HURRY_S if self._hurried else LOOK_S

    def _read(self) -> None:
        data = os.read(self._in, CHUNK)
        if not data:
            self._patience = ORPHAN_S
            return
        for message in self._splitter.feed(data):
            self._obey(*message)

    def _obey(self, kind: int, *said: Any) -> None:
        if kind == BEGIN:
            self._begin(Beginning(**said[0]))
        elif kind == END:
            self._patience = said[0]
        elif self._records is None:
            return
        elif kind == ITEMS:
            self._take(self._records, *said)
        elif kind == SET:
            level, days, limit_bytes = said
            self._records.log.set_level(level)
            self._records.store.set_retention(days, limit_bytes)
        elif kind == HURRY:
            self._hurried_until = time.monotonic() + HURRIED_S
            self._records.store.hurry()

    def _begin(self, beginning: Beginning) -> None:
        if beginning.shape != shape():
            raise SystemExit("herd was replaced by another version while it ran: start the router again")
        self._records = Records(beginning)

    def _take(self, records: Records, forget: bool, new: list[Any], packed: list[Any]) -> None:
        try:
            self._unpacker.learn(forget, new)
        except UNREADABLE:  # the events that name it cannot be read either, and are counted
            self._cannot_read("What events share")
        for lanes, at, repeat, number, values in packed:
            try:
                item = self._unpacker.unpack(number, values)
            except UNREADABLE:  # left to itself it would come again to the next recorder, and the next
                self._cannot_read("An event")
                records.lose(lanes, request=number == NUMBERS[Finished])
            else:
                records.take(lanes, at, repeat, item)

    def _cannot_read(self, what: str) -> None:
        """Say it once: whatever is wrong is wrong with many."""
        if not self._unreadable:
            self._unreadable = True
            logger.exception("%s cannot be read as the router sent it: told once, and each event is counted", what)

    def _tell(self, every_s: float) -> None:
        """Tell how far everything is, if that is new, or if it was said long ago."""
        now = time.monotonic()
        if self._records is None or (now - self._told_at < every_s and not self._hurried):
            return
        report = self._records.report()
        if report == self._told and now - self._told_at < IDLE_S:
            return
        data = report_out(report)
        assert len(data) <= MOST_ATOMIC, "or a router that does not read would get half of it"
        with suppress(BrokenPipeError, BlockingIOError):  # a router that reads later gets a later one
            os.write(self._out, data)
            self._records.told(report)
            self._told, self._told_at = report, now


def main(arguments: list[str]) -> int:
    """Record what comes over the pipe whose descriptors are given."""
    # The router's signals are not for its recorder: it ends when the router has told it everything.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(GARBAGE)
    return Process(int(arguments[0]), int(arguments[1])).run()
