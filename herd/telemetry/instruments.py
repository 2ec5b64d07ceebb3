"""Counters and histograms made from the catalog: plain numbers, counted on the event loop, read by any thread.

A declaration's function gives label values, and those that are counted already are the key to their number: no lock, no
object for each bucket. It does not know what any of them means.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from math import inf, isfinite
from typing import Any, Final, Protocol

from herd.telemetry.catalog.shapes import Metric
from herd.telemetry.labels import Resolve
from herd.telemetry.text import Exemplar, Writing

MOST: Final = 2**53  # what a float counts exactly; an engine that reports more tokens reports nonsense
Values = tuple[str | None, ...]
Step = Callable[[Any], None]
TraceOf = Callable[[Any], str | None]


class Family(Protocol):
    """One metric and its series."""

    metric: Metric

    @property
    def series(self) -> Collection[Values]:
        """The label values of all series, in the catalog's order."""

    def add(self, values: tuple[str, ...]) -> None:
        """Make a series at zero, if it is not there."""

    def remove(self, values: Values) -> None:
        """Remove a series."""

    def step(self, resolve: Resolve, trace_of: TraceOf) -> Step:
        """The function that counts one event; `trace_of` gives the id of the trace that an exemplar leads to."""

    def written(self, writing: Writing) -> Iterator[str]:
        """The lines of each series; may be called in any thread."""


class Counter:
    """Amounts by label values."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._amounts: dict[Values, float] = {} if metric.labels else {(): 0.0}

    @property
    def series(self) -> Collection[Values]:
        """The label values of all series."""
        return self._amounts.keys()

    def add(self, values: tuple[str, ...]) -> None:
        """Make a series at zero, if it is not there."""
        self._amounts.setdefault(values, 0.0)

    def remove(self, values: Values) -> None:
        """Remove a series."""
        del self._amounts[values]

    def step(self, resolve: Resolve, _: TraceOf) -> Step:
        """The function that counts one event; what is less than something, or no number, is not counted."""
        assert self.metric.counts is not None
        samples, amounts = self.metric.counts.samples, self._amounts

        def count(event: Any) -> None:
            for values, amount in samples(event):
                if amount and amount > 0:
                    if values in amounts:
                        amounts[values] += amount if amount < MOST else MOST
                    elif (label_values := resolve(values)) is not None:
                        amounts[label_values] = amounts.get(label_values, 0.0) + min(amount, MOST)

        def count_once(event: Any) -> None:
            for label_values, amount in {resolve(values): amount for values, amount in samples(event)}.items():
                if label_values is not None and amount and amount > 0:
                    amounts[label_values] = amounts.get(label_values, 0.0) + min(amount, MOST)

        return count_once if any(label.once for label in self.metric.labels) else count

    def written(self, writing: Writing) -> Iterator[str]:
        """The line of each series."""
        # A copy is made in one step of the interpreter, so the event loop cannot change it meanwhile.
        for values, amount in self._amounts.copy().items():
            yield writing.amount(values, amount)


class Distribution:
    """The observations of one series, by bucket; of each bucket the last trace, its value, and when it was observed."""

    __slots__ = ("counts", "exemplars", "total")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * bounds
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}


class Histogram:
    """Observations by label values; one that is no finite number is left out."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._bounds = (*metric.buckets, inf)
        self._series: dict[Values, Distribution] = {}
        if not metric.labels:
            self.add(())

    @property
    def series(self) -> Collection[Values]:
        """The label values of all series."""
        return self._series.keys()

    def add(self, values: tuple[str, ...]) -> None:
        """Make a series at zero, if it is not there."""
        if values not in self._series:
            self._series[values] = Distribution(len(self._bounds))

    def remove(self, values: Values) -> None:
        """Remove a series."""
        del self._series[values]

    def step(self, resolve: Resolve, trace_of: TraceOf) -> Step:
        """The function that observes one event."""
        assert self.metric.counts is not None
        samples, series, bounds, exemplar = self.metric.counts.samples, self._series, self._bounds, self.metric.exemplar

        def observe(event: Any) -> None:
            for values, amount in samples(event):
                if amount is None or not isfinite(amount):
                    continue
                found = series.get(values) or self._resolved(resolve(values))
                if found is not None:
                    bucket = bisect_left(bounds, amount)
                    found.counts[bucket] += 1
                    found.total += amount
                    if exemplar and (trace_id := trace_of(event)):
                        found.exemplars[bucket] = (trace_id, amount, time.time())

        return observe

    def _resolved(self, label_values: tuple[str, ...] | None) -> Distribution | None:
        if label_values is None:
            return None
        self.add(label_values)
        return self._series[label_values]

    def written(self, writing: Writing) -> Iterator[str]:
        """The lines of each series."""
        for values, found in self._series.copy().items():
            yield writing.distribution(values, found.counts.copy(), found.total, found.exemplars.copy())


def family(metric: Metric) -> Family:
    """The instrument for a metric that counts."""
    return Histogram(metric) if metric.kind == "histogram" else Counter(metric)
