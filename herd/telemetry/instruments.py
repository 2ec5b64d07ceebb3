"""Prometheus counters and histograms made from the catalog, their children kept for the hot path.

It knows which series exist and how many lines they take, not what any of them means.
"""

from collections.abc import Mapping
from itertools import product
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from herd.telemetry.catalog import BY_NAME, EAGER_LINES, UNKNOWN, Metric

C = TypeVar("C", Counter, Histogram)
MODEL_LABELS = frozenset({"model", "from_model", "to_model"})


class Family(Generic[C]):
    """One metric and its series; looking a kept series up costs a third of the client's own `labels()`."""

    def __init__(self, metric: Metric, parent: C) -> None:
        self.metric = metric
        self.open = frozenset(label.name for label in metric.labels if label.values is None)
        self._parent: C = parent
        self._series: dict[tuple[str, ...], C] = {} if metric.labels else {(): parent}

    @property
    def size(self) -> int:
        """How many series there are."""
        return len(self._series)

    def of(self, *values: str) -> C:
        """The series with these label values, in the catalog's order; made at zero if new."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = self._parent.labels(*values)
        return series

    def has(self, values: tuple[str, ...]) -> bool:
        """Whether the series exists."""
        return values in self._series

    def forget(self, position: int, value: str) -> None:
        """Remove every series with this value of one label."""
        for values in [values for values in self._series if values[position] == value]:
            self._parent.remove(*values)
            del self._series[values]


class Instruments:
    """All families of one registry; makes series before their first use, and removes them with their node or model."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        self._families: list[Family[Counter] | Family[Histogram]] = []

    def counter(self, name: str) -> Family[Counter]:
        """The counter of the catalog with this name."""
        metric = BY_NAME[name]
        family = Family(metric, Counter(name, metric.help, _names(metric), registry=self.registry))
        self._families.append(family)
        return family

    def histogram(self, name: str) -> Family[Histogram]:
        """The histogram of the catalog with this name."""
        metric = BY_NAME[name]
        parent = Histogram(name, metric.help, _names(metric), registry=self.registry, buckets=metric.buckets)
        family = Family(metric, parent)
        self._families.append(family)
        return family

    @property
    def lines(self) -> int:
        """Lines that all series take in an exposition."""
        return sum(family.size * family.metric.lines for family in self._families)

    def prepare(self, names: Mapping[str, str]) -> bool:
        """Make the series of these open labels at zero; False where not all of them found room.

        A counter that first appears at 1 has lost its first increase: Prometheus sees no step from 0 to 1. Histograms,
        which lose less and take more, leave a fifth of the room to the counters that come after them.
        """
        lines, complete = self.lines, True
        for family in self._families_of(frozenset(names)):
            cost = family.metric.lines
            room = EAGER_LINES if cost == 1 else EAGER_LINES * 4 // 5
            for values in _combinations(family.metric, names):
                if family.has(values):
                    continue
                if lines + cost > room:
                    complete = False
                    break
                family.of(*values)
                lines += cost
        return complete

    def _families_of(self, names: frozenset[str]) -> list[Family[Counter] | Family[Histogram]]:
        """The families whose open labels are exactly these."""
        return [family for family in self._families if family.open == names]

    def forget_node(self, node: str) -> None:
        """Remove a departed node's series."""
        self._forget(frozenset({"node"}), node)

    def forget_model(self, model: str) -> None:
        """Remove a departed model's series."""
        self._forget(MODEL_LABELS, model)

    def _forget(self, labels: frozenset[str], value: str) -> None:
        for family in self._families:
            for position, label in enumerate(family.metric.labels):
                if label.name in labels:
                    family.forget(position, value)


def _names(metric: Metric) -> list[str]:
    return [label.name for label in metric.labels]


def _combinations(metric: Metric, names: Mapping[str, str]) -> list[tuple[str, ...]]:
    choices = [label.values or (names[label.name],) for label in metric.labels]
    return [values for values in product(*choices) if UNKNOWN not in values]
