"""The catalog: complete, true, and in line with the lists that it stands for."""

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    http_attributes,
    server_attributes,
    service_attributes,
    url_attributes,
)

from herd.core.dialects import ENDPOINTS
from herd.core.errors import error_types
from herd.core.routing import RejectionReason
from herd.core.signals import SIGNALS
from herd.telemetry import semconv
from herd.telemetry.catalog import ATTRIBUTES, BY_NAME, LOG_FIELDS, METRICS, Metric
from herd.telemetry.metrics import MetricsSink
from herd.telemetry.reference import metrics_markdown
from herd.telemetry.scrape import NodeSeen
from tests.telemetry.exposition import MODEL, OTHER, full_view, open_families, script, text_families

CONVENTIONS = (gen_ai_attributes, client_attributes, error_attributes, http_attributes, server_attributes,
               service_attributes, url_attributes)  # fmt: skip


def after_the_script() -> MetricsSink:
    """A sink that has seen everything once."""
    sink = MetricsSink("1.2.3", max_models=2, max_tags=1)
    sink.set_known({"ada": [MODEL, OTHER, "surplus:1"], "lost1": [MODEL]})
    for event in script():
        sink.take(event)
    sink.models.of("surplus:1")
    sink.observe_lag(0.2)
    sink.observe_commit(0.01)
    return sink


def parsed_name(metric: Metric) -> str:
    """The parser's name of a metric: counters without `_total`."""
    return metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name


def test_the_exposition_is_exactly_the_catalog():
    """An undeclared metric has no documentation; a declared one that is not there makes an empty panel."""
    shown = text_families(after_the_script(), full_view())
    assert sorted(shown) == sorted(parsed_name(metric) for metric in METRICS)


def test_openmetrics_shows_the_same_metrics():
    """Prometheus asks for OpenMetrics first."""
    shown = open_families(after_the_script(), full_view())
    assert len(shown) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_really_recorded(metric):
    """A name that nothing feeds is a promise that a dashboard cannot keep."""
    family = text_families(after_the_script(), full_view())[parsed_name(metric)]
    suffix = "_bucket" if metric.kind == "histogram" else ""
    fed = [sample for sample in family.samples if sample.name == metric.name + suffix and sample.value > 0]
    assert fed, f"{metric.name} stays at zero"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_sample_has_the_declared_labels_and_only_declared_values(metric):
    """Closed lists are closed in the exposition, not only in the table."""
    family = text_families(after_the_script(), full_view())[parsed_name(metric)]
    for sample in family.samples:
        assert set(sample.labels) - {"le"} == {label.name for label in metric.labels}
        for label in metric.labels:
            assert label.values is None or sample.labels[label.name] in label.values


def test_the_help_and_type_of_the_exposition_are_the_catalog_s():
    """What an operator reads at /metrics is what the documentation says."""
    shown = text_families(after_the_script(), full_view())
    for metric in METRICS:
        family = shown[parsed_name(metric)]
        assert family.documentation == metric.help
        assert family.type == ("gauge" if metric.kind == "info" else metric.kind)


def test_names_are_unique_prefixed_and_in_base_units():
    """Prometheus's own conventions, so that nobody has to look a unit up."""
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("herd_")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert not metric.name.endswith(("_ms", "_mb", "_gb", "_percent", "_pct"))


def test_every_metric_says_where_its_samples_come_from():
    """One that says nothing stays empty, and one that says two things is two metrics."""
    for metric in METRICS:
        assert (metric.counts is None) != (metric.reads is None), metric.name
        assert metric.counts or metric.kind != "histogram", metric.name
        assert metric.reads or metric.kind in {"counter", "histogram"}, metric.name


def test_what_is_read_of_nodes_has_the_node_as_its_first_label():
    """The declaration leaves it out, and the sink puts it in front of all others."""
    of_nodes = [metric for metric in METRICS if metric.reads and metric.reads.source is NodeSeen]
    assert len(of_nodes) > 10
    assert {metric.labels[0].name for metric in of_nodes} == {"node"}


def test_closed_lists_are_the_core_s():
    """A reason that the core learns is a label value on the same day."""
    lists = {label: label.values for metric in METRICS for label in metric.labels if label.values}
    assert error_types() in lists.values()
    assert tuple(reason.value for reason in RejectionReason) in lists.values()
    assert tuple(SIGNALS) in lists.values()


def test_operations_cover_the_endpoints_that_the_data_plane_serves():
    """A new endpoint without an operation would be counted as `_unknown`."""
    assert {path: endpoint.operation for path, endpoint in ENDPOINTS.items()} == semconv.OPERATIONS


def test_every_conventional_name_is_one_that_opentelemetry_publishes():
    """A misspelt attribute is one that no backend finds."""
    published = {value for module in CONVENTIONS for value in vars(module).values() if isinstance(value, str)}
    ours = {
        value
        for name, value in vars(semconv).items()
        if name.isupper() and isinstance(value, str) and "." in value and name != "SCHEMA_URL"
    }
    assert len(ours) > 20
    assert ours <= published


def test_the_reference_names_everything_and_is_the_same_every_time():
    """`docs/metrics.md` is compared with it byte for byte."""
    text = metrics_markdown()
    assert text == metrics_markdown()
    for name in (*BY_NAME, *(entry.name for entry in (*ATTRIBUTES, *LOG_FIELDS))):
        assert f"| `{name}` |" in text
    assert "| |\n" not in text.replace("|  |", "")
