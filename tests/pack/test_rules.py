"""The rules by promtool's own judgement: they parse, and each alert fires for what it is for and for nothing else."""

import re
import subprocess

import pytest
import yaml

from tests.pack.contents import (
    HOLE,
    ROOT,
    RULES,
    alerts,
    filled_in,
    grouped_by,
    labels_of,
    metrics_in,
    queries,
)

RULE_TESTS = sorted((ROOT / "otel" / "tests").glob("*.yml"))
NAMES = sorted({alert["alert"] for alert in alerts()})
FIRING = (
    'alertname="NodeDown", instance="office", pack="herd"', 'alertname="NodeDown", instance="home", pack="herd"',
    'alertname="RouterDown", job="herd", pack="herd"', 'alertname="AgentDown", instance="studio", pack="herd"',
    'alertname="CollectorDown", instance="collector", pack="herd"', 'alertname="DiskLow", instance="office"',
    'alertname="AgentDown", instance="office", pack="other"',
)  # fmt: skip


def promtool(*arguments, about=None):
    """What promtool says, asked about a file or a text; fails with it where promtool is not content."""
    told = subprocess.run(
        ["promtool", *map(str, arguments)], check=False, input=about, capture_output=True, timeout=110
    )
    assert told.returncode == 0, (told.stdout + told.stderr).decode()
    return (told.stdout + told.stderr).decode()


def judged(name):
    """What the rule tests expect of an alert: True where it is to fire, False where it is not."""
    for path in RULE_TESTS:
        for group in yaml.safe_load(path.read_text())["tests"]:
            for case in group.get("promql_expr_test", ()):
                asked = re.search(r'ALERTS\{alertname=~?"([^"]+)"', case["expr"])
                if asked and re.fullmatch(asked[1], name):
                    yield any(f'alertname="{name}"' in sample["labels"] for sample in case["exp_samples"])
            for case in group.get("alert_rule_test", ()):
                if case["alertname"] == name:
                    yield bool(case["exp_alerts"])


def test_promtool_accepts_the_rules_without_a_remark():
    """A rule file that does not parse takes all the others with it."""
    assert "FAILED" not in promtool("check", "rules", *RULES)


def test_promtool_accepts_the_configuration():
    """Prometheus would not start."""
    assert "SUCCESS" in promtool("check", "config", ROOT / "otel" / "prometheus.yml")


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_the_alerts_fire_and_stay_silent_as_written(path):
    """Thresholds, low traffic, clients that leave: every case that would wake somebody for nothing."""
    assert "SUCCESS" in promtool("test", "rules", path)


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_is_shown_to_fire_and_to_stay_silent(name):
    """An alert of which only one is known is either deaf or noise."""
    expected = list(judged(name))
    assert True in expected, f"no test shows {name} firing"
    assert False in expected, f"no test shows {name} silent"


def test_what_an_alert_says_has_no_hole_where_a_label_is_missing():
    """ "Prometheus cannot scrape ." is what somebody reads at three in the morning."""
    said = [
        text
        for path in RULE_TESTS
        for group in yaml.safe_load(path.read_text())["tests"]
        for case in group.get("alert_rule_test", ())
        for alert in case["exp_alerts"]
        for text in alert["exp_annotations"].values()
    ]
    assert said
    assert [text for text in said if HOLE.search(text)] == []
    assert all(map(HOLE.search, ("Prometheus cannot scrape .", "The agent of  does not answer", "are refused ()")))


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert['alert']} {alert['labels'].get('window', '')}")
def test_an_alert_speaks_of_no_label_that_its_expression_drops(alert):
    """Prometheus fills in nothing for it, and says nothing about that."""
    expr, said = alert["expr"], " ".join(alert["annotations"].values())
    first, *_ = expr.split(" and ")  # what is joined to it adds no label
    summed = re.match(r"sum by|max by|histogram_quantile", first)
    kept = grouped_by(first) if summed else {label for name in metrics_in(first) for label in labels_of(name)}
    kept |= {"model"} if first.startswith("instance_model:") else set()
    kept |= {"node"} if "herd-agents" in expr else set()
    assert set(re.findall(r"\$labels\.(\w+)", said)) <= kept | {"instance"}
    if "absent(" in expr:
        assert "{{ $labels." not in said, "where nothing is there, no label is: `or` says what stands in for it"


@pytest.mark.parametrize(("chosen", "count"), [(".+", 5), ("office", 4), ("home", 4), ("(office|home)", 5), ("x", 3)])
def test_the_panel_counts_the_pack_s_own_alerts_of_the_chosen_router(chosen, count, tmp_path):
    """Another program's full disk is not herd's red number, and neither is another router's lost node."""
    (expr,) = (expr for _, title, expr in queries() if title == "Alerts")
    series = [{"series": f'ALERTS{{{labels}, alertstate="firing"}}', "values": "1x5"} for labels in FIRING]
    series.append({"series": 'ALERTS{alertname="NodeDown", pack="herd", alertstate="pending"}', "values": "1x5"})
    asked = {"expr": filled_in(expr, "1m", instance=chosen), "eval_time": "2m",
             "exp_samples": [{"labels": "{}", "value": count}]}  # fmt: skip
    case = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [asked]}]}
    (tmp_path / "panel.yml").write_text(yaml.safe_dump(case))
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "panel.yml")
