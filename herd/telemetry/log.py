"""The log: every event and every stdlib logger, as JSON lines in `herd.jsonl`, written by a thread of its own.

Whoever logs never waits and never sees an error; what could not be written is counted. What loggers of this process
warn of also goes to stderr, in words for people.
"""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

from herd.core.events import Event, NodeKnown, NodeSampled
from herd.core.value import value
from herd.telemetry.backlog import Backlog
from herd.telemetry.catalog import LEVELS
from herd.telemetry.counts import LogStats
from herd.telemetry.log_file import LogFile
from herd.telemetry.log_lines import Line, line_of
from herd.telemetry.log_tail import LogTail
from herd.telemetry.redact import redact

FILE_NAME = "herd.jsonl"
_json = json.JSONEncoder(default=repr, skipkeys=True).encode
# Libraries that would tell of every request or packet at INFO.
CHATTY = ("httpx", "httpcore", "urllib3", "aiohttp.access", "uvicorn.access", "zeroconf")
ALOUD_AT_INFO = ("herd", "uvicorn.error")
# What every record has, and what formatters and uvicorn leave on one; the line has the same in its `event`.
NOT_FIELDS = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"})
REPEAT_S = 10.0  # the same warning is not said aloud again within this time; the file has every one
MOST_REPEATS = 1000


def tells(event: Event) -> bool:
    """Whether events of this kind have a line."""
    return not isinstance(event, (NodeSampled, NodeKnown))


def configure_logging(log_dir: Path, level: str = "INFO", files_kept: int = 30) -> "LogSink":
    """Send all logging to `log_dir/herd.jsonl` until the sink is closed; `level` holds for loggers, not for events."""
    sink = LogSink(log_dir, files_kept)
    sink.attach(level)
    return sink


@value
class Given:
    """An event or a line that somebody else has answered for so far; `repeat`: its line may stand in the file.

    None in the place of one that was lost on its way here.
    """

    item: Event | Line | None
    at: float
    repeat: bool


class LogSink:
    """Writes events and log records; `stats` tells how many lines are in the file and how many were lost."""

    def __init__(self, log_dir: Path, files_kept: int = 30, capacity: int = 10_000) -> None:
        self.path = log_dir / FILE_NAME
        self._file = LogFile(self.path, files_kept)
        self._lines: Counter[str] = Counter()
        self._unwritten = 0
        self._untold = 0
        self._batch: list[tuple[str, bytes]] = []
        self._given = 0
        self._stats = LogStats(dict.fromkeys(LEVELS, 0))
        self._tail: LogTail | None = None
        self._aloud = Aloud()
        self._tap: RecordTap | None = None
        self._backlog: Backlog[Line | Given] = Backlog("herd-log", self._render, self._write, capacity=capacity)

    def take(self, event: Event, at: float | None = None, repeat: bool = False) -> None:
        """Write an event's line; `at` (unix s) is its time, if that is not now."""
        if tells(event):
            self._backlog.put(Given(event, time.time() if at is None else at, repeat))

    def take_line(self, line: Line, repeat: bool = False) -> None:
        """Write a line logged by another process, and print it if it is for people."""
        self._backlog.put(Given(line, line.at, repeat))

    def lose(self) -> None:
        """Count a line as lost, in order."""
        self._backlog.put(Given(None, 0.0, repeat=False))

    def expect_repeats(self, count: int) -> None:
        """Of what comes first, so many may have a line already: those are looked for in the file's end."""
        self._tail = LogTail(self.path, count) if count else None

    def attach(self, level: str) -> None:
        """Capture the records of all loggers of the process from `level` on."""
        # At the interpreter's end: the last lines of a crash are those that count.
        self._tap = RecordTap(self._backlog.put, lambda: self._backlog.flush(1.0))
        self._tap.attach(level)

    @staticmethod
    def set_level(level: str) -> None:
        """Change the level of captured records."""
        logging.getLogger().setLevel(level)
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.NOTSET if level == "DEBUG" else logging.WARNING)

    def stats(self) -> LogStats:
        """Lines written and lost so far."""
        return replace(self._stats, dropped=self._stats.dropped + self._backlog.dropped)

    def flush(self, timeout: float) -> bool:
        """Wait until all lines so far are in the file; False after `timeout` seconds."""
        return self._backlog.flush(timeout)

    def close(self, timeout: float) -> bool:
        """Release the loggers, write waiting lines, stop; False after `timeout` seconds."""
        if self._tap is not None:
            self._tap.detach()
            self._tap = None
        closed = self._backlog.close(timeout)
        if closed:
            self._file.close()
        return closed

    def _render(self, item: Line | Given) -> None:
        if isinstance(item, Line):
            self._batch.append((item.level, json_line(item)))
            self._aloud.say(item)
            return
        self._given += 1
        if item.item is None:
            self._unwritten += 1
            self._untold += 1
            return
        line = item.item if isinstance(item.item, Line) else line_of(item.item, item.at)
        if line is None:
            return
        text = json_line(line)
        if item.repeat and self._tail is not None and self._tail.has(text):
            self._lines[line.level] += 1
            return
        self._batch.append((line.level, text))
        if not isinstance(item.item, Line) and line.logger == "herd.fleet" and line.level == "WARNING":
            self._aloud.say(line)

    def _write(self) -> None:
        batch, self._batch = self._batch, []
        if self._untold:
            lost = Line(time.time(), "WARNING", __name__, "log_lines_dropped", {"count": self._untold})
            batch.insert(0, (lost.level, json_line(lost)))
        written = 0
        try:
            written = self._file.write(b"".join(line for _, line in batch)) if batch else 0
        except OSError as error:
            self._aloud.say(
                Line(time.time(), "ERROR", __name__, f"{self.path} cannot be written: {error}", {}, "write")
            )
        self._account(batch, written, told=bool(self._untold))
        self._stats = LogStats({level: self._lines[level] for level in LEVELS}, self._unwritten, self._given)

    def _account(self, batch: list[tuple[str, bytes]], written: int, told: bool) -> None:
        """Count written and lost lines; a note about earlier losses does not count."""
        self._lines.update(level for level, _ in batch[:written])
        lost = len(batch) - written - (1 if told and not written else 0)
        self._unwritten += lost
        self._untold = (0 if told and written else self._untold) + lost


class RecordTap(QueueHandler):
    """Hands stdlib log records on, made into lines in the caller: arguments may change later.

    `hand_over` must not wait; `at_the_end` is called when the interpreter ends.
    """

    def __init__(self, hand_over: Callable[[Line], object], at_the_end: Callable[[], object]) -> None:
        super().__init__(queue=None)  # type: ignore[arg-type]  # `enqueue` is all that uses it
        self._hand_over = hand_over
        self._at_the_end = at_the_end
        self._tracebacks = logging.Formatter()
        self._level_before = logging.WARNING

    def attach(self, level: str) -> None:
        """Capture the records of all loggers of the process from `level` on."""
        root = logging.getLogger()
        self._level_before = root.level
        root.addHandler(self)
        LogSink.set_level(level)

    def detach(self) -> None:
        """Restore the loggers."""
        logging.getLogger().removeHandler(self)
        logging.getLogger().setLevel(self._level_before)

    def prepare(self, record: logging.LogRecord) -> Line:
        """A record as a line."""
        fields = {name: value for name, value in vars(record).items() if name not in NOT_FIELDS}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = self._tracebacks.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        level = next((name for name in reversed(LEVELS) if record.levelno >= getattr(logging, name)), "DEBUG")
        return Line(record.created, level, record.name, record.getMessage(), fields, str(record.msg))

    def enqueue(self, record: Any) -> None:
        """Pass on a prepared line."""
        self._hand_over(record)

    def flush(self) -> None:
        """Called when the interpreter exits."""
        self._at_the_end()


class Aloud:
    """Prints lines to stderr: warnings, errors, startup and shutdown messages, without repetitions."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], float] = {}

    def say(self, line: Line) -> None:
        """Print a line, if it is for people and was not printed just before."""
        if line.level == "DEBUG" or (line.level == "INFO" and not line.logger.startswith(ALOUD_AT_INFO)):
            return
        key, now = (line.logger, line.template), time.monotonic()
        if now - self._said.get(key, -REPEAT_S) < REPEAT_S:
            return
        if len(self._said) >= MOST_REPEATS:
            self._said.clear()
        self._said[key] = now
        with suppress(OSError, ValueError):  # a closed terminal; the file has the line
            sys.stderr.write(for_people(line))
            sys.stderr.flush()


def for_people(line: Line) -> str:
    """One short line: local time, level, logger, message; only the last line of a traceback."""
    fields = redact(dict(line.fields))
    told = " ".join(str(fields[name]) for name in ("node_id", "model") if fields.get(name))
    cause = str(fields.get("exception", "")).rpartition("\n")[2]
    text = " ".join(part for part in (str(redact(line.event)), told, f"({cause})" if cause else "") if part)
    clock = datetime.fromtimestamp(line.at).strftime("%H:%M:%S")
    return f"{clock} {line.level:<7} {line.logger}: {text}\n".encode("ascii", "backslashreplace").decode("ascii")


def json_line(line: Line) -> bytes:
    """A line as it stands in the file: fixed keys first, ASCII, Python's own separators, so that grep finds levels."""
    at = datetime.fromtimestamp(line.at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    head = {"timestamp": at, "level": line.level, "logger": line.logger, "event": line.event}
    return f"{_json(redact({**head, **line.fields, **head}))}\n".encode("ascii")  # first, and as they are
