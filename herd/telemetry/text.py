"""The exposition's text, in Prometheus' format and in OpenMetrics': what stands in a line, and in which order.

The client library writes the same, by way of an object and a dictionary for each line, for ten times the price; tests
compare the two byte for byte. It knows no metric and no series.
"""

from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

from prometheus_client.utils import floatToGoString

from herd.telemetry.catalog.shapes import Metric

Exemplar = tuple[str, float, float]
NO_EXEMPLARS: Final[dict[int, Exemplar]] = {}
LE: Final = "le"
SUFFIXES: Final = {"counter": "_total", "info": "_info"}  # belong to the line and not to the metric, in OpenMetrics
END: Final = "# EOF\n"  # of OpenMetrics


class Writing:
    """Writes the lines of one metric; `openmetrics`: in that format."""

    def __init__(self, metric: Metric, openmetrics: bool) -> None:
        self._metric = metric
        self._openmetrics = openmetrics
        labels = [label.name for label in metric.labels]
        self._order = sorted((name, place) for place, name in enumerate(labels))
        self._bounds = [number(bound) for bound in (*metric.buckets, inf)]
        self._sums = not metric.buckets or metric.buckets[0] >= 0  # a sum that falls is no counter's

    def head(self) -> str:
        """What the metric is, in two lines."""
        name, kind, told = self._metric.name, self._metric.kind, self._metric.help
        told = told.replace("\\", r"\\").replace("\n", r"\n")
        if self._openmetrics:
            told = told.replace('"', r"\"")
            name = name.removesuffix(SUFFIXES.get(kind, ""))
        elif kind == "info":
            kind = "gauge"
        return f"# HELP {name} {told}\n# TYPE {name} {kind}\n"

    def amount(self, values: Sequence[str | None], amount: float) -> str:
        """The line of a counter, a gauge or an info."""
        return f"{self._metric.name}{_braced(self._labels(values))} {number(amount)}\n"

    def distribution(
        self, values: Sequence[str | None], counts: Iterable[int], total: float, exemplars: dict[int, Exemplar]
    ) -> str:
        """The lines of a histogram's series; `exemplars` are by bucket."""
        name, labels, running = self._metric.name, self._labels(values), 0
        before = "".join(f"{label}," for label in labels if label < LE)
        after = "".join(f",{label}" for label in labels if label >= LE)
        if not self._openmetrics:
            exemplars = NO_EXEMPLARS
        lines = []
        for place, (bound, count) in enumerate(zip(self._bounds, counts, strict=True)):
            running += count
            shown = f" # {_exemplar(*exemplars[place])}" if place in exemplars else ""
            lines.append(f'{name}_bucket{{{before}le="{bound}"{after}}} {number(running)}{shown}\n')
        if self._sums:
            there = _braced(labels)
            lines.append(f"{name}_count{there} {number(running)}\n{name}_sum{there} {number(total)}\n")
        return "".join(lines)

    def _labels(self, values: Sequence[str | None]) -> list[str]:
        return [f'{name}="{_escaped(values[place] or "")}"' for name, place in self._order]


def number(value: float) -> str:
    """A number as Go writes it: it takes exponents sooner than Python."""
    if 0 <= value < 1_000_000:  # most, and alike in both
        return repr(float(value))
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def _braced(labels: list[str]) -> str:
    return f"{{{','.join(labels)}}}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _exemplar(trace_id: str, value: float, at: float) -> str:
    return f'{{trace_id="{_escaped(trace_id)}"}} {number(value)} {at}'
