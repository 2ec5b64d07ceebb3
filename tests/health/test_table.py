"""The table of checks: complete, documented, and silent about a healthy fleet."""

import json
import re
from dataclasses import replace

import pytest

from herd.core.finding import Finding, Severity
from herd.core.health.checks import BY_ID, CHECKS, evaluate
from herd.core.health.whole import score
from herd.reference.entries import RUNBOOK, runbook
from herd.settings.table import BY_NAME
from tests.health import builders

INFO, WARNING, CRITICAL = Severity
CONTRACT = (
    "node_offline", "node_degraded", "memory_pressure", "underutilized_node", "vram_fallback", "version_mismatch",
    "context_protection", "zombie_reaper", "model_thrashing", "request_timeouts", "error_rate", "kv_cache_bloat",
    "retry_rate", "client_disconnects", "incomplete_streams",
)  # fmt: skip
BEYOND = (
    "trace_store_failing", "telemetry_dropping", "breaker_open", "context_waste", "clock_skew", "node_version_unknown",
    "slo_burn", "prediction_drift", "disk_low", "no_node_ready",
)  # fmt: skip


def test_all_fifteen_checks_are_there_and_ten_more():
    """Their names are what dashboards and alerts go by."""
    assert [check.check_id for check in CHECKS] == [*CONTRACT, *BEYOND]


def test_a_healthy_fleet_has_no_finding_and_a_hundred_points():
    """A check that always says something is one that nobody reads."""
    assert evaluate(builders.report()) == ()
    assert score(builders.report(), ()) == 100


def test_a_fleet_that_can_take_no_request_scores_0_whatever_the_cause():
    """With no node at all, a script that asks for the exit status must not read that all is well."""
    for nodes in ((), (builders.node(draining=True),), (builders.node(reachable=False), builders.node("b", left=True,
                  status="offline"))):  # fmt: skip
        seen = replace(builders.report(), nodes=nodes)
        assert builders.severities("no_node_ready", seen) == ["critical"]
        assert score(seen, evaluate(seen)) == 0


def test_a_fleet_with_one_node_that_is_ready_or_awaited_can_take_requests():
    """After a restart of the router its nodes get their time to report."""
    away = builders.node(status="offline", left=True)
    for there in (builders.node("bob"), builders.node("bob", status="offline", awaited=True)):
        assert builders.found("no_node_ready", builders.report(away, there)) == []


def finding(check_id, severity, **subject):
    return Finding(check_id, severity, "t", "d", "f", **subject)


@pytest.mark.parametrize(
    ("findings", "points"),
    [
        ([finding("node_offline", CRITICAL, node_id="n0")], 94),
        ([finding("node_offline", CRITICAL, node_id=f"n{number}") for number in range(10)], 40),
        ([finding("version_mismatch", WARNING, node_id="n0")], 98),
        ([finding("underutilized_node", INFO, node_id=f"n{number}") for number in range(10)], 100),
        ([finding("error_rate", WARNING, model="llama3.2:3b"), finding("error_rate", WARNING, node_id="n0")], 80),
        ([finding("slo_burn", CRITICAL, share=0.019)], 98),
        ([finding("slo_burn", CRITICAL, share=0.0001)], 99),
        ([finding("trace_store_failing", CRITICAL), finding("telemetry_dropping", WARNING)], 20),
    ],
)
def test_a_finding_costs_points_by_the_share_of_the_fleet_that_it_affects(findings, points):
    """One of ten machines off is no emergency of the fleet; 1.9% of failing requests is not a score of 0."""
    seen = builders.report(*(builders.node(f"n{number}") for number in range(10)))
    assert score(seen, findings) == points


def test_the_worst_finding_stands_first():
    """Who reads one line should read that one."""
    ill = builders.report(builders.node(agent_version=None), builders.node("bob", status="offline"))
    assert [found.severity for found in evaluate(ill)] == [CRITICAL, INFO]


def test_each_check_says_what_it_finds_and_goes_by_settings_that_exist():
    """The page shows both."""
    for check in CHECKS:
        assert check.finds.endswith("."), check.check_id
        assert [name for name in check.thresholds if name not in BY_NAME] == []


def test_every_threshold_is_used_by_a_check_and_may_change_at_run_time():
    """A threshold that nothing goes by would be a switch without a wire."""
    used = {name for check in CHECKS for name in check.thresholds} | {"health_resolve_after_s"}
    rows = [row for row in BY_NAME.values() if row.name.startswith("health_")]
    assert {row.name for row in rows} <= used
    assert all(row.runtime for row in rows)


def test_each_check_has_its_section_in_the_runbook_and_each_section_its_check():
    """The link of a finding must lead somewhere, and the runbook must not explain what does not exist."""
    headings = re.findall(r"^### (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    checks = [heading for heading in headings if heading.islower()]  # alerts, which have sections too, are CamelCase
    assert sorted(checks) == sorted(BY_ID)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.check_id)
def test_a_section_of_the_runbook_says_what_it_means_how_to_see_it_and_what_to_do(check):
    """At three in the morning the order of things matters."""
    text = next(entry["section"] for entry in runbook() if entry["check_id"] == check.check_id)
    assert re.search(r"\*\*Means\*\*.*\*\*See\*\*.*```sh\n.*\*\*Do\*\*", text, re.DOTALL)
    assert [name for name in check.thresholds if f"`{name}`" not in text] == []


def test_no_finding_names_an_address_or_a_folder_that_is_only_the_default():
    """Where the router listens elsewhere, a command with the default port goes astray."""
    past = builders.history(
        zombies={"ada": 1},
        served=(builders.served(50, retries=50), *(builders.served(50, status=status)
                for status in ("incomplete", "client_disconnected"))),
    )  # fmt: skip
    ill = builders.report(
        builders.node(status="offline"), past=past, telemetry=builders.Telemetry(log_lines_lost=1, store_up=False)
    )
    found = evaluate(ill)
    assert len(found) >= 7
    assert [each.check_id for each in found if "11435" in each.fix or ".fleet-manager" in each.fix] == []


def test_a_finding_can_be_written_as_json():
    """It goes to the page, the webhook and the database so."""
    ill = builders.report(
        builders.node(status="offline", models=frozenset({"a", "b"})),
        builders.node("bob", memory_available=0, agent_version="2", clock_skew_s=-100, breakers={"m": "open"}),
    )
    for found in evaluate(ill):
        json.dumps(dict(found.data))
        assert found.check_id in BY_ID
        assert found.severity in BY_ID[found.check_id].severities
