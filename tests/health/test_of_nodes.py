"""The checks of nodes: when each fires, and when it must not."""

from dataclasses import replace

import pytest

from herd.core.health.report import LoadedFacts, Tries
from tests.health.builders import GIB, LLAMA, drift, found, history, node, one, report, served, severities

SPILLED = LoadedFacts(LLAMA, 9 * GIB, 8 * GIB, spilled=2 * GIB)


def test_a_silent_node_is_critical_and_lists_the_models_only_it_had():
    """Its models are gone with it, and that is what users will notice."""
    told = one(
        "node_offline", report(node(), node("bob", status="offline", silent_s=252, models=frozenset({"big:70b"})))
    )
    assert (told.severity, told.node_id) == ("critical", "bob")
    assert "4.2 min" in told.description
    assert "No other node has big:70b" in told.description
    assert "/fleet/nodes/bob" in told.fix


@pytest.mark.parametrize(
    "changes",
    [{}, {"status": "degraded"}, {"status": "offline", "left": True}, {"status": "offline", "awaited": True}],
)
def test_a_node_that_is_there_left_in_order_or_may_still_report_is_not_missed(changes):
    """Switching a machine off for the night is no accident."""
    assert found("node_offline", report(node(**changes))) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"silent_s": 16.0}, "Last heartbeat 16 s ago"),
        ({"reachable": False, "engine_error": "connection refused"}, "Engine unreachable (connection refused)"),
        ({"pressure": "critical"}, "memory pressure `critical`"),
        ({"pressure": "warn"}, "memory pressure `warn`"),
    ],
)
def test_a_node_is_degraded_when_late_without_engine_or_under_pressure(changes, words):
    """Each cause has its own text, so that nobody has to guess."""
    told = one("node_degraded", report(node(**changes)))
    assert told.severity == "warning"
    assert words in told.description


@pytest.mark.parametrize(("failed", "fires"), [(3, True), (2, False)])
def test_a_node_whose_attempts_fail_is_degraded_though_others_rescued_the_requests(failed, fires):
    """Retries hide it from the clients, not from the operator."""
    past = history(tries=(Tries("ada", 20, failed),))
    assert bool(found("node_degraded", report(node(), past=past))) is fires


def test_few_attempts_prove_nothing():
    """One failure of two is half, and nothing."""
    assert found("node_degraded", report(node(), past=history(tries=(Tries("ada", 19, 19),)))) == []


@pytest.mark.parametrize("changes", [{}, {"silent_s": 14.9}, {"status": "offline", "pressure": "critical"}])
def test_a_node_that_is_well_or_gone_is_not_degraded(changes):
    """What a lost node last said is not of now."""
    assert found("node_degraded", report(node(**changes))) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"memory_available": 10 * GIB}, []),
        ({"memory_available": 9 * GIB}, ["warning"]),
        ({"memory_available": 3 * GIB}, ["critical"]),
        ({"vram_total": 24 * GIB, "vram_used": 24 * GIB}, []),
        ({"vram_total": 24 * GIB, "vram_used": 20 * GIB, "loaded": (SPILLED,)}, ["warning"]),
        ({"vram_total": 24 * GIB, "vram_used": 23 * GIB, "loaded": (SPILLED,)}, ["critical"]),
        ({"memory_available": 0, "status": "offline"}, []),
        ({"memory_total": 0, "memory_available": 0}, []),
    ],
)
def test_memory_warns_at_85_percent_and_is_critical_at_95(changes, expected):
    """A GPU full of models is an engine's normal state; a model that runs partly on the CPU is not."""
    assert severities("memory_pressure", report(node(**changes))) == expected


def test_memory_pressure_names_both_kinds_and_what_is_loaded():
    """The fix is to unload something, so it says what there is."""
    card = node(memory_available=8 * GIB, vram_total=24 * GIB, vram_used=24 * GIB)
    told = one("memory_pressure", report(card, past=history(tries=(Tries("ada", 30, 3, out_of_memory=2),))))
    assert told.severity == "critical"
    assert "2 attempts in the last hour ran out of memory" in told.description
    assert "56.0 GiB of 64.0 GiB memory" in told.description
    assert "24.0 GiB of 24.0 GiB VRAM" in told.description
    assert LLAMA in told.description


def test_a_node_without_requests_while_others_worked_is_reported():
    """An idle machine costs electricity and may hide a fault in its score."""
    told = one("underutilized_node", report(node(), node("bob"), past=history(served=(served(),))))
    assert (told.severity, told.node_id) == ("info", "bob")
    assert "100 requests" in told.description


@pytest.mark.parametrize(
    "changes",
    [
        {"known_s": 3600.0}, {"draining": True}, {"status": "degraded"}, {"status": "offline"}, {"in_flight": 1},
        {"models": frozenset({"other:1b"})}, {"node_id": "ada"},
    ],
)  # fmt: skip
def test_a_new_draining_ill_busy_or_unasked_node_is_not_underutilized(changes):
    """There is a reason for which it got nothing."""
    assert (
        found("underutilized_node", report(node(**{"node_id": "bob", **changes}), past=history(served=(served(),))))
        == []
    )


def test_on_a_quiet_day_no_node_is_underutilized():
    """Nineteen requests are no work for two."""
    assert found("underutilized_node", report(node("bob"), past=history(served=(served(19),)))) == []


@pytest.mark.parametrize(("version", "fires"), [("0.9", True), ("1.1", True), ("1.0", False), (None, False)])
def test_another_version_of_the_agent_is_told_with_both(version, fires):
    """Older or newer: both are surprises."""
    told = found("version_mismatch", report(node(agent_version=version)))
    assert bool(told) is fires
    assert all(f"{version}" in each.description and "1.0" in each.description for each in told)


@pytest.mark.parametrize(
    ("changes", "fires"),
    [
        ({}, False), ({"agent_version": None}, True), ({"engine_version": None}, True),
        ({"engine_version": None, "reachable": False}, False), ({"agent_version": None, "status": "offline"}, False),
    ],
)  # fmt: skip
def test_a_node_that_does_not_tell_its_version_is_told_of(changes, fires):
    """An engine that is away cannot tell."""
    assert bool(found("node_version_unknown", report(node(**changes)))) is fires


@pytest.mark.parametrize(("skew", "words"), [(6.0, "6.0 s ahead of"), (-90.0, "90 s behind"), (4.9, ""), (-5.0, "")])
def test_a_wrong_clock_is_told_with_its_direction(skew, words):
    """Logs and spans of two machines line up only by their clocks."""
    told = found("clock_skew", report(node(clock_skew_s=skew)))
    assert [words in each.description for each in told] == ([True] if words else [])


def test_an_open_breaker_is_a_warning_for_its_node_and_model():
    """The node works; only this model on it does not."""
    told = one("breaker_open", report(node(breakers={"a:1b": "half_open"})))
    assert (told.severity, told.node_id, told.model) == ("warning", "ada", "a:1b")
    assert "half-open" in told.description
    assert found("breaker_open", report(node(breakers={"a:1b": "open"}, status="offline"))) == []


@pytest.mark.parametrize(
    ("total", "free", "expected"),
    [
        (1000, 99, ["warning"]), (1000, 29, ["critical"]), (2000, 150, []), (500, 60, []), (0, 0, []), (None, None, []),
    ],
)  # fmt: skip
def test_a_full_disk_warns_and_a_large_one_with_room_does_not(total, free, expected):
    """5% of a large disk is still room for a model."""
    sizes = {"disk_total": total and total * GIB, "disk_free": free and free * GIB}
    assert severities("disk_low", report(node(**sizes))) == expected


def test_the_disk_of_the_records_is_watched_too():
    """The database and the log are on it."""
    usual = report()
    low = report(telemetry=type(usual.telemetry)(disk_total=100 * GIB, disk_free=2 * GIB))
    told = one("disk_low", low)
    assert (told.severity, told.node_id) == ("critical", None)
    assert "retention_days" in told.fix


@pytest.mark.parametrize(
    ("seen", "fires"),
    [
        (drift(), True),
        (drift(0.3, 0.3), True),
        (drift(lately=1.2), False),
        (drift(0.3, 1.0), False),
        (drift(1.9, 1.9), False),
        (drift(streams=19), False),
        (replace(drift(), lately=4), False),
        (drift(predicted_s=0.05, seen_s=0.15), False),
    ],
)
def test_a_node_whose_predictions_are_wrong_for_hours_and_still_is_found(seen, fires):
    """Over now, too few to say, or a difference that nobody notices: then there is nothing to do."""
    assert severities("prediction_drift", report(past=history(drifts=(seen,)))) == (["warning"] if fires else [])


def test_a_drift_says_by_how_much_in_which_part_and_what_to_do_about_that():
    """A factor alone leads nowhere."""
    told = one("prediction_drift", report(past=history(drifts=(drift(part="load"),))))
    assert "is 3 times the prediction: 3.0 s instead of 1.0 s (50 streams in 6 h" in told.description
    assert "in the load" in told.description
    assert "disk" in told.fix


def test_a_threshold_is_the_operators_to_set():
    """What is much for one fleet is usual for another."""
    tight = report(
        node(memory_available=9 * GIB, loaded=(LoadedFacts(LLAMA, GIB),)), limits={"health_memory_warning_pct": 90}
    )
    assert found("memory_pressure", tight) == []
