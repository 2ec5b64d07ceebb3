"""All counted series: compiled from the declarations, created before first use, removed with their node or model.

It knows how many lines they take and which names their labels have, not what any of them means.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from herd.telemetry.catalog.labels import EAGER_LINES, NO_NODE, UNKNOWN
from herd.telemetry.catalog.shapes import Metric
from herd.telemetry.instruments import Step, TraceOf, family
from herd.telemetry.labels import Known, resolver
from herd.telemetry.text import Writing

When = Callable[[Any], object]
Group = tuple[When | None, tuple[Step, ...]]


class Counting:
    """The families of the metrics that count; `names` has those of nodes, models and, where let in, tags."""

    def __init__(self, metrics: Iterable[Metric], names: Mapping[str, Known], trace_of: TraceOf) -> None:
        self._families = [family(metric) for metric in metrics if metric.counts]
        self._names = names
        self._steps = self._compiled(trace_of)
        self.prepare({})
        for each in self._families:
            if each.metric.nodeless:
                for values in _combinations(each.metric, {"node": NO_NODE}):
                    each.add(values)

    def take(self, event: object) -> None:
        """Count an event in every metric of its class; on the event loop only."""
        self.count(event)
        for known in self._names.values():
            known.next_event()

    def count(self, event: object) -> None:
        """The same for what has no names: in the midst of another event, or in the one thread that has such events."""
        for when, steps in self._steps.get(type(event), ()):
            if when is None or when(event):
                for step in steps:
                    step(event)

    def written(self, openmetrics: bool) -> Iterator[tuple[int, str]]:
        """The exposition of every family, piece by piece, with each one's lines; may be called in any thread."""
        for each in self._families:
            writing = Writing(each.metric, openmetrics)
            yield 2, writing.head()
            for text in each.written(writing):
                yield each.metric.lines, text

    @property
    def lines(self) -> int:
        """Lines of all series in the exposition."""
        return sum(len(each.series) * each.metric.lines for each in self._families)

    def prepare(self, names: Mapping[str, str]) -> bool:
        """Make the series of these open labels at zero; False where not all of them found room.

        A counter that first appears at 1 has lost its first increase: Prometheus sees no step from 0 to 1. Histograms,
        which lose less and take more, leave a fifth of the room to the counters that come after them.
        """
        lines, complete, wanted = self.lines, True, frozenset(names)
        for each in self._families:
            if frozenset(label.name for label in each.metric.labels if label.values is None) != wanted:
                continue
            cost = each.metric.lines
            room = EAGER_LINES if cost == 1 else EAGER_LINES * 4 // 5
            for values in _combinations(each.metric, names):
                if values in each.series:
                    continue
                if lines + cost > room:
                    complete = False
                    break
                each.add(values)
                lines += cost
        return complete

    def forget(self, kind: str, name: str) -> None:
        """Remove every series of a departed node or model."""
        for each in self._families:
            places = [place for place, label in enumerate(each.metric.labels) if label.names == kind]
            for values in [values for values in each.series if any(values[place] == name for place in places)]:
                each.remove(values)

    def _compiled(self, trace_of: TraceOf) -> dict[type, tuple[Group, ...]]:
        """What is done for each class of events: the steps by what must be true of one, in the order of the table."""
        steps: defaultdict[type, defaultdict[When | None, list[Step]]] = defaultdict(lambda: defaultdict(list))
        for each in self._families:
            labels, counts = each.metric.labels, each.metric.counts
            if counts and all(label.names is None or label.names in self._names for label in labels):
                steps[counts.source][counts.when].append(each.step(resolver(labels, self._names), trace_of))
        return {
            source: tuple((when, tuple(alike)) for when, alike in of_source.items())
            for source, of_source in steps.items()
        }


def _combinations(metric: Metric, names: Mapping[str, str]) -> list[tuple[str, ...]]:
    if metric.series:
        return list(metric.series)
    choices = [label.values or (names[label.name],) for label in metric.labels]
    return [values for values in product(*choices) if UNKNOWN not in values]
