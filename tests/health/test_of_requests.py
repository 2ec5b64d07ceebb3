"""The checks of how requests end: when each fires, and when it must not."""

import pytest

from herd.core.health.report import Pace, Tries
from tests.health.builders import LLAMA, found, history, one, report, served, severities, trouble


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, ["warning"]), (10, ["warning"]), (11, ["critical"])])
def test_a_reaped_request_is_a_warning_and_more_than_ten_a_day_are_critical(count, expected):
    """Something hung longer than any limit allows: that is never usual."""
    past = history(zombies={"ada": count} if count else {})
    assert severities("zombie_reaper", report(past=past)) == expected


def test_reaped_requests_are_told_by_node():
    """The engine to restart is there."""
    told = one("zombie_reaper", report(past=history(zombies={"ada": 2, None: 1})))
    assert "ada 2, no node 1" in told.description


@pytest.mark.parametrize(
    ("slow", "timeouts", "of", "fires"),
    [
        (3, 0, 100, True),
        (0, 3, 100, True),
        (2, 1, 100, True),
        (2, 0, 100, False),
        (3, 0, 300, False),
        (3, 0, 19, False),
    ],
)
def test_requests_far_over_their_models_usual_latency_are_a_warning(slow, timeouts, of, fires):
    """Three of a hundred are a pattern, two an accident, three of three hundred the tail."""
    past = history(
        served=(served(of),),
        paces=(Pace(LLAMA, 12.0, 36.0, slow),),
        trouble=(trouble(timeouts, error_type="first_byte_timeout"),) if timeouts else (),
    )
    told = found("request_timeouts", report(past=past, limits={"health_error_warning_pct": 100}))
    assert [each.model for each in told] == ([LLAMA] if fires else [])


def test_slow_requests_come_with_the_usual_latency():
    """Slow compared to what is the first question."""
    told = one("request_timeouts", report(past=history(paces=(Pace(LLAMA, 12.0, 36.0, 5),))))
    assert "5 took over 36 s (p95 is 12 s)" in told.description


@pytest.mark.parametrize("error_type", ["connect", "upstream_5xx", "upstream_4xx"])
def test_a_failure_that_is_no_timeout_is_not_called_one(error_type):
    """It is counted by another check."""
    assert found("request_timeouts", report(past=history(trouble=(trouble(50, error_type=error_type),)))) == []


def failing(failed, of=100, **changes):
    past = history(served=(served(of - failed), served(failed, status="failed")), trouble=(trouble(failed, **changes),))
    return report(past=past)


@pytest.mark.parametrize(
    ("failed", "of", "expected"),
    [(5, 100, []), (6, 100, ["warning"] * 2), (25, 100, ["warning"] * 2), (26, 100, ["critical"] * 2), (19, 19, [])],
)
def test_failures_over_five_percent_warn_and_over_a_quarter_are_critical_for_node_and_model(failed, of, expected):
    """From twenty requests on; both the node and the model are reported, for either may be the cause."""
    assert severities("error_rate", failing(failed, of)) == expected


def test_failures_come_with_counts_and_types():
    """The type says whether to look at the network or at the engine."""
    told = {each.node_id or each.model: each for each in found("error_rate", failing(30))}
    assert set(told) == {"ada", LLAMA}
    assert "30 of 100 requests in 24 h failed (30%): connect 30" in told["ada"].description
    assert "--node ada" in told["ada"].fix


@pytest.mark.parametrize("error_type", ["upstream_4xx", "bad_request", "model_missing"])
def test_a_clients_mistake_is_no_failure_of_a_node(error_type):
    """One script with a wrong parameter must not turn the fleet red."""
    assert found("error_rate", failing(50, error_type=error_type)) == []


def test_the_failures_of_one_node_are_not_those_of_another():
    """Only the ill one is named."""
    past = history(
        served=(served(50), served(50, status="failed"), served(1000, node_id="bob")), trouble=(trouble(50),)
    )
    assert [each.node_id for each in found("error_rate", report(past=past))] == ["ada"]


def test_refusals_do_not_dilute_the_error_rate():
    """A client that asks for an unknown model a thousand times is no sign of health."""
    refused = served(1000, status="rejected", node_id=None)
    past = history(served=(served(90), served(10, status="failed"), refused), trouble=(trouble(10),))
    assert len(found("error_rate", report(past=past))) == 2


@pytest.mark.parametrize(
    ("retries", "of", "expected"),
    [(30, 100, []), (31, 100, ["info"]), (50, 100, ["info"]), (51, 100, ["warning"]), (19, 19, [])],
)
def test_retries_over_0_3_a_request_are_told_and_over_0_5_warn(retries, of, expected):
    """Clients notice nothing yet, but every retry is time."""
    assert severities("retry_rate", report(past=history(served=(served(of, retries=retries),)))) == expected


@pytest.mark.parametrize(
    ("check_id", "status", "quiet", "loud"),
    [("client_disconnects", "client_disconnected", 10, 11), ("incomplete_streams", "incomplete", 5, 6)],
)
def test_disconnects_and_incomplete_streams_warn_above_their_threshold(check_id, status, quiet, loud):
    """1% and 0.5%, by node and model."""
    for count, expected in ((quiet, []), (loud, ["warning"])):
        past = history(served=(served(1000 - count), served(count, status=status)))
        assert severities(check_id, report(past=past)) == expected
    assert f"By model: {LLAMA} {loud}. By node: ada {loud}" in one(check_id, report(past=past)).description


@pytest.mark.parametrize(
    ("check_id", "status", "words"),
    [
        ("client_disconnects", "client_disconnected", "1 client disconnected before the answer was complete"),
        ("incomplete_streams", "incomplete", "1 answer ended without its end marker"),
    ],
)
def test_a_count_of_one_is_singular(check_id, status, words):
    """`1 clients disconnected` would look careless."""
    past = history(served=(served(39), served(1, status=status)))
    assert words in one(check_id, report(past=past)).description


@pytest.mark.parametrize(
    ("check_id", "status"), [("client_disconnects", "client_disconnected"), ("incomplete_streams", "incomplete")]
)
def test_one_of_a_few_is_no_rate(check_id, status):
    """The first request after a start must not be an alarm."""
    past = history(served=(served(18), served(1, status=status)))
    assert found(check_id, report(past=past)) == []


def burning(bad, of, **recent):
    windows = dict.fromkeys(("5m", "30m", "1h", "2h", "6h", "1d"), bad) | recent
    good = dict.fromkeys(windows, of - bad)
    return history(served=(served(of - bad, recent=good),), trouble=(trouble(bad, recent=windows),))


def test_a_budget_that_burns_fast_is_critical_and_one_that_burns_slowly_warns():
    """15% spends the month within two days; 4% within a week."""
    assert severities("slo_burn", report(past=burning(15, 100))) == ["critical"]
    assert severities("slo_burn", report(past=burning(4, 100))) == ["warning"]
    assert found("slo_burn", report(past=burning(2, 100))) == []


def test_a_burn_that_is_over_is_not_told():
    """The short window ends the alarm soon after the cause ends."""
    assert found("slo_burn", report(past=burning(15, 100, **{"5m": 0, "30m": 0, "2h": 0}))) == []


@pytest.mark.parametrize(
    "trouble_of",
    [{"error_type": "upstream_4xx"}, {"status": "rejected", "error_type": "model_missing"},
     {"status": "client_disconnected", "error_type": None}],
)  # fmt: skip
def test_what_clients_do_wrong_spends_no_budget(trouble_of):
    """The objective is the fleet's, not its users'."""
    past = history(served=(served(100),), trouble=(trouble(50, **trouble_of),))
    assert found("slo_burn", report(past=past)) == []


def test_refusals_for_want_of_room_spend_the_budget():
    """For the user it is the same as a failure."""
    past = history(
        served=(served(80),), trouble=(trouble(20, status="rejected", error_type="queue_full", node_id=None),)
    )
    assert severities("slo_burn", report(past=past)) == ["critical"]


def test_a_night_with_one_failed_request_wakes_nobody():
    """One of ten is 10%, and no evidence."""
    assert found("slo_burn", report(past=burning(9, 19))) == []


def test_the_objective_is_a_setting():
    """Ninety percent is enough for a hobby."""
    assert found("slo_burn", report(past=burning(15, 100), limits={"health_slo_pct": 90.0})) == []


def test_a_finding_names_the_list_that_has_exactly_what_it_counted():
    """The one number that an operator wants to click is the one in the sentence."""
    past = history(served=(served(90), served(10, status="incomplete")), tries=(Tries("ada", 40, 12),))
    seen = report(past=past, at=100_000.0)
    shown = one("incomplete_streams", seen).data["shows"]
    assert shown == {"count": 10, "what": "request", "filters": {"status": "incomplete", "since": 13_600.0}}
    shown = one("node_degraded", seen).data["shows"]
    assert shown == {"count": 12, "what": "attempt", "filters": {"tried": "ada", "since": 96_400.0}}


def test_no_list_is_promised_where_it_would_show_what_was_not_counted():
    """Clients' mistakes fail too, and are no part of the rate."""
    bad = trouble(30)
    past = history(served=(served(70), served(30, status="failed")), trouble=(bad,))
    assert found("error_rate", report(past=past))[0].data["shows"]["count"] == 30
    mistake = trouble(5, error_type="bad_request")
    past = history(served=(served(70), served(35, status="failed")), trouble=(bad, mistake))
    assert "shows" not in found("error_rate", report(past=past))[0].data
