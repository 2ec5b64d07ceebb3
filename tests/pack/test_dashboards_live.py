"""Every dashboard against a real Prometheus that scrapes a real router: no panel may say "No data"."""

import math
import re
import sqlite3
import time
from contextlib import closing

import httpx
import pytest

from herd.telemetry.catalog import BY_NAME
from node.telemetry import catalog as agent
from tests.harness import until
from tests.pack.contents import DASHBOARDS, OPTIONAL, alerts, dashboard, filled_in, panels, queries, rules
from tests.pack.test_rules import promtool

QUERIES = list(queries())
ROWS = [(panel["title"], panel["targets"][0]["queryText"]) for path in OPTIONAL for panel in panels(path)]
WINDOW = "30s"


def finite(samples):
    return [sample for sample in samples if math.isfinite(float(sample["value"][1]))]


@pytest.mark.parametrize(("name", "title", "expr"), QUERIES, ids=[f"{name}: {title}" for name, title, _ in QUERIES])
def test_every_target_of_every_panel_has_data(observed, name, title, expr):
    """Dashboards rot from the day on which they are shipped, unless this is asked at every change."""
    if title != "Alerts":  # the one panel that is rightly empty: nothing has fired yet
        expr = expr.removesuffix(" or vector(0)")
    found = observed.prometheus.query(filled_in(expr, WINDOW), observed.at)
    assert finite(found), f"dashboard {name}, panel {title!r} has no data: {expr}"


@pytest.mark.parametrize("name", ["health", "latency", "usage"])
def test_a_choice_of_one_node_and_one_model_still_has_data(observed, name):
    """The variables are patterns, and a name with a dot or a colon in it must survive them."""
    empty = []
    for path, title, expr in QUERIES:
        if (
            path == name
            and ("$node" in expr or "$model" in expr)
            and "load" not in expr
            and "usage_missing" not in expr
        ):
            node = "watched" if "herd_agent_" in expr else "gpu-box"  # of simulated nodes only the router tells
            chosen = filled_in(expr, WINDOW, node=node, model="llama3\\\\.2:3b|slow:1b|qwen3:8b")
            empty += [] if observed.prometheus.query(chosen, observed.at) else [title]
    assert empty == []


@pytest.mark.parametrize("variable", ["instance", "node", "model"])
def test_the_variables_have_choices(observed, variable):
    """An empty drop-down hides every panel behind it."""
    for path in DASHBOARDS:
        defined = next(each for each in dashboard(path)["templating"]["list"] if each["name"] == variable)
        metric, label = defined["definition"].removeprefix("label_values(").rstrip(")").split(", ")
        choices = observed.prometheus.get(f"label/{label}/values", **{"match[]": filled_in(metric, WINDOW)})
        router = observed.url.removeprefix("http://")
        assert {"instance": router, "node": "studio", "model": "qwen3:8b"}[variable] in choices


@pytest.mark.parametrize("rule", [rule for rule in rules() if "record" in rule], ids=lambda rule: rule["record"])
def test_every_recording_rule_has_data(observed, rule):
    """An alert on a series that is not recorded never fires."""
    assert finite(observed.prometheus.query(rule["record"], observed.at))


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert['alert']} {alert['labels'].get('window', '')}")
def test_every_alert_s_expression_is_evaluated(observed, alert):
    """Prometheus loads a rule that cannot be evaluated, and says so only on a page that nobody looks at."""
    observed.prometheus.query(alert["expr"])
    told = [rule for group in observed.prometheus.get("rules")["groups"] for rule in group["rules"]]
    of_this_name = [rule for rule in told if rule["name"] == alert["alert"]]
    assert of_this_name
    assert {rule["health"] for rule in of_this_name} == {"ok"}


def test_exemplars_lead_from_latency_to_traces(observed):
    """A point on the graph is a request, and its trace is at the collector."""
    metrics = [metric.name for metric in BY_NAME.values() if metric.exemplar]
    shown = [
        target["expr"]
        for path in DASHBOARDS
        for panel in panels(path)
        for target in panel["targets"]
        if target.get("exemplar")
    ]
    assert all(any(metric in expr for expr in shown) for metric in metrics)
    sent = {span.trace_id for span in observed.collector.spans}
    for expr in shown:
        found = observed.prometheus.get("query_exemplars", query=filled_in(expr, WINDOW), start=str(0), end=str(2**32))
        ids = {exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]}
        assert ids
        assert ids <= sent, "an exemplar names a trace that was not exported"


def test_promtool_has_no_remark_about_the_metrics(observed):
    """Its rules are the naming conventions that every other tool expects."""
    text = httpx.get(f"{observed.url}/metrics", timeout=10).content
    assert promtool("check", "metrics", about=text) == ""
    assert promtool("check", "metrics", about=observed.agent.exposition().encode()) == ""


def test_every_metric_of_an_agent_is_there_under_its_node_s_name(observed):
    """A panel by node needs the name that the router knows the node by."""
    for metric in agent.METRICS:
        name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
        if "_gpu_" not in name:  # this machine may have none
            assert observed.prometheus.query(f'{name}{{node="watched"}}'), name


@pytest.mark.parametrize(("title", "query"), ROWS, ids=[title for title, _ in ROWS])
def test_every_table_of_the_database_has_rows_and_an_index(observed, title, query):
    """It is read while the router writes, so it must neither lock nor read everything."""
    until(lambda: observed.router.rows("error_type IS NOT NULL"), "rows of failures")
    now = time.time() * 1000
    query = query.replace("$__from", f"{now - 600_000:.0f}").replace("$__to", f"{now:.0f}")
    assert "$" not in query
    with closing(sqlite3.connect(f"file:{observed.router.database}?mode=ro", uri=True)) as database:
        assert database.execute(query).fetchall(), title
        plan = [step[3] for step in database.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert not [step for step in plan if re.match(r"SCAN (request_|fleet_)\w+$", step)], plan
