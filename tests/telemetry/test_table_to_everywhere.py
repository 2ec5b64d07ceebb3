"""One declaration is all that a metric takes: what stands in the table is counted, read, rendered and documented."""

from dataclasses import replace

import pytest

from herd.core.events import Finished
from herd.reference import entries as reference
from herd.telemetry.catalog import METRICS
from herd.telemetry.catalog.labels import GPU, MODEL, NODE, STATUS
from herd.telemetry.catalog.shapes import Label, Metric, Of
from herd.telemetry.metrics import OPENMETRICS, MetricsSink
from herd.telemetry.reference import metrics_markdown
from herd.telemetry.scrape import NodeSeen, ScrapeView
from tests.store import builders
from tests.telemetry.exposition import MODEL as LLAMA
from tests.telemetry.exposition import heartbeat, node_seen, open_families, text_families, value

SHORT = Label("length", "of the answer", ("short", "long"))
ADDED = (
    Metric("herd_answers_total", "counter", "Answers by length.", (MODEL, SHORT), counts=Of(Finished, lambda ended: [
        ((ended.model, "short" if (ended.usage.completion_tokens or 0) < 50 else "long"), 1)])),
    Metric("herd_node_cores", "gauge", "Processor cores.", (NODE,),
           reads=Of(NodeSeen, lambda node: [((), node.beat.cpu.cores)])),
    Metric("herd_prompt_tokens", "histogram", "Length of prompts.", (NODE, STATUS), (10.0, 100.0), counts=Of(
        Finished, lambda ended: [
            ((ended.chosen.node_id, ended.status), ended.usage.prompt_tokens)] if ended.chosen else [])),
)  # fmt: skip
TABLE = (*METRICS, *ADDED)
VIEW = ScrapeView(nodes=(node_seen(),))


def sink_of(*metrics: Metric) -> MetricsSink:
    """A sink of these metrics alone, whose fleet is one node with one model."""
    sink = MetricsSink("1.2.3", metrics=metrics)
    sink.set_known({"ada": [LLAMA]})
    return sink


def test_a_counter_a_node_gauge_and_a_histogram_of_a_table_are_in_the_exposition():
    """A fact that had to be repeated in five files was forgotten in one of them."""
    sink = sink_of(*TABLE)
    for tokens in ((20, 40), (5, 40), (500, 90)):
        sink.take(builders.finished(tokens=tokens))
    assert value(sink, "herd_answers_total", model=LLAMA, length="short") == 2
    assert value(sink, "herd_answers_total", model=LLAMA, length="long") == 1
    assert value(sink, "herd_node_cores", VIEW, node="ada") == 8
    buckets = {le: value(sink, "herd_prompt_tokens_bucket", node="ada", status="completed", le=le)
               for le in ("10.0", "100.0", "+Inf")}  # fmt: skip
    assert buckets == {"10.0": 1, "100.0": 2, "+Inf": 3}
    assert value(sink, "herd_prompt_tokens_sum", node="ada", status="completed") == 525
    assert {"herd_answers", "herd_node_cores", "herd_prompt_tokens"} <= open_families(sink, VIEW).keys()


def test_series_of_a_table_s_metric_stand_at_zero_and_go_with_who_leaves():
    """What every metric needs must not be somebody's to remember."""
    sink = sink_of(*ADDED)
    assert value(sink, "herd_answers_total", model=LLAMA, length="long") == 0
    assert value(sink, "herd_prompt_tokens_count", node="ada", status="failed") == 0
    sink.set_known({})
    shown = text_families(sink, VIEW)
    assert {name: family.samples for name, family in shown.items()} == {
        "herd_answers": [], "herd_node_cores": [], "herd_prompt_tokens": []}  # fmt: skip


def test_a_table_s_metric_keeps_its_labels_closed():
    """A declaration hands over what the event says; that a client wrote it is the label's business."""
    sink = sink_of(*ADDED)
    sink.take(builders.finished(model="made-up:1b"))
    sink.take(builders.finished(node_id="stranger"))
    assert value(sink, "herd_answers_total", model="_unknown", length="short") == 1
    assert value(sink, "herd_prompt_tokens_count", node="_unknown", status="completed") == 1
    body = sink.render(OPENMETRICS, ScrapeView(nodes=(node_seen(heartbeat("stranger")),)))[0]
    assert b"made-up" not in body
    assert b"stranger" not in body


def test_a_value_that_a_closed_label_does_not_have_is_not_counted_under_it():
    """A declaration that gives nonsense must not open a list that dashboards take for closed."""
    odd = replace(ADDED[0], counts=Of(Finished, lambda ended: [((ended.model, "medium"), 1)]))
    sink = sink_of(odd)
    sink.take(builders.finished())
    assert b"medium" not in sink.render()[0]


def test_a_metric_that_counts_under_a_label_without_bounds_is_refused_at_the_start():
    """Its series would grow with every request, and nobody would know before the exposition is full."""
    free = replace(ADDED[0], labels=(GPU, SHORT))
    with pytest.raises(ValueError, match="gpu is neither a closed list"):
        sink_of(free)


def test_a_table_s_metrics_are_in_every_document():
    """`docs/metrics.md` and `herd docs metrics --json` are made from the same table."""
    text, entries = metrics_markdown(TABLE), {entry["name"]: entry for entry in reference.metrics(TABLE)}
    for metric in ADDED:
        assert f"| `{metric.name}` | {metric.kind} |" in text
        assert entries[metric.name]["help"] == metric.help
    assert "| `herd_prompt_tokens` | 10, 100 |" in text
    assert "| `length` | `herd_answers_total` | of the answer | `short`, `long` |" in text
