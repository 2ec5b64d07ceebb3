"""The physics of a node, as sentences that a stopwatch beside an engine would confirm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.prediction import Pace, ahead
from herd.core.work import Job, Work

PACE = Pace(load_s=6.0, reload_s=3.0, start_s=0.0, prompt_s=0.001, token_s=0.02, prompt_fall=0.5, token_fall=0.25)
NEW = Job("new", "m", 1.0, 4.0)


def work(*jobs, as_of=0.0):
    return Work(as_of, jobs, PACE.prompt_fall, PACE.token_fall)


def answering(ticket, model="m", answer_s=4.0, **changes):
    return Job(ticket, model, 0.0, answer_s, answered=True, **changes)


def test_an_idle_node_with_the_model_loaded_takes_the_prompts_own_time():
    """Everything else is added to this."""
    assert ahead(work(), 0.0, PACE, NEW, 4) == (0.0, 0.0, 1.0, 5.0)


def test_an_idle_node_without_the_model_loads_it_first():
    """The load is the larger part of a cold start."""
    assert ahead(work(), 0.0, PACE, NEW._replace(load_s=6.0), 4) == (0.0, 6.0, 7.0, 11.0)


def test_others_at_work_slow_a_prompt_whatever_their_model():
    """One machine computes for all."""
    for model in ("m", "other"):
        assert ahead(work(answering(1, model)), 0.0, PACE, NEW, 4).first_at == pytest.approx(1.5)


def test_without_a_free_slot_it_waits_for_the_soonest_end():
    """Four answers of unequal rest: the shortest makes room."""
    there = work(*(answering(number, answer_s=2.0 + number) for number in range(4)))
    times = ahead(there, 0.0, PACE, NEW, 4)
    assert times.load_at == pytest.approx(2.0 * (1 + 0.25 * 3))
    assert times.first_at > times.load_at + 1.0


def test_who_waits_there_already_goes_first():
    """The lane is part of the way."""
    full = [answering(number) for number in range(4)]
    one = work(*full, Job("first", "m", 1.0, 4.0, waits=True))
    assert ahead(one, 0.0, PACE, NEW, 1).first_at > ahead(work(*full), 0.0, PACE, NEW, 1).first_at + 4.0


def test_a_load_under_way_is_waited_for_and_not_begun_again():
    """Many requests for a cold model are one load."""
    loading = work(Job("first", "m", 1.0, 4.0, load_s=6.0))
    times = ahead(loading, 2.0, PACE, NEW._replace(load_s=6.0), 4)
    assert times.work_at == pytest.approx(4.0)


def test_a_load_that_must_put_out_a_busy_model_waits_until_that_is_idle():
    """An engine does not take a model from under an answer."""
    busy = work(answering(1, "other", answer_s=3.0))
    times = ahead(busy, 0.0, PACE, NEW._replace(load_s=6.0, victims=("other",)), 4)
    assert times == (pytest.approx(3.0), pytest.approx(9.0), pytest.approx(10.0), pytest.approx(10.0))


def test_a_request_behind_a_load_without_room_waits_with_it():
    """Ollama serves in the order of coming, the loaded model's requests too."""
    blocked = work(answering(1, "m", answer_s=3.0), Job("swap", "other", 1.0, 4.0, load_s=6.0, victims=("m",)))
    assert ahead(blocked, 0.0, PACE, NEW._replace(load_s=6.0, victims=("other",)), 4).load_at > 9.0


def test_a_prompt_that_was_read_for_a_while_has_less_left():
    """A decision a second later must not begin from the start."""
    there = work(Job(1, "m", 4.0, 1.0))
    assert there.at(2.0).left(there.jobs[0]) == pytest.approx(2.0)
    assert there.at(99.0).left(there.jobs[0]) > 0


def test_an_answer_of_unknown_length_has_as_much_left_as_ever_and_a_known_one_less():
    """What was said tells little about what is still to come."""
    assert work(answering(1)).at(2.0).jobs[0].answer_s == 4.0
    assert work(answering(1, known=True)).at(2.0).jobs[0].answer_s == pytest.approx(2.0)


def test_a_first_token_says_that_the_model_is_loaded_for_all_who_waited_for_it():
    """A router learns of a load by its first answer, seconds before the heartbeat tells."""
    there = work(Job(1, "m", 1.0, 4.0, load_s=6.0), Job(2, "m", 1.0, 4.0, load_s=6.0)).answered(1, 7.0)
    assert [(job.load_s, job.answered) for job in there.jobs] == [(0.0, True), (0.0, False)]
    assert there.ended(1, 8.0).held == {"m": 1}


jobs = st.builds(
    Job, st.integers(), st.sampled_from("mno"), st.floats(0.01, 60), st.floats(0.01, 60),
    st.just(0.0) | st.floats(1, 30),
    st.lists(st.sampled_from("mno"), max_size=2, unique=True).map(tuple), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip


@given(st.lists(jobs, max_size=10), jobs, st.integers(1, 4), st.floats(0, 20), st.booleans())
def test_times_are_in_order_and_never_sooner_than_the_work_alone(there, new, slots, elapsed, to_end):
    """A prediction that beats an idle machine is a mistake, and one that never ends stops the router."""
    times = ahead(work(*there), elapsed, PACE, new, slots, to_end)
    assert 0 <= times.load_at <= times.work_at <= times.first_at <= times.end_at < float("inf")
    assert times.first_at >= new.prefill_s - 1e-9
