"""The dashboards as Grafana reads them: complete, well formed, linked, and laid out without gaps or overlaps."""

import json
import re
from itertools import combinations

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from herd.core.events import Status
from herd.core.finding import Severity
from herd.telemetry.catalog import ATTRIBUTES
from tests.pack.contents import DASHBOARDS, OPTIONAL, ROOT, dashboard, panels, queries

SOURCES = ROOT / "grafana" / "provisioning" / "datasources" / "herd.yaml"
EVERY = [*DASHBOARDS, *OPTIONAL]
PANELS = [(path.stem, panel) for path in EVERY for panel in panels(path)]
NAMED = {"ids": [f"{name}: {panel['title']}" for name, panel in PANELS]}
TABLE = re.compile(r"\b(?:span|resource)\.([a-z_.]+)")
# Older than Grafana's generated types, and still what its own export writes.
BEYOND_THE_TYPES = {"definition", "titleFormat", "step", "useValueForTime"}
register_default_plugins()


def missing(written, read, path=""):
    """The keys that were written and not understood."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key in read:
                yield from missing(value, read[key], f"{path}.{key}")
            elif key not in BEYOND_THE_TYPES and value not in (None, "", [], {}):
                yield f"{path}.{key}"
    elif isinstance(written, list) and isinstance(read, list):
        for number, (one, other) in enumerate(zip(written, read, strict=True)):
            yield from missing(one, other, f"{path}[{number}]")


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_grafana_s_own_types_understand_every_key(path):
    """A mistyped key is ignored in silence, and the panel is just not what was meant."""
    written = dashboard(path)
    read = json.loads(json.dumps(Dashboard.from_json(written), cls=JSONEncoder))
    assert list(missing(written, read)) == []


@pytest.mark.parametrize(("name", "panel"), PANELS, **NAMED)
def test_every_panel_says_what_it_shows_in_which_unit_and_what_to_do(name, panel):
    """A graph without a word is understood by the one who made it."""
    assert len(panel["description"]) > 10
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert [link["title"] for link in panel["links"]] == ["Runbook"]
    assert panel["targets"]


def test_a_zero_stands_in_only_for_what_has_no_labels():
    """Beside series with labels it would be one more line, of nobody, for ever."""
    zeros = [expr for *_, expr in queries() if expr.endswith(" or vector(0)")]
    assert zeros
    assert [expr for expr in zeros if not re.match(r"(sum|count|max)\(", expr)] == []


@pytest.mark.parametrize(("name", "panel"), PANELS, **NAMED)
def test_every_query_is_for_a_data_source_that_can_be_chosen(name, panel):
    """A data source's own id is another one in every installation."""
    for target in panel["targets"]:
        assert target["datasource"]["uid"] in {"${datasource}", "${tempo}", "${database}"}
        assert re.search(r"\[\d", target.get("expr", "")) is None, "a fixed range is wrong at every zoom but one"


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_every_title_and_id_is_there_once(path):
    """Two panels of one name cannot be told apart in a link or an alert."""
    found = dashboard(path)["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    assert len({panel["title"] for panel in found}) == len(found)


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_panels_neither_overlap_nor_leave_the_grid(path):
    """Grafana moves what overlaps, and then nothing is where it was drawn."""
    places = [panel["gridPos"] for panel in dashboard(path)["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_the_three_lead_to_each_other_and_take_the_choices_along(path):
    """Who found the ill node on one should not have to choose it again on the next."""
    found = dashboard(path)
    siblings = next(link for link in found["links"] if link["type"] == "dashboards")
    assert siblings["includeVars"]
    assert siblings["keepTime"]
    assert set(siblings["tags"]) <= set(found["tags"])
    assert [variable["name"] for variable in found["templating"]["list"]] == [
        "datasource", "tempo", "instance", "page", "node", "model",
    ]  # fmt: skip


def test_every_link_to_another_dashboard_leads_to_one():
    """A name in the table of nodes is a way to that node's latencies."""
    uids = {dashboard(path)["uid"] for path in DASHBOARDS}
    linked = set(re.findall(r"/d/([a-z-]+)", "".join(path.read_text() for path in DASHBOARDS)))
    assert linked
    assert linked <= uids


def test_queries_for_traces_name_attributes_that_spans_have():
    """Tempo answers a wrong name with nothing."""
    known = {entry.name for entry in ATTRIBUTES} | {"service.name"}
    asked = [target["query"] for _, panel in PANELS for target in panel["targets"] if "query" in target]
    assert asked, "a table leads from requests to their traces"
    for query in asked:
        assert set(TABLE.findall(query)) <= known


def test_exemplars_lead_to_the_data_source_of_the_traces():
    """The label that herd gives an exemplar is the one that the data source looks for."""
    sources = {source["type"]: source for source in yaml.safe_load(SOURCES.read_text())["datasources"]}
    (destination,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert destination == {"name": "trace_id", "datasourceUid": sources["tempo"]["uid"]}
    assert sources["prometheus"]["isDefault"]
    assert sources["tempo"]["jsonData"]["tracesToMetrics"]["datasourceUid"] == sources["prometheus"]["uid"]


def test_grafana_s_interval_is_prometheus_s():
    """`$__rate_interval` is four of these; with a wrong one, rates have holes."""
    sources = {source["type"]: source for source in yaml.safe_load(SOURCES.read_text())["datasources"]}
    scraped = yaml.safe_load((ROOT / "otel" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert sources["prometheus"]["jsonData"]["timeInterval"] == scraped


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_axis_over_zeros_ends_at_a_hundred(path):
    """A share of nothing that is drawn up to 10000% looks like an outage."""
    drawn = [panel for panel in panels(path) if panel["type"] == "timeseries"]
    assert drawn
    for panel in drawn:
        ratio = panel["fieldConfig"]["defaults"]["unit"] == "percentunit"
        assert 0 < panel["fieldConfig"]["defaults"]["custom"]["axisSoftMax"] <= (0.02 if ratio else 1)


@pytest.mark.parametrize(("label", "values"), [("status", Status), ("severity", Severity)])
def test_every_series_by_status_or_severity_has_the_colour_of_its_meaning(label, values):
    """A green critical finding reassures whoever should be woken."""
    drawn = [panel for _, panel in PANELS if f"{{{{{label}}}}}" in str(panel["targets"])]
    assert drawn
    for panel in drawn:
        overrides = {each["matcher"]["options"]: each["properties"] for each in panel["fieldConfig"]["overrides"]}
        colours = {value: overrides[value][0]["value"]["fixedColor"] for value in values}
        assert len(set(colours.values())) == len(values)
        assert [value for value in values if colours[value] == "red"] in (["failed"], ["critical"])


def test_a_request_with_two_tags_is_not_stacked_on_itself():
    """29 requests a second were drawn where there were 16."""
    by_tag = [panel for _, panel in PANELS if "herd_tag_requests_total" in str(panel["targets"])]
    assert by_tag
    assert all(panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "none" for panel in by_tag)
