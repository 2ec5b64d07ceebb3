"""The table of checks: complete, documented, and silent about a healthy fleet."""

import json
import re

import pytest

from herd.core.finding import Finding, Severity
from herd.core.health.checks import BY_ID, CHECKS, evaluate, score
from herd.reference.entries import RUNBOOK, runbook
from herd.settings.table import BY_NAME
from tests.health import builders

CONTRACT = (
    "node_offline", "node_degraded", "memory_pressure", "underutilized_node", "vram_fallback", "version_mismatch",
    "context_protection", "zombie_reaper", "model_thrashing", "request_timeouts", "error_rate", "kv_cache_bloat",
    "retry_rate", "client_disconnects", "incomplete_streams",
)  # fmt: skip
BEYOND = (
    "trace_store_failing", "telemetry_dropping", "breaker_open", "context_waste", "clock_skew", "node_version_unknown",
    "slo_burn", "disk_low",
)  # fmt: skip


def test_all_fifteen_checks_are_there_and_eight_more():
    """Their names are what dashboards and alerts go by."""
    assert [check.check_id for check in CHECKS] == [*CONTRACT, *BEYOND]


def test_a_healthy_fleet_has_no_finding_and_a_hundred_points():
    """A check that always says something is one that nobody reads."""
    assert evaluate(builders.report()) == ()
    assert score(()) == 100


def test_a_fleet_without_nodes_and_without_requests_is_not_ill():
    """A router that was started a minute ago."""
    assert evaluate(builders.HealthReport(router_version="1.0", thresholds=builders.NUMBERS)) == ()


def finding(severity):
    return Finding("node_offline", severity, "t", "d", "f")


@pytest.mark.parametrize(
    ("critical", "warnings", "infos", "points"),
    [(1, 0, 0, 80), (0, 1, 0, 90), (0, 0, 9, 100), (2, 3, 1, 30), (6, 0, 0, 0)],
)
def test_a_critical_costs_twenty_points_a_warning_ten_and_an_info_nothing(critical, warnings, infos, points):
    """Info is to know, not to mend."""
    kinds = [Severity.CRITICAL] * critical + [Severity.WARNING] * warnings + [Severity.INFO] * infos
    assert score(map(finding, kinds)) == points


def test_the_worst_finding_stands_first():
    """Who reads one line should read that one."""
    ill = builders.report(builders.node(agent_version=None), builders.node("bob", status="offline"))
    assert [found.severity for found in evaluate(ill)] == [Severity.CRITICAL, Severity.INFO]


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
