"""Names hold together: catalog, rules, dashboards, runbook and documents speak of the same metrics and alerts."""

import re

import pytest

from grafana import build as grafana_build
from herd.routes.runbook import RUNBOOK, page
from otel import build as otel_build
from otel.recordings import long_recordings, recordings
from otel.thresholds import THRESHOLDS
from tests.pack.contents import (
    BY_NAME,
    DASHBOARDS,
    FREE_LABELS,
    METRICS,
    OPTIONAL,
    RECORDED,
    ROOT,
    alerts,
    dashboard,
    grouped_by,
    labels_in,
    labels_of,
    metrics_in,
    panels,
    queries,
    rules,
)

QUERIES = list(queries())
EXPRESSIONS = [*(expr for _, _, expr in QUERIES), *(rule["expr"] for rule in rules())]
RULES_RECORDED = {rule.record for rule in [*recordings(THRESHOLDS), *long_recordings(THRESHOLDS)]}
DOCUMENTS = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
BROADER = {"herd_node", "herd_node_"}  # words of prose and of grep commands
ANCHOR = re.compile(r"^## (.+)$|^### (.+)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    return {
        re.sub(r"[^\w\- ]", "", (second or third).lower()).strip().replace(" ", "-")
        for second, third in ANCHOR.findall(text)
    }


@pytest.mark.parametrize("build", [otel_build, grafana_build], ids=["otel", "grafana"])
def test_the_generated_files_are_what_the_tables_say(build):
    """A dashboard that was edited by hand is lost at the next `make pack`."""
    for path, text in build.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make pack`"


@pytest.mark.parametrize(("name", "title", "expr"), QUERIES, ids=[f"{name}: {title}" for name, title, _ in QUERIES])
def test_every_metric_and_label_of_a_panel_is_in_the_catalog(name, title, expr):
    """A name that nobody records makes a panel that never has data."""
    assert metrics_in(expr) <= BY_NAME.keys()
    for metric, label in labels_in(expr):
        assert label in FREE_LABELS | labels_of(metric), f"{metric} has no {label}"
    known = {label for metric in metrics_in(expr) for label in labels_of(metric)}
    assert grouped_by(expr) <= known, f"{name}, {title}"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("record") or rule["alert"])
def test_every_metric_and_label_of_a_rule_is_in_the_catalog(rule):
    """An alert on a misspelt name is silent for ever."""
    assert metrics_in(rule["expr"]) <= BY_NAME.keys()
    for metric, label in labels_in(rule["expr"]):
        assert label in FREE_LABELS | labels_of(metric)
    assert set(RECORDED.findall(rule["expr"])) <= RULES_RECORDED


def test_every_recorded_series_of_a_panel_is_recorded():
    """The other source of panels without data."""
    used = {name for expr in EXPRESSIONS for name in RECORDED.findall(expr)}
    assert used
    assert used <= RULES_RECORDED


def test_a_recorded_name_says_its_level_its_metric_and_its_operation():
    """The convention that whoever reads other people's rules knows."""
    for name in RULES_RECORDED:
        assert re.fullmatch(r"instance(_model)?:herd_[a-z_]+:(ratio_)?increase(5m|30m|[126]h|[13]d)", name)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_shown_somewhere_or_marked_spare(metric):
    """What nobody looks at should be known as such, and what is looked at should not be called spare."""
    used = any(metric.name in metrics_in(expr) for expr in EXPRESSIONS)
    used = used or any(metric.name in str(dashboard(path)["annotations"]) for path in DASHBOARDS)
    assert used != metric.spare


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_metric_of_a_document_is_in_the_catalog(path):
    """A command that is copied from a document must find something."""
    assert metrics_in(path.read_text(encoding="utf-8")) - BROADER <= BY_NAME.keys() | {"herd_health"}


def test_every_bound_that_a_rule_counts_by_is_a_bucket():
    """Between two buckets nothing can be counted."""
    counted = {found for rule in rules() for found in re.findall(r'(herd_\w+)_bucket\{le="([\d.]+)"', rule["expr"])}
    assert {metric for metric, _ in counted} >= {"herd_time_to_first_token_seconds", "herd_queue_wait_seconds"}
    for metric, bound in counted:
        assert float(bound) in BY_NAME[metric].buckets


def test_every_alert_says_what_it_is_how_bad_and_what_to_do():
    """Whoever is woken reads these three first."""
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["description"].endswith(".")


def test_every_alert_and_every_panel_leads_to_a_section_of_the_runbook():
    """A link to nowhere, at three in the morning, is worse than none."""
    there = anchors((ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"))
    served = set(re.findall(r' id="([^"]+)"', page(RUNBOOK.read_text(encoding="utf-8"))))
    links = [alert["annotations"]["runbook_url"] for alert in alerts()]
    links += [link["url"] for path in [*DASHBOARDS, *OPTIONAL] for panel in panels(path) for link in panel["links"]]
    assert links
    for link in links:
        address, _, anchor = link.partition("#")
        assert re.fullmatch(r"http://(\{\{.+\}\}|\$page)/dashboard/runbook", address)
        assert anchor in there & served, f"the router's page has no section {anchor}"


def test_every_alert_has_its_own_section_in_the_runbook_with_its_own_name():
    """Searching the file for the alert's name must find it."""
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    for name in {alert["alert"] for alert in alerts()}:
        assert f"\n### {name}\n" in text


def test_observability_md_lists_every_alert_and_every_panel():
    """The document that says what there is must not lag behind it."""
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    assert not [alert["alert"] for alert in alerts() if f"`{alert['alert']}`" not in text]
    titles = {panel["title"] for path in [*DASHBOARDS, *OPTIONAL] for panel in panels(path)}
    assert not sorted(title for title in titles if title not in text)
