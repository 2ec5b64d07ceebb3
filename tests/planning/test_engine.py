"""One machine in virtual time: what is loaded, who works, and how those at work slow each other."""

import pytest

from herd.planning.arrivals import Arrival
from herd.planning.engine import Engine, Job, Machine, Speed

SPEEDS = {"a": Speed(8.0, 4.0, 1000.0, 50.0), "b": Speed(8.0, 4.0, 1000.0, 50.0), "c": Speed(2.0, 1.0, 1000.0, 50.0)}


def engine(memory=10.0, slots=2, prefill_fall=1.0, decode_fall=0.5):
    return Engine(Machine("x", memory, SPEEDS, slots, prefill_fall, decode_fall))


def give(there, number, model="a", prompt=1000, answer=51):
    there.give(Job(number, Arrival(there.now, model, prompt, answer)))


def ends(there):
    """When each job answered and ended, by number."""
    told = {}
    while there.next_at() < float("inf"):
        for event in there.step():
            if event.kind == "ended":
                told[event.job.number] = (round(event.job.first_at, 3), round(event.job.ended_at, 3))
    return told


def test_a_lone_request_loads_reads_and_answers_at_the_machines_own_speeds():
    """Four seconds of load, one of prompt, one of answer: the unit of everything else."""
    there = engine()
    give(there, 1)
    assert ends(there) == {1: (5.0, 6.0)}


def test_two_at_work_slow_each_other_by_their_shares():
    """Two prompts at a fall of 1 take twice as long; two answers at 0.5 one and a half times."""
    there = engine()
    give(there, 1)
    give(there, 2)
    assert ends(there) == {1: (6.0, 7.5), 2: (6.0, 7.5)}


def test_a_third_request_waits_for_one_of_two_slots():
    """A slot is a place in the batch."""
    there = engine(prefill_fall=0.0, decode_fall=0.0)
    for number in (1, 2, 3):
        give(there, number)
    assert ends(there)[3] == (7.0, 8.0)


def test_an_idle_model_makes_room_and_the_one_used_longest_ago_goes_first():
    """As Ollama has it."""
    there = engine(memory=17.0)
    for number, model in enumerate(("a", "c", "b")):
        give(there, number, model)
        ends(there)
    assert set(there.loaded) == {"c", "b"}
    assert there.loads == 3


def test_whoever_comes_behind_a_load_that_has_no_room_waits_with_it():
    """One request for another model holds up those for the loaded one: that is what a swap costs."""
    there = engine(prefill_fall=0.0, decode_fall=0.0)
    give(there, 1)
    while there.next_at() < 5.5:
        there.step()
    there.wait(5.5)
    give(there, 2, "b")
    give(there, 3, "a")
    told = ends(there)
    assert told[2] == (pytest.approx(11.0), pytest.approx(12.0))
    assert told[3][0] > told[2][1]


def test_a_copy_run_ahead_moves_nothing():
    """The clairvoyant looks; it must not touch."""
    there = engine()
    give(there, 1)
    twin = there.copied()
    ends(twin)
    assert (there.now, there.in_flight, twin.in_flight) == (0.0, 1, 0)
