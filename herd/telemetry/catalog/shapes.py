"""The types of the catalog's declarations: label, metric, span attribute, log field.

It declares no metric. A declaration names the event it counts or the view it reads; the sink does the rest.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

Kind = Literal["counter", "gauge", "histogram", "info"]
Names = Literal["node", "model", "tag"]
T = TypeVar("T")
# Label values in the order of the labels, and the value to add, observe or set; None is skipped.
Sample = tuple[tuple[str | None, ...], float | None]


@dataclass(frozen=True, slots=True)
class Of(Generic[T]):
    """The source of a metric's samples: the class of an event or view, and the samples that one of them gives.

    An event for which `when` is false has no samples; it is asked once for all metrics that share it.
    """

    source: type[T]
    samples: Callable[[T], Iterable[Sample]]
    when: Callable[[T], object] | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """A label: its help, and its closed list of values; open (None) for `names` of a kind and for versions.

    A closed label counts values outside its list as `other`, or skips them; a label of names counts None as `other`.
    `once`: several values of one event that map to the same label value count once.
    """

    name: str
    help: str
    values: tuple[str, ...] | None = None
    names: Names | None = None
    other: str | None = None
    once: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. Counters and histograms count events; gauges and infos read a view at scrape time.

    `buckets` are upper bounds in the metric's unit. With `exemplar` the event has the request's `ids`. Series of a
    `nodeless` metric without a node exist at zero from the start. `spare`: no dashboard or alert uses it.
    `series` are the label values that can occur, if not all combinations can.
    Samples read from a node leave out the label `node`, which is the metric's first.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    counts: Of[Any] | None = None
    reads: Of[Any] | None = None
    exemplar: bool = False
    nodeless: bool = False
    spare: bool = False
    series: tuple[tuple[str, ...], ...] = ()

    @property
    def lines(self) -> int:
        """Lines of one series in the exposition."""
        return len(self.buckets) + 3 if self.kind == "histogram" else 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A span attribute or a log field: name, place and help."""

    name: str
    where: str
    help: str
