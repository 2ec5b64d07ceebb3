"""The rules by promtool's own judgement: they parse, and each alert fires for what it is for and for nothing else."""

import re
import subprocess

import pytest
import yaml

from tests.pack.contents import ROOT, RULES, alerts

RULE_TESTS = sorted((ROOT / "otel" / "tests").glob("*.yml"))
NAMES = sorted({alert["alert"] for alert in alerts()})


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
