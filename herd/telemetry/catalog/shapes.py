"""What a declaration of the catalog looks like: a label, a metric with what it counts or reads, an attribute or field.

It knows no metric. A declaration says what it counts of which event, or reads of which view; the sink does the rest.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

Kind = Literal["counter", "gauge", "histogram", "info"]
Names = Literal["node", "model", "tag"]
T = TypeVar("T")
# Label values in the order of the labels, and what is added, observed or shown there; None is nothing.
Sample = tuple[tuple[str | None, ...], float | None]


@dataclass(frozen=True, slots=True)
class Of(Generic[T]):
    """Where a metric's samples come from: the class of an event or view, and what one of them gives."""

    source: type[T]
    samples: Callable[[T], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class Label:
    """A label: its meaning, and its closed list of values; open (None) for the `names` of a kind, and for versions.

    A closed label counts what is not in its list as `other`, or not at all; one of names counts no name as `other`.
    `once`: of one event, values that are counted together count once.
    """

    name: str
    help: str
    values: tuple[str, ...] | None = None
    names: Names | None = None
    other: str | None = None
    once: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. Counters and histograms say what they count of an event, the rest what they read at a scrape.

    `buckets` are upper bounds in the metric's unit. With `exemplar` the event has the request's `ids`. Series of a
    `nodeless` metric with no node stand at zero from the start. `spare`: no dashboard or alert needs it.
    What is read of a node comes without the label `node`, which is the first of the metric's labels.
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

    @property
    def lines(self) -> int:
        """Lines of the exposition that one series takes."""
        return len(self.buckets) + 3 if self.kind == "histogram" else 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A span attribute or a log field: its name, where it stands, and what it says."""

    name: str
    where: str
    help: str
