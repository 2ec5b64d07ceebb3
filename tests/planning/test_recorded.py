"""From rows to a simulation: what is learned of machines, and what is assumed where a row is silent."""

from dataclasses import replace

import pytest

from herd.planning.engine import Job
from herd.planning.fleets import fleet
from herd.planning.recorded import observations, site, traffic
from herd.store.recorded import Recorded
from tests.planning.lived import BEGAN, beat, lived, on_paper, row
from tests.planning.lived import traffic as made


def job(number=1, began=0.0, first=1.0, ended=3.0, load_s=0.0, model="m:1b"):
    """A job as an engine leaves it."""
    arrival = replace(made(1.0, 1)[0], at=0.0, model=model, prompt_tokens=100, answer_tokens=50)
    return Job(number, arrival, load_s=load_s, began_at=began, first_at=first, ended_at=ended)


def prefill_s(speed):
    """Of a usual prompt; how much of it is the start cannot be told where prompts are alike."""
    return speed.start_s + 1000 / speed.prefill


def past(*rows):
    return Recorded(rows)


def test_the_machines_that_rows_show_are_as_fast_as_those_that_made_them():
    """Speeds and the slowing by company are in the rows, if one looks who was at work beside each."""
    machines = fleet(5)[:2]
    there = site(lived(machines, 0.6, 600), map(beat, machines), on_paper)
    for true, found in zip(machines, there.machines, strict=True):
        assert found.memory == pytest.approx(true.memory, rel=0.01)
        assert found.decode_fall == pytest.approx(true.decode_fall, abs=0.1)
        for name in ("llama3.1:8b", "qwen3:14b"):
            assert prefill_s(found.models[name]) == pytest.approx(prefill_s(true.models[name]), rel=0.25)
            assert found.models[name].decode == pytest.approx(true.models[name].decode, rel=0.15)


def test_who_was_at_work_beside_a_request_is_worked_out_from_the_times_of_the_others():
    """No row says it."""
    first, second = (row(job(number, 0.0, 1.0, 3.0), "a") for number in (1, 2))
    alone = row(job(3, 10.0, 11.0, 13.0), "a", started_at=BEGAN + 10, first_at=BEGAN + 11, ended_at=BEGAN + 13)
    told = observations([first, second, alone])["a", "m:1b"]
    assert [(each.prompt_others, each.answer_others) for each in told] == [(1, 1), (1, 1), (0, 0)]


def test_a_load_is_no_part_of_the_prompt_and_nobody_computes_during_it():
    """A cold start would make the machine look slow for good."""
    (told,) = observations([row(job(began=4.0, first=5.0, ended=7.0, load_s=4.0), "a")])["a", "m:1b"]
    assert (told.load_s, told.prompt_s, told.answer_s) == (4.0, 1.0, 2.0)


@pytest.mark.parametrize(
    "changes",
    [{"status": "failed"}, {"node_id": None}, {"started_at": None}, {"first_at": BEGAN + 2.9999},
     {"stream": False, "prefill_s": None}],
)  # fmt: skip
def test_a_row_that_does_not_show_how_its_time_was_spent_says_nothing_of_speeds(changes):
    """Failed, without a node, or held back to its end."""
    assert observations([row(job(), "a", **changes)]) == {}


def test_unknown_lengths_are_the_middle_ones_of_their_model_and_are_counted():
    """A request that a client gave up was asked for all the same."""
    known = [row(job(number), "a") for number in range(3)]
    gone = row(job(), "a", status="client_disconnected", prompt_tokens=None, completion_tokens=None)
    told = traffic(past(*known, gone))
    assert told.assumed == 1
    assert (told.arrivals[-1].prompt_tokens, told.arrivals[-1].answer_tokens) == (100, 50)


def test_a_prompts_cached_part_is_no_work():
    """The engine did not read it then, and would not now."""
    told = traffic(past(row(job(), "a", cached_tokens=80)))
    assert told.arrivals[0].prompt_tokens == 20


def test_a_node_holds_what_was_in_its_memory_at_the_beginning():
    """A simulation that begins with empty machines begins with loads that nobody had."""
    machines = fleet(5)[:1]
    rows = replace(lived(machines, count=30), loaded=((machines[0].node_id, ("qwen3:14b",)),))
    (found,) = site(rows, map(beat, machines), on_paper).machines
    assert found.loaded == ("qwen3:14b",)
