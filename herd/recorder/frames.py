"""What crosses the pipes between router and recorder: messages, each with its length before it.

Knows bytes and message kinds; what an event looks like, `packing` knows. Both ends are the same program, so `marshal`
is understood on both, and nobody else can write to the pipes.
"""

import marshal
from collections.abc import Iterator
from dataclasses import asdict, fields
from operator import attrgetter
from struct import Struct
from typing import Any, Final

from herd.core.value import value
from herd.store.writer import StoreStats
from herd.telemetry.counts import NO_LINES, NO_SPANS, LogStats, SpanStats

LENGTH: Final = Struct("<I")
MOST_ATOMIC: Final = 4096  # bytes that a pipe takes whole or not at all
MOST_COMMITS: Final = 200  # lengths of commits in one report
NO_ROWS: Final = StoreStats()
_STORE: Final = attrgetter(*(field.name for field in fields(StoreStats)))

# To the recorder; the first word of each message.
BEGIN, ITEMS, SET, HURRY, END = range(5)


@value
class Beginning:
    """What a recorder must know before anything else. `repeats` of the events that come first may be recorded already.

    `shape` is that of the events as their sender knows them; `spans`: whether any are to be exported.
    """

    shape: str
    database: str
    log_dir: str
    files_kept: int
    log_level: str
    retention_days: float
    limit_bytes: int
    spans: bool
    endpoint: str
    instance: str
    repeats: int


@value
class Report:
    """What a recorder tells of each record, the lengths of commits since, and how often it let go of the database."""

    log: LogStats = NO_LINES
    store: StoreStats = NO_ROWS
    spans: SpanStats = NO_SPANS
    commits: tuple[float, ...] = ()
    let_go: int = 0


def framed(message: Any) -> bytes:
    """A message as it goes into the pipe. ValueError where it is not made of plain values."""
    data = marshal.dumps(message)
    return LENGTH.pack(len(data)) + data


def report_out(report: Report) -> bytes:
    """A report as it goes into the pipe."""
    log, spans = report.log, report.spans
    return framed((
        (dict(log.lines), log.dropped, log.disposed),
        _STORE(report.store),
        (spans.exported, spans.dropped, spans.disposed),
        report.commits,
        report.let_go,
    ))  # fmt: skip


def report_in(message: Any) -> Report:
    """The report that a message is."""
    log, store, spans, commits, let_go = message
    return Report(LogStats(*log), StoreStats(*store), SpanStats(*spans), commits, let_go)


def beginning_out(beginning: Beginning) -> bytes:
    """The first frame of a connection."""
    return framed((BEGIN, asdict(beginning)))


class Splitter:
    """Finds the messages in what is read from a pipe, however it comes."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The messages that are whole now."""
        self._data += data
        start = 0
        with memoryview(self._data) as view:
            while len(view) - start >= LENGTH.size:
                end = start + LENGTH.size + LENGTH.unpack_from(view, start)[0]
                if end > len(view):
                    break
                yield marshal.loads(view[start + LENGTH.size : end])
                start = end
        del self._data[:start]
