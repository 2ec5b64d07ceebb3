"""What the router answers for: nothing is let go before its record is done with it, nothing is kept without bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.events import FleetChanged
from herd.recorder.outbox import LOG, SPANS, STORE, Outbox
from herd.telemetry.log_lines import Line
from herd.telemetry.span_fields import span_count
from tests.store import builders

LINE = Line(1.0, "INFO", "herd", "hello", {})


def joined(number):
    return FleetChanged(float(number), "node_joined", f"n{number}")


def sent(outbox, count=100):
    return [(entry.item, entry.lanes, repeat) for entry, repeat in outbox.to_send(count)]


def test_each_event_goes_to_the_records_that_tell_of_it_and_to_no_other():
    """A sample is no line, a line no row, and only requests have spans."""
    outbox = Outbox(spans=True)
    event, sample = builders.finished(), builders.sample()
    for item in (event, sample, LINE):
        assert outbox.take(item, 1.0)
    assert sent(outbox) == [(event, LOG + STORE + SPANS, False), (sample, STORE, False), (LINE, LOG, False)]


def test_a_record_that_stands_still_costs_no_other_record_anything():
    """A locked database must not silence the log, which is where an operator looks for the reason."""
    outbox = Outbox(spans=True, capacity=2)
    events = [builders.finished() for _ in range(5)]
    for event in events:
        outbox.take(event, 1.0)
        for entry, _ in outbox.to_send(1):
            outbox.done({LOG: entry.number, SPANS: entry.number})
    assert (outbox.waiting(STORE), outbox.waiting(LOG)) == (2, 0)
    assert (outbox.lost.rows, outbox.lost.lines, outbox.lost.spans) == (3, 0, 0)


def test_what_there_is_no_room_for_is_counted_by_kind():
    """An operator asks how many requests are missing, not how many objects."""
    outbox = Outbox(spans=True, capacity=1)
    event = builders.finished(attempts=2)
    for item in (event, event, joined(1), LINE):
        outbox.take(item, 1.0)
    lost = outbox.lost
    assert (lost.rows, lost.other_rows, lost.lines, lost.spans) == (1, 1, 3, span_count(event))
    assert not outbox.take(LINE, 1.0)


def test_what_a_dead_recorder_was_not_done_with_comes_again_for_the_records_that_lack_it():
    """A line that stands in the file already must not be asked for again because its row is missing."""
    outbox = Outbox(spans=False)
    first, second, third = joined(1), joined(2), joined(3)
    outbox.take(first, 1.0)
    outbox.take(second, 1.0)
    assert len(sent(outbox)) == 2
    outbox.take(third, 1.0)
    outbox.done({LOG: 2, STORE: 1})
    outbox.begin_again()
    assert outbox.repeats == 1
    assert sent(outbox) == [(second, STORE, True), (third, LOG + STORE, False)]


def test_counts_begin_anew_with_each_recorder():
    """The next one has done nothing yet, whatever the last one had."""
    outbox = Outbox(spans=False)
    for number in range(4):
        outbox.take(joined(number), 1.0)
    sent(outbox)
    outbox.done({LOG: 2, STORE: 2})
    outbox.begin_again()
    sent(outbox)
    outbox.done({LOG: 1, STORE: 1})
    assert (outbox.waiting(LOG), outbox.waiting(STORE)) == (1, 1)


def test_whoever_waits_waits_for_what_was_taken_before_and_for_nothing_after():
    """A scrape under load would never end."""
    outbox = Outbox(spans=False)
    outbox.take(joined(1), 1.0)
    goal = outbox.goal(LOG, STORE)
    outbox.take(joined(2), 1.0)
    sent(outbox)
    assert not outbox.reached(goal)
    outbox.done({LOG: 1, STORE: 1})
    assert outbox.reached(goal)


def test_what_cannot_be_sent_at_all_is_lost_and_holds_nothing_up():
    """A defect in one event must not stop the records of all others."""
    outbox = Outbox(spans=False)
    for number in range(3):
        outbox.take(joined(number), 1.0)
    (_, _), (bad, _), (_, _) = outbox.to_send(3)
    outbox.give_up(bad)
    assert (outbox.waiting(LOG), outbox.lost.lines, outbox.lost.other_rows) == (2, 1, 1)
    outbox.done({LOG: 2, STORE: 2})
    assert (outbox.waiting(LOG), outbox.waiting(STORE)) == (0, 0)


@pytest.mark.parametrize("capacity", [1, 3, 100])
@given(st.data())
def test_every_event_is_recorded_or_counted_as_lost_however_recorders_come_and_go(capacity, data):
    """kill -9 of a recorder loses nothing beyond what is counted."""
    outbox, taken = Outbox(spans=False, capacity=capacity), 0
    written = given_out = 0
    for step in data.draw(st.lists(st.sampled_from(["take", "send", "write", "tell", "die"]), max_size=60)):
        if step == "take":
            outbox.take(joined(taken), 1.0)
            taken += 1
        elif step == "send":
            given_out += len(sent(outbox, 1))
        elif step == "write":
            written = data.draw(st.integers(written, given_out))
        elif step == "tell":
            outbox.done({LOG: written, STORE: written})
        else:
            outbox.begin_again()
            written = given_out = 0
        assert outbox.waiting(STORE) <= capacity
    outbox.begin_again()
    left = outbox.unsent
    sent(outbox)
    outbox.done({LOG: left, STORE: left})
    assert outbox.waiting(STORE) == outbox.unsent == 0
    assert outbox.reached({STORE: taken - outbox.lost.other_rows})
