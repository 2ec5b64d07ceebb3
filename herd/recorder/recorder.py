"""The sink that keeps: takes events and log records without waiting, and has a process of its own write them.

To the rest of the router it is rows, log and spans in one; what the process tells of them is given out as if they were
here.
"""

import asyncio
import subprocess
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import get_ident
from typing import Final

from herd import __version__
from herd.core.events import Event
from herd.recorder.channel import Channel
from herd.recorder.frames import SET, Beginning, Report
from herd.recorder.link import Link
from herd.recorder.outbox import CAPACITY, LOG, SPANS, STORE, Outbox
from herd.recorder.packing import plain, shape
from herd.recorder.totals import Totals
from herd.store.writer import StoreStats
from herd.telemetry.backlog import Backlog
from herd.telemetry.counts import LogStats, SpanStats
from herd.telemetry.log import Aloud, LogSink, RecordTap
from herd.telemetry.log_lines import Line
from herd.telemetry.tracing import Tracing

SILENCE_S: Final = 5.0  # a recorder tells of itself every second
LAST_WORDS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """Where records are kept, and how much of them; what changes at run time is the level and the retention."""

    database: Path
    log_dir: Path
    log_level: str = "INFO"
    log_files: int = 30
    retention_days: float = 30
    limit_bytes: int = 10_000 * 2**20
    endpoint: str = ""


class Recorder:
    """`on_commit` gets each commit's seconds; `on_let_go` is called when the writer let go of the database's file."""

    def __init__(self, kept: Kept, start: Callable[[bytes], Channel] = Channel, capacity: int = CAPACITY) -> None:
        self._kept = kept
        self._instance = str(uuid.uuid4())
        self.on_commit: Callable[[float], None] = lambda _: None
        self.on_let_go: Callable[[], None] = lambda: None
        self._thread = get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._foreign: deque[Line] = deque()
        self._foreign_lost = 0
        self._totals = Totals()
        self._heard_at = time.monotonic()
        self._aloud: Backlog[Line] = Backlog("herd-aloud", Aloud().say)
        self._tap = RecordTap(self._logged, self._last_words)
        self._outbox = Outbox(spans=False, capacity=capacity)
        self._link = Link(self._outbox, self._beginning, self._heard, start)
        self._tap.attach(kept.log_level)
        self.tracing = Tracing(kept.endpoint, __version__, self._instance)
        self._outbox.trace(self.tracing.exports)
        self._link.launch()

    @property
    def pid(self) -> int | None:
        """The process that writes, if it lives."""
        return self._link.pid

    @property
    def left(self) -> subprocess.Popen[bytes] | None:
        """The process that was left to itself by `close`; it ends within a bound."""
        return self._link.left

    def take(self, event: Event) -> None:
        """Have an event recorded. For the event loop's thread alone, and at once."""
        if self._outbox.take(event, time.time()):
            self._link.wake()

    async def start(self, timeout: float) -> bool:
        """Use the running event loop, and wait until the database is open, or cannot be; False where it took longer."""
        self._thread, self._loop = get_ident(), asyncio.get_running_loop()
        self._take_foreign()
        self._link.attach()
        return await self._link.wait(lambda: self._totals.opened, timeout)

    async def settled(self, timeout: float) -> bool:
        """Wait until rows and lines of everything taken before are written; False after `timeout` seconds."""
        goal = self._outbox.goal(LOG, STORE)
        return await self._link.wait(lambda: self._outbox.reached(goal), timeout)

    async def close(self, timeout: float) -> bool:
        """Take no more log records, have everything written and sent; False where `timeout` seconds were not enough."""
        self._tap.detach()
        self._take_foreign()
        written, _, _ = await asyncio.gather(
            self._link.end(timeout),
            asyncio.to_thread(self.tracing.close, timeout),
            asyncio.to_thread(self._aloud.close, timeout),
        )
        return written

    def set_level(self, level: str) -> None:
        """Take what loggers say from this level on."""
        self._kept = replace(self._kept, log_level=level)
        LogSink.set_level(level)
        self._link.tell(SET, level, self._kept.retention_days, self._kept.limit_bytes)

    def set_retention(self, days: float, limit_bytes: int) -> None:
        """Keep rows so long, and the file so small, from now on."""
        self._kept = replace(self._kept, retention_days=days, limit_bytes=limit_bytes)
        self._link.tell(SET, self._kept.log_level, days, limit_bytes)

    def store_stats(self) -> StoreStats:
        """What the store tells of itself; it is down too where the recorder is silent."""
        stats, lost = self._totals.store, self._outbox.lost
        silent_s = time.monotonic() - self._heard_at
        silent = f"no word of the recorder for {silent_s:.0f} s" if silent_s >= SILENCE_S else None
        return replace(
            stats,
            dropped=stats.dropped + lost.rows,
            others_lost=stats.others_lost + lost.other_rows,
            waiting=self._outbox.waiting(STORE),
            up=stats.up and silent is None,
            last_error=silent or stats.last_error,
        )

    def log_stats(self) -> LogStats:
        """What the log tells of itself."""
        stats = self._totals.log
        return replace(stats, dropped=stats.dropped + self._outbox.lost.lines + self._foreign_lost)

    def span_stats(self) -> SpanStats:
        """What the spans tell of themselves, the control plane's included."""
        stats, own = self._totals.spans, self.tracing.stats()
        return SpanStats(stats.exported + own.exported, stats.dropped + own.dropped + self._outbox.lost.spans)

    def _beginning(self) -> Beginning:
        kept = self._kept
        return Beginning(
            shape=shape(),
            database=str(kept.database),
            log_dir=str(kept.log_dir),
            files_kept=kept.log_files,
            log_level=kept.log_level,
            retention_days=kept.retention_days,
            limit_bytes=kept.limit_bytes,
            spans=self.tracing.exports,
            endpoint=kept.endpoint,
            instance=self._instance,
            repeats=self._outbox.repeats,
        )

    def _heard(self, report: Report | None) -> None:
        if report is None:
            self._totals.begin_again()
            return
        self._heard_at = time.monotonic()
        let_go = self._totals.take(report)
        self._outbox.done({LOG: report.log.disposed, STORE: report.store.disposed, SPANS: report.spans.disposed})
        for seconds in report.commits:
            self.on_commit(seconds)
        if let_go:
            self.on_let_go()

    def _logged(self, line: Line) -> None:
        """Take a line from whichever thread logged it."""
        self._aloud.put(line)
        line = replace(line, fields=plain(line.fields))  # as it is now: what it names may change
        if get_ident() == self._thread:
            self._add(line)
        elif len(self._foreign) >= CAPACITY:
            self._foreign_lost += 1
        else:
            self._foreign.append(line)
            loop = self._loop
            if loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(self._take_foreign)

    def _take_foreign(self) -> None:
        while self._foreign:
            self._add(self._foreign.popleft())

    def _add(self, line: Line) -> None:
        if self._outbox.take(line, line.at):
            self._link.wake()

    def _last_words(self) -> None:
        self._take_foreign()
        self._link.last_words(LAST_WORDS_S)
        self._aloud.flush(LAST_WORDS_S)
