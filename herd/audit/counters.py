"""Do the metrics agree with the rows? A scrape's counters are compared with what was counted from rows.

Pure. Counters began with the router and are read while requests end, so they are compared with two tallies: of rows
that had ended before the scrape began, and of rows that had ended when it was there. At rest the two are one.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from herd.audit.comparison import Record, Tally

SAMPLE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ESCAPED: Final = re.compile(r"\\(.)")
TOKEN_TYPES: Final = ("input", "output")
UNKNOWN: Final = "_unknown"
EMIT_S: Final = 0.05  # a request that ended this shortly before a scrape may not be counted in it yet
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the audit reads of /metrics. `lost` is what the router says itself that it could not record, by kind."""

    started_at: float
    finished: Counter[str]
    tokens: Counter[str]
    series: Counter[tuple[str, str, str]]
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gap:
    """A count on which rows and metrics differ; the rows' own uncertainty is from `least` to `most`."""

    what: str
    least: int
    most: int
    metric: int

    @property
    def sentence(self) -> str:
        """The difference in words."""
        rows = str(self.least) if self.least == self.most else f"{self.least} to {self.most}"
        return f"{self.what}: {rows} in the database, {self.metric} in the metrics"


def read_scrape(text: str) -> Scrape:
    """The counters of an exposition in Prometheus' text format; ValueError where it is not one of a herd router."""
    found: dict[str, list[tuple[Labels, float]]] = {}
    for name, labels, value in _samples(text):
        found.setdefault(name, []).append((labels, value))
    started = found.get("herd_start_time_seconds")
    if not started:
        raise ValueError("there is no herd_start_time_seconds")

    def counted(name: str, label: str) -> Counter[str]:
        return Counter({labels[label]: int(value) for labels, value in found.get(name, ())})

    series: Counter[tuple[str, str, str]] = Counter()
    for labels, value in found.get("herd_requests_total", ()):
        series[labels["endpoint"], labels["model"], labels["status"]] += int(value)
    rows = counted("herd_trace_rows_total", "outcome")
    lines = sum(int(value) for _, value in found.get("herd_log_dropped_total", ()))
    return Scrape(
        started[0][1],
        counted("herd_requests_finished_total", "status"),
        counted("herd_tokens_finished_total", "type"),
        series,
        {"rows": rows["dropped"] + rows["failed"], "log lines": lines},
    )


@dataclass(slots=True)
class CounterComparison:
    """A scrape, under way from `began` to `ended`, and the rows of requests that ended since its counters began.

    `least` has those that are surely in the scrape, `most` those that may be.
    """

    scrape: Scrape
    began: float
    ended: float
    least: Tally = field(default_factory=Tally)
    most: Tally = field(default_factory=Tally)

    def take_row(self, row: Record) -> None:
        """Count a row."""
        if self.scrape.started_at <= row.finished_at < self.ended:
            self.most.add(row)
            if row.finished_at < self.began - EMIT_S:
                self.least.add(row)

    def gaps(self) -> list[Gap]:
        """Where metrics and rows differ; series by model are looked at where the sums agree.

        A model's series leave with it, and a model that the fleet does not know counts as `_unknown`. So a series by
        model may say less than the rows, never more.
        """
        return list(self._totals()) or list(self._by_series())

    def _totals(self) -> Iterator[Gap]:
        least, most, scrape = self.least, self.most, self.scrape
        for status in sorted({*scrape.finished, *most.status}):
            yield from _gap(f"{status} requests", least.status[status], most.status[status], scrape.finished[status])
        for kind in TOKEN_TYPES:
            yield from _gap(f"{kind} tokens", least.tokens[kind], most.tokens[kind], scrape.tokens[kind])

    def _by_series(self) -> Iterator[Gap]:
        for (endpoint, model, status), value in sorted(self.scrape.series.items()):
            here = self.most.status[status] if model == UNKNOWN else self.most.series[endpoint, model, status]
            if value > here:
                yield Gap(f"{status} {endpoint} requests of {model}", here, here, value)


def _gap(what: str, least: int, most: int, metric: int) -> Iterator[Gap]:
    if not least <= metric <= most:
        yield Gap(what, least, most, metric)


def _samples(text: str) -> Iterator[tuple[str, Labels, float]]:
    for line in text.splitlines():
        if match := SAMPLE.fullmatch(line.strip()):
            labels = {name: _unescaped(value) for name, value in LABEL.findall(match[2] or "")}
            yield match[1], labels, float(match[3])


def _unescaped(value: str) -> str:
    return ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], value)
