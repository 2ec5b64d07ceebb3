"""Counters and histograms of our own agree with the client library's, which they stand in for on the event loop."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from herd.telemetry.catalog.labels import STREAM
from herd.telemetry.catalog.shapes import Metric, Of
from herd.telemetry.instruments import MOST, Counter, Histogram
from herd.telemetry.labels import resolver
from herd.telemetry.text import END, Writing

BOUNDS = (0.0, 0.5, 1.0, 2.5)
SECONDS = st.one_of(st.sampled_from((*BOUNDS, -0.0, 0.25, 1e9)), st.floats(0, 10))


@dataclass(frozen=True, slots=True)
class Observed:
    """An event with a value, of a request that had a trace."""

    amount: float | None
    trace: str | None = None
    stream: str = "true"


def histogram(buckets: tuple[float, ...] = BOUNDS, exemplar: bool = False):
    """A histogram of what events observe, and the function that takes one."""
    counts = Of(Observed, lambda event: [((event.stream,), event.amount)])
    made = Histogram(Metric("seen_seconds", "histogram", "Seen.", (STREAM,), buckets, counts, exemplar=exemplar))
    return made, made.step(resolver((STREAM,), {}), lambda event: event.trace)


def counter():
    """A counter of what events observe, and the function that takes one."""
    counts = Of(Observed, lambda event: [((event.stream,), event.amount)])
    made = Counter(Metric("seen_total", "counter", "Seen.", (STREAM,), counts=counts))
    return made, made.step(resolver((STREAM,), {}), lambda event: event.trace)


def shown(made):
    """The samples that a strict parser finds in what is written."""
    writing = Writing(made.metric, openmetrics=True)
    text = "".join([writing.head(), *made.written(writing), END])
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def samples(made):
    """What is shown: value by name and upper bound."""
    return {(sample.name, sample.labels.get("le")): sample.value for sample in shown(made)}


@given(st.lists(SECONDS, max_size=30), st.sampled_from([BOUNDS, (-5.0, 0.0, 5.0), (1.0,)]))
def test_a_histogram_shows_what_the_client_library_s_would(observations, buckets):
    """Bounds are inclusive, counts add up, and there is no sum where values may be negative."""
    ours, observe = histogram(buckets)
    reference = Reference("seen_seconds", "Seen.", ["stream"], registry=CollectorRegistry(), buckets=buckets)
    for seconds in observations:
        observe(Observed(seconds))
        reference.labels("true").observe(seconds)
    ours.add(("true",))
    reference.labels("true")
    shown = ("_bucket",) if buckets[0] < 0 else ("_bucket", "_sum", "_count")
    assert samples(ours) == pytest.approx({
        (sample.name, sample.labels.get("le")): sample.value
        for sample in next(iter(reference.collect())).samples if sample.name.endswith(shown)
    })  # fmt: skip


@pytest.mark.parametrize("amount", [None, float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_not_observed(amount):
    """One NaN in a sum stays there for ever, and every mean with it."""
    made, observe = histogram()
    observe(Observed(1.0))
    observe(Observed(amount))
    assert samples(made)["seen_seconds_count", None] == 1
    assert samples(made)["seen_seconds_sum", None] == 1.0


@pytest.mark.parametrize("amount", [None, 0, -3, float("nan")])
def test_a_counter_never_falls(amount):
    """Prometheus takes a counter that falls for one that began again, and adds its whole value."""
    made, count = counter()
    count(Observed(2))
    count(Observed(amount))
    assert samples(made) == {("seen_total", None): 2}


def test_nonsense_by_the_billion_counts_as_much_as_a_float_can_count():
    """A counter beyond that no longer moves when one is added to it."""
    made, count = counter()
    for _ in range(2):
        count(Observed(float(2**80)))
    assert samples(made) == {("seen_total", None): 2 * MOST}


def test_the_last_trace_of_a_bucket_is_its_exemplar():
    """The newest request of that length is the one whose trace is still there."""
    made, observe = histogram(exemplar=True)
    for seconds, trace in ((0.3, "a" * 32), (0.4, "b" * 32), (0.45, None), (2.0, "c" * 32)):
        observe(Observed(seconds, trace))
    found = {sample.labels["le"]: sample.exemplar for sample in shown(made) if sample.exemplar}
    assert {le: (exemplar.labels["trace_id"][0], exemplar.value) for le, exemplar in found.items()} == {
        "0.5": ("b", 0.4), "2.5": ("c", 2.0)}  # fmt: skip


def test_a_histogram_that_has_no_exemplars_asks_for_no_trace():
    """Events without trace ids are observed too: the event loop's lag has none."""
    made, observe = histogram()
    observe(Observed(0.3, "a" * 32))
    assert not [sample for sample in shown(made) if sample.exemplar]
