"""The counts of all recorders that there were, as one: each begins at zero, and a router's counters never fall."""

from collections import Counter
from dataclasses import replace

from herd.recorder.frames import Report
from herd.store.writer import StoreStats
from herd.telemetry.counts import LogStats, SpanStats


class Totals:
    """`opened`: whether a recorder said that the database is open, or why it is not."""

    def __init__(self) -> None:
        self.opened = False
        self._before = Report()
        self._now = Report()

    def take(self, report: Report) -> bool:
        """Take what the recorder told last; True where it let go of the database's file since."""
        let_go = report.let_go > self._now.let_go
        self._now = report
        self.opened = self.opened or report.store.up or report.store.last_error is not None
        return let_go

    def begin_again(self) -> None:
        """The recorder is gone; what it told last is true for ever."""
        self._before = Report(self.log, self.store, self.spans)
        store = self._now.store
        self._now = Report(store=StoreStats(bytes=store.bytes, up=store.up, last_error=store.last_error))

    @property
    def log(self) -> LogStats:
        """Of the log."""
        before, now = self._before.log, self._now.log
        return LogStats(Counter(before.lines) + Counter(now.lines), before.dropped + now.dropped)

    @property
    def store(self) -> StoreStats:
        """Of the store; what is not counted is as the last recorder told it."""
        before, now = self._before.store, self._now.store
        return replace(
            now,
            written=before.written + now.written,
            dropped=before.dropped + now.dropped,
            failed=before.failed + now.failed,
            others_lost=before.others_lost + now.others_lost,
            commits=before.commits + now.commits,
            commit_seconds_sum=before.commit_seconds_sum + now.commit_seconds_sum,
        )

    @property
    def spans(self) -> SpanStats:
        """Of the spans."""
        before, now = self._before.spans, self._now.spans
        return SpanStats(before.exported + now.exported, before.dropped + now.dropped)
