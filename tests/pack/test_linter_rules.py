"""The rules of Grafana's dashboard-linter that no other test holds, and that panels obey what was chosen.

docs/observability.md lists all of the linter's rules.
"""

import re

import pytest
from grafana_foundation_sdk.models import units

from tests.pack.contents import (
    BY_NAME,
    DASHBOARDS,
    HISTOGRAM_SUFFIX,
    OPTIONAL,
    ROOT,
    dashboard,
    labels_of,
    metrics_in,
    panels,
    queries,
)

EVERY = [*DASHBOARDS, *OPTIONAL]
QUERIES = list(queries())
PANELS = [(path.stem, panel) for path in EVERY for panel in panels(path)]
NAMED = {"ids": [f"{name}: {panel['title']}" for name, panel in PANELS]}
ASKED = {"ids": [f"{name}: {title}" for name, title, _ in QUERIES]}
UNITS = {value for name, value in vars(units).items() if name[0].isupper() and isinstance(value, str)}
OF_ONE_S_OWN = re.compile(r"(suffix|prefix|count|si|time|currency):\S.*")
PER_SECOND = re.compile(r"(req|o)ps|suffix:.+/s")
SERIES = re.compile(r"(?<![:\w])(herd_[a-z0-9_]+)(?:\{[^}]*\})?(\[[^\]]*\])?")
RANGED = re.compile(r"(\w+)\(herd_[a-z0-9_]+(?:\{[^}]*\})?\[([^\]]*)\]\)")
TABLE = re.findall(
    r"^\| `([a-z-]+-(?:rule|dashboard))` \| (.+) \|$", (ROOT / "docs" / "observability.md").read_text(), re.MULTILINE
)


def only_grows(series):
    """Whether a series is a counter, or one of a histogram."""
    metric = BY_NAME.get(series) or BY_NAME[HISTOGRAM_SUFFIX.sub("", series)]
    return metric.kind in {"counter", "histogram"}


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_no_dashboard_is_changed_by_a_slip_of_the_mouse(path):
    """What is changed in Grafana is lost when the file is read again."""
    assert dashboard(path)["editable"] is False


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_the_choices_are_as_old_as_the_time_shown_and_can_be_all_or_several(path):
    """A node that came after the page was opened would never be among them."""
    hidden = 2  # made from another choice
    variables = dashboard(path)["templating"]["list"]
    chosen = [each for each in variables if each["type"] == "query" and each["hide"] != hidden]
    assert {each["name"] for each in chosen} == {"instance", "node", "model"}
    for each in chosen:
        assert each["refresh"] == 2, "2 is: when the time range changes"
        assert (each["multi"], each["includeAll"], each["allValue"]) == (True, True, ".+")
        assert each["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize(("name", "panel"), PANELS, **NAMED)
def test_a_panel_has_a_title_and_the_data_source_of_its_queries(name, panel):
    """Grafana goes by the panel's own where a query is added."""
    assert panel["title"].strip()
    assert panel["datasource"] == panel["targets"][0]["datasource"]


@pytest.mark.parametrize(("name", "panel"), PANELS, **NAMED)
def test_a_unit_is_one_of_grafana_s_and_a_rate_is_told_a_second(name, panel):
    """An unknown unit is drawn as a bare number, and 12 of what, in what time, has to be guessed."""
    fields = panel["fieldConfig"]
    drawn = [fields["defaults"]["unit"]]
    drawn += [each["value"] for one in fields["overrides"] for each in one["properties"] if each["id"] == "unit"]
    assert all(unit in UNITS or OF_ONE_S_OWN.fullmatch(unit) for unit in drawn), drawn
    asked = [target.get("expr", "") for target in panel["targets"]]
    if all(re.search(r"\brate\(", expr) and "histogram_quantile" not in expr for expr in asked):
        assert PER_SECOND.fullmatch(drawn[0]), drawn


@pytest.mark.parametrize(("name", "title", "expr"), QUERIES, **ASKED)
def test_what_only_grows_is_shown_as_what_came_in_a_time_that_fits_the_scrapes(name, title, expr):
    """A counter's own value says how long ago the router began; a rate over less than two scrapes has holes."""
    ranged = RANGED.findall(expr)
    assert len(ranged) == expr.count("[")
    for function, over in ranged:
        assert (function, over) in {
            ("rate", "$__rate_interval"), ("increase", "$__rate_interval"), ("increase", "$__range"),
        }  # fmt: skip
    for series, over in SERIES.findall(expr):
        assert bool(over) == only_grows(series), series


@pytest.mark.parametrize(("name", "title", "expr"), QUERIES, **ASKED)
def test_every_query_that_can_be_of_the_chosen_models_and_nodes_is(name, title, expr):
    """A figure of the whole fleet beside those of the one model that was chosen is taken for that model's."""
    labels = {label for metric in metrics_in(expr) for label in labels_of(metric)} & {"model", "node"}
    assert [label for label in labels if f'{label}=~"${label}"' not in expr] == []


def test_the_document_names_for_every_rule_a_test_that_there_is_or_a_reason():
    """A rule that is said to be held by a test that was renamed is held by nothing."""
    assert len(TABLE) == len(dict(TABLE)) == 15
    there = "".join(path.read_text() for path in (ROOT / "tests" / "pack").glob("test_*.py"))
    for rule, held in TABLE:
        named = re.findall(r"`(test_\w+)`", held)
        assert named or held.startswith("Not held: "), rule
        assert [name for name in named if f"def {name}(" not in there] == []
