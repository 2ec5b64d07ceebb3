"""Do the records agree? Rows are compared with log lines request by request.

Pure: records go in, differences come out. It knows neither files nor SQL, and holds only what is still without its
counterpart, so that any number of records can be streamed through it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import merge
from typing import Final, Literal

Side = Literal["database", "log"]
MOST_TOKENS: Final = 2**53  # what the metrics count at most of one request
COMPARED: Final = ("status", "model", "node_id", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class Record:
    """What a row or a canonical log line says of one request; times in unix seconds.

    `span_id` joins the two: a caller may use one `request_id` twice, and then the later row's is longer.
    """

    span_id: str
    request_id: str
    received_at: float
    finished_at: float
    endpoint: str
    status: str
    model: str | None = None
    node_id: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(slots=True)
class Tally:
    """Requests and tokens, counted in all ways in which the records can be compared; `-` stands for none."""

    requests: int = 0
    status: Counter[str] = field(default_factory=Counter)
    model: Counter[str] = field(default_factory=Counter)
    node: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    series: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        """Count a record."""
        self.requests += 1
        self.status[record.status] += 1
        self.model[record.model or "-"] += 1
        self.node[record.node_id or "-"] += 1
        self.tokens["input"] += _counted(record.prompt_tokens)
        self.tokens["output"] += _counted(record.completion_tokens)
        self.series[record.endpoint, record.model or "-", record.status] += 1


@dataclass(frozen=True, slots=True)
class Difference:
    """One request about which row and line do not agree: one of them is missing, or they say different things."""

    request_id: str
    received_at: float
    finished_at: float
    status: str
    missing_from: Side | None = None
    says: Mapping[str, tuple[object, object]] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The difference in words."""
        if self.missing_from:
            there = "database" if self.missing_from == "log" else "log"
            return f"request {self.request_id} ({self.status}) is in the {there}, not in the {self.missing_from}"
        told = (f"{name} is {row!r} in the database, {line!r} in the log" for name, (row, line) in self.says.items())
        return f"request {self.request_id}: {'; '.join(told)}"


class Comparison:
    """Rows against log lines, in whatever order and in however many portions they come."""

    def __init__(self) -> None:
        self.rows = Tally()
        self.lines = Tally()
        self._lone_rows: dict[str, Record] = {}
        self._lone_lines: dict[str, Record] = {}
        self._unlike: list[Difference] = []

    def feed(self, rows: Iterable[Record], lines: Iterable[Record]) -> None:
        """Take rows and lines, side by side by their time, so that few wait long for their counterpart."""
        both = merge(
            ((row.finished_at, True, row) for row in rows),
            ((line.finished_at, False, line) for line in lines),
            key=lambda entry: entry[0],
        )
        for _, is_row, record in both:
            if is_row:
                self._take_row(record)
            else:
                self._take_line(record)

    def differences(self) -> list[Difference]:
        """Every request about which the two do not agree so far, the one that was received first at the head."""
        no_line = [_missing(record, "log") for record in self._lone_rows.values()]
        no_row = [_missing(record, "database") for record in self._lone_lines.values()]
        return sorted([*self._unlike, *no_line, *no_row], key=lambda found: (found.received_at, found.request_id))

    def _take_row(self, row: Record) -> None:
        self.rows.add(row)
        if line := self._lone_lines.pop(row.span_id, None):
            self._join(row, line)
        else:
            self._lone_rows[row.span_id] = row

    def _take_line(self, line: Record) -> None:
        self.lines.add(line)
        if row := self._lone_rows.pop(line.span_id, None):
            self._join(row, line)
        elif line.span_id in self._lone_lines:  # written twice: once without a row of its own
            self._unlike.append(_missing(line, "database"))
        else:
            self._lone_lines[line.span_id] = line

    def _join(self, row: Record, line: Record) -> None:
        pairs = {name: (getattr(row, name), getattr(line, name)) for name in COMPARED}
        says = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if says:
            self._unlike.append(Difference(row.request_id, row.received_at, row.finished_at, row.status, says=says))


def _missing(record: Record, side: Side) -> Difference:
    return Difference(record.request_id, record.received_at, record.finished_at, record.status, missing_from=side)


def _counted(tokens: int | None) -> int:
    return min(max(tokens or 0, 0), MOST_TOKENS)
