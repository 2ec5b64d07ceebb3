"""The exposition's text is the client library's, byte for byte, at a tenth of its price."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from herd.telemetry.catalog.shapes import Label, Metric
from herd.telemetry.text import END, Writing

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
AMOUNTS = st.floats(allow_nan=False) | st.integers(0, 2**60).map(float)
LABELS = (Label("stream", ""), Label("engine", ""))
HELP = 'Seen, with a "quote", a \\ and\na line.'
NAMES = [label.name for label in LABELS]


class One(Collector):
    """A registry of one family."""

    def __init__(self, family):
        self.family = family

    def collect(self):
        return [self.family]


def written(metric, openmetrics, lines):
    writing = Writing(metric, openmetrics)
    return "".join([writing.head(), *lines(writing), *([END] if openmetrics else [])])


def the_library_s(family, openmetrics):
    return (generate_openmetrics if openmetrics else generate_latest)(One(family)).decode()


@pytest.mark.parametrize("openmetrics", [False, True])
@pytest.mark.parametrize(
    ("kind", "name", "family"),
    [("counter", "seen_total", CounterMetricFamily), ("gauge", "seen_total_bytes", GaugeMetricFamily),
     ("info", "seen_info", InfoMetricFamily)],
)  # fmt: skip
@given(series=st.dictionaries(st.tuples(TEXTS, TEXTS), AMOUNTS, max_size=4))
def test_amounts_are_written_as_the_client_library_writes_them(openmetrics, kind, name, family, series):
    """Prometheus refuses a whole scrape for one line that it cannot read."""
    theirs = family(name.removesuffix("_info"), HELP, labels=() if kind == "info" else NAMES)
    for values, amount in series.items():
        if kind == "info":
            theirs.add_metric((), dict(zip(NAMES, values, strict=True)))
        else:
            theirs.add_metric(values, amount)
    metric = Metric(name, kind, HELP, LABELS)
    ours = written(metric, openmetrics, lambda writing: [
        writing.amount(values, 1.0 if kind == "info" else amount) for values, amount in series.items()
    ])  # fmt: skip
    assert ours == the_library_s(theirs, openmetrics)


@pytest.mark.parametrize("openmetrics", [False, True])
@pytest.mark.parametrize("buckets", [(0.0, 0.5, 2500000.0), (-1.0, 1.0)])
@given(
    values=st.tuples(TEXTS, TEXTS),
    counts=st.lists(st.integers(0, 2**50), min_size=4, max_size=4),
    total=AMOUNTS,
    exemplars=st.dictionaries(st.integers(0, 2), st.tuples(TEXTS, AMOUNTS, st.floats(0, 2e9)), max_size=2),
)
def test_distributions_are_written_as_the_client_library_writes_them(
    openmetrics, buckets, values, counts, total, exemplars
):
    """Its bounds, its order of labels, its exemplars, and no sum where a bound is below zero."""
    counts = counts[: len(buckets) + 1]
    bounds = [floatToGoString(bound) for bound in (*buckets, float("inf"))]
    theirs = HistogramMetricFamily("seen_seconds", HELP, labels=NAMES)
    shown = []
    for place, bound in enumerate(bounds):
        trace = exemplars.get(place)
        exemplar = [Exemplar({"trace_id": trace[0]}, *trace[1:])] if trace else []
        shown.append((bound, sum(counts[: place + 1]), *exemplar))
    theirs.add_metric(values, shown, total)
    metric = Metric("seen_seconds", "histogram", HELP, LABELS, buckets)
    ours = written(metric, openmetrics, lambda writing: [writing.distribution(values, counts, total, exemplars)])
    assert ours == the_library_s(theirs, openmetrics)
