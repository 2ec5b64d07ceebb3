"""The breaker: what opens it, for how long, who may pass, and what is no reason to open it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.breaker import (
    CONSECUTIVE_FAILURES,
    FAULTS_OF_THE_NODE,
    FIRST_OPEN_S,
    LONGEST_OPEN_S,
    WINDOW,
    WINDOW_FAILURES,
    Breaker,
    BreakerState,
)
from herd.core.errors import AttemptError, error_types

CLOSED, OPEN, HALF_OPEN = BreakerState
GOOD, BAD = None, "connect"


def after(outcomes, breaker=Breaker(), now=0.0):  # noqa: B008 - frozen
    for outcome in outcomes:
        breaker = breaker.after(outcome, now)
    return breaker


def opened(now=0.0):
    return after([BAD] * CONSECUTIVE_FAILURES, now=now)


def test_a_new_breaker_lets_everything_through():
    """A node is well until it shows otherwise."""
    assert (Breaker().state(0.0), Breaker().blocks(0.0, 100)) == (CLOSED, False)


@pytest.mark.parametrize("good", [0, 1, CONSECUTIVE_FAILURES, WINDOW, 3 * WINDOW])
def test_successes_never_open_it_however_many_there_are(good):
    """A node that works must not be left alone for working."""
    breaker = after([GOOD] * good)
    assert (breaker.state(0.0), breaker.open_until) == (CLOSED, None)
    assert len(breaker.recent) == min(good, WINDOW)


@pytest.mark.parametrize("good", [0, 1, 7, WINDOW])
def test_five_failures_in_a_row_open_it_and_four_do_not_whatever_was_before(good):
    """Five requests are enough to find a dead node out; one hiccup is not."""
    before = [GOOD] * good
    assert after([*before, *[BAD] * (CONSECUTIVE_FAILURES - 1)]).state(0.0) is CLOSED
    assert after([*before, *[BAD] * CONSECUTIVE_FAILURES]).state(0.0) is OPEN


def test_a_success_in_between_begins_the_row_anew():
    """Failures that are far apart are no row."""
    row = [BAD] * (CONSECUTIVE_FAILURES - 1)
    assert after([*row, GOOD, *row]).state(0.0) is CLOSED
    assert after([*row, GOOD, *row, BAD]).state(0.0) is OPEN


def test_ten_failures_among_twenty_open_it_though_none_follow_each_other():
    """Every second request lost is as bad as a dead node."""
    halves = [BAD, GOOD] * (WINDOW_FAILURES - 1)
    assert after(halves).state(0.0) is CLOSED
    assert after([*halves, BAD]).state(0.0) is OPEN


def test_failures_of_long_ago_are_forgotten():
    """Twenty attempts are the memory of it."""
    spread = [BAD, GOOD, GOOD] * WINDOW
    assert after(spread).state(0.0) is CLOSED
    assert sum(after(spread).recent) < WINDOW_FAILURES
    assert len(after(spread).recent) == WINDOW


@pytest.mark.parametrize("kind", sorted(FAULTS_OF_THE_NODE))
def test_each_fault_of_the_nodes_counts(kind):
    """Whatever the way in which it fails."""
    assert after([kind] * CONSECUTIVE_FAILURES).state(0.0) is OPEN


@pytest.mark.parametrize("kind", sorted(set(error_types()) - FAULTS_OF_THE_NODE))
def test_what_is_no_fault_of_the_nodes_changes_nothing(kind):
    """A client's mistakes must not take a node away from everybody, and must not whitewash it either."""
    row = after([BAD] * (CONSECUTIVE_FAILURES - 1))
    assert row.after(kind, 0.0) is row
    assert opened().after(kind, 100.0) == opened()


def test_the_faults_are_errors_of_the_tree():
    """A name that no error has would count nothing."""
    assert set(error_types()) > FAULTS_OF_THE_NODE
    kinds = [kind for kind in AttemptError.__subclasses__() if kind.error_type in FAULTS_OF_THE_NODE]
    assert {kind.error_type for kind in kinds if kind.retryable} == FAULTS_OF_THE_NODE


def test_open_takes_none_and_half_open_takes_one():
    """One request finds out whether the node is well again, not all of them."""
    breaker = opened(now=100.0)
    assert breaker.open_until == 100.0 + FIRST_OPEN_S
    assert [breaker.state(100.0 + seconds) for seconds in (0.0, FIRST_OPEN_S - 0.01, FIRST_OPEN_S)] == [
        OPEN, OPEN, HALF_OPEN,
    ]  # fmt: skip
    assert (breaker.blocks(101.0, 0), breaker.blocks(106.0, 0), breaker.blocks(106.0, 1)) == (True, False, True)


def test_a_probe_that_succeeds_closes_it_and_leaves_nothing_of_the_past():
    """The next five failures are as many as the first."""
    assert opened().after(GOOD, FIRST_OPEN_S) == Breaker()


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_minute():
    """A node that stays broken is asked less and less often, and never forgotten."""
    breaker, now, spans = opened(), FIRST_OPEN_S, []
    for _ in range(6):
        breaker = breaker.after(BAD, now)
        spans.append(breaker.open_until - now)
        now = breaker.open_until
    assert spans == [2 * FIRST_OPEN_S, 4 * FIRST_OPEN_S, 8 * FIRST_OPEN_S, LONGEST_OPEN_S, LONGEST_OPEN_S,
                     LONGEST_OPEN_S]  # fmt: skip


@pytest.mark.parametrize("outcome", [GOOD, BAD])
def test_what_was_under_way_when_it_opened_neither_closes_it_nor_makes_it_longer(outcome):
    """Ten requests that fail together are one failure of the node, not ten doublings; and a late success no probe."""
    breaker = opened().after(outcome, FIRST_OPEN_S - 0.01)
    assert (breaker.open_until, breaker.open_s) == (FIRST_OPEN_S, FIRST_OPEN_S)
    assert breaker.recent == (*opened().recent, outcome is BAD)


OUTCOMES = st.lists(st.tuples(st.sampled_from([GOOD, BAD, "upstream_4xx", "stall_timeout"]), st.floats(0, 100)))


@given(OUTCOMES)
def test_whatever_happens_its_memory_and_its_patience_have_bounds(outcomes):
    """No history keeps a node away for more than a minute, or memory for more than twenty attempts."""
    breaker, now = Breaker(), 0.0
    for outcome, seconds in outcomes:
        now += seconds
        breaker = breaker.after(outcome, now)
        assert len(breaker.recent) <= WINDOW
        assert FIRST_OPEN_S <= breaker.open_s <= LONGEST_OPEN_S
        assert breaker.open_until is None or breaker.open_until <= now + LONGEST_OPEN_S
        assert breaker.blocks(now, 0) == (breaker.state(now) is OPEN)
