"""What the benchmark says of its figures: medians within a run, and a verdict for each target."""

import pytest

from benchmarks.contenders import Footprint
from benchmarks.report import Results, markdown, verdicts
from benchmarks.workloads import Figures


def figures(requests_s=1000.0, p50_ms=1.0, p99_ms=2.0, cpu_us=100.0):
    return Figures(requests_s, p50_ms, p99_ms, cpu_us)


def results(rounds, memory=None, page=(), missing=None):
    return Results(("direct", "bare", "herd"), missing or {}, rounds, memory or {}, page)


def judged(found, words):
    return {verdict.target: verdict.met for verdict in verdicts(found) if words in verdict.target}


@pytest.mark.parametrize(("rate", "met"), [(599.0, False), (600.0, True)])
def test_a_share_of_the_bare_proxys_rate_is_asked_for(rate, met):
    """The first target: six tenths of what a bare proxy does in the same run."""
    found = results({"plain-32": {"bare": [figures(1000.0)], "herd": [figures(rate)]}})
    assert list(judged(found, "requests/s").values()) == [met]


def test_a_ratio_is_taken_within_a_round_before_the_median():
    """A slow moment of the machine meets all contenders of a round, and must not decide."""
    bare = [figures(1000.0), figures(100.0), figures(900.0)]
    herd = [figures(700.0), figures(70.0), figures(630.0)]
    found = results({"plain-32": {"bare": bare, "herd": herd}})
    assert found.against("plain-32", "herd", "bare", lambda a, b: a.requests_s / b.requests_s) == pytest.approx(0.7)


@pytest.mark.parametrize(("p50", "met"), [(1.5, True), (1.6, False)])
def test_the_added_median_is_what_the_router_costs_over_the_node(p50, met):
    """Half a millisecond more than direct is what one client may wait longer."""
    found = results({"plain-1": {"direct": [figures(p50_ms=1.0)], "herd": [figures(p50_ms=p50)]}})
    assert judged(found, "added p50") == {"added p50, 1 client: at most 0.5 ms": met}


@pytest.mark.parametrize(("cpu", "met"), [(130.0, True), (131.0, False)])
def test_a_relayed_token_may_cost_a_third_more_than_the_bare_proxys(cpu, met):
    """Streams are most of the traffic, and a token is most of a stream."""
    found = results({"paced-200": {"bare": [figures(cpu_us=100.0)], "herd": [figures(cpu_us=cpu)]}})
    assert list(judged(found, "CPU a token").values()) == [met]


@pytest.mark.parametrize(("pss", "rss", "met"), [(120.0, 300.0, True), (None, 120.0, True), (130.0, 130.0, False)])
def test_memory_is_that_of_all_processes_with_shared_pages_once(pss, rss, met):
    """RSS counts a shared page for each process; it is judged only where there is nothing better."""
    found = results({}, {"herd": Footprint(rss, pss, 2)})
    assert list(judged(found, "memory").values()) == [met]


@pytest.mark.parametrize(("beside", "met"), [(4.9, True), (5.0, False)])
def test_a_page_may_move_the_slowest_requests_by_less_than_three_ms(beside, met):
    """Whoever looks at a month must not slow down those who work."""
    found = results({}, page=[(2.0, beside), (2.0, beside), (2.0, 90.0)])
    assert list(judged(found, "page").values()) == [met]


def test_a_target_that_was_not_measured_is_not_judged():
    """A run of some workloads must not look like a pass of the others."""
    assert verdicts(results({})) == []


def test_the_report_says_which_contender_is_missing():
    """Where nginx is not installed the table has no column that could be read as a zero."""
    text = markdown(results({"plain-1": {"herd": [figures()]}}, missing={"nginx": "nginx is not installed"}), "head")
    assert "Without nginx: nginx is not installed." in text
