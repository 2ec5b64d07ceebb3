"""Who gets a slot: never more than there are, no one left waiting beside a free one, everyone in turn."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from herd.core.admission import Grant, Lanes, Place

A, B = Place("a", "m"), Place("b", "m")


def lanes(limit=10, **slots):
    made = Lanes(limit)
    for node_id, count in slots.items():
        made.resize(node_id, count)
    return made


def test_a_free_slot_is_given_at_once_at_the_best_place():
    """The plan's order is the order of preference."""
    assert lanes(a=1, b=1).ask(1, "m", "x", (B, A)) == B


def test_the_next_best_place_is_taken_when_the_best_is_full():
    """Nothing waits behind a busy node while another is free."""
    state = lanes(a=1, b=1)
    assert [state.ask(n, "m", "x", (A, B)) for n in (1, 2, 3)] == [A, B, None]


def test_a_slot_that_frees_anywhere_takes_the_next_waiter_that_it_suits():
    """Late binding: who waits is bound to no node."""
    state = lanes(a=1, b=1)
    for ticket in (1, 2):
        state.ask(ticket, "m", "x", (A, B))
    state.ask(3, "m", "x", (A,))
    state.ask(4, "m", "x", (A, B))
    assert state.give_back(B) == (Grant(4, B),)
    assert state.give_back(A) == (Grant(3, A),)


def test_clients_take_turns_so_that_a_batch_job_does_not_starve_a_person():
    """Ten requests of a batch wait before one of a person; the person is second, not eleventh."""
    state = lanes(limit=100, a=1)
    state.ask(0, "m", "batch", (A,))
    for ticket in range(1, 11):
        state.ask(ticket, "m", "batch", (A,))
    state.ask(11, "m", "person", (A,))
    served = [state.give_back(A)[0].ticket for _ in range(3)]
    assert served == [1, 11, 2]


def test_a_full_lane_takes_no_one_more_and_says_so():
    """The queue is bounded, or memory is the bound."""
    state = lanes(limit=1, a=1)
    state.ask(1, "m", "x", (A,))
    assert not state.full("m")
    state.ask(2, "m", "x", (A,))
    assert state.full("m")


def test_whoever_leaves_the_lane_is_not_granted_a_slot():
    """A client that went away must not hold a slot that another waits for."""
    state = lanes(a=1)
    for ticket in (1, 2, 3):
        state.ask(ticket, "m", "x", (A,))
    state.leave(2)
    assert state.give_back(A) == (Grant(3, A),)


def test_a_node_that_joins_takes_waiters_once_they_are_planned_anew():
    """New capacity is of use to those who wait already."""
    state = lanes(a=1, b=1)
    state.ask(1, "m", "x", (A,))
    state.ask(2, "m", "x", (A,))
    assert state.replan(2, (A, B)) == (Grant(2, B),)


def test_a_slot_given_back_twice_is_an_error():
    """A double release would let one request too many in, silently."""
    state = lanes(a=1)
    state.ask(1, "m", "x", (A,))
    state.give_back(A)
    with pytest.raises(ValueError, match="no slot is in use"):
        state.give_back(A)


PATIENCE_S = 5.0


def other(model):
    return "n" if model == "m" else "m"


def test_a_request_for_another_model_lets_the_loaded_one_go_first_within_its_patience():
    """Back and forth between two models that do not fit together would load one for every request."""
    state = Lanes(limit=10, patience_s=10.0)
    state.resize("a", 1)
    put_out = {Place("a", "n"): ("m",)}
    state.ask(1, "m", "x", (A,), now=0.0)
    assert state.ask(2, "n", "x", (Place("a", "n"),), put_out, now=1.0) is None
    state.ask(3, "m", "x", (A,), now=2.0)
    assert state.give_back(A, now=3.0) == (Grant(3, A),)
    assert state.overdue(10.9) == ()
    assert state.overdue(11.0) == (Grant(2, Place("a", "n")),)


def test_a_request_for_another_model_goes_as_soon_as_nobody_needs_the_loaded_one():
    """Patience is for work that is there, not for work that might come."""
    state = Lanes(limit=10, patience_s=10.0)
    state.resize("a", 1)
    state.ask(1, "m", "x", (A,), now=0.0)
    state.ask(2, "n", "x", (Place("a", "n"),), {Place("a", "n"): ("m",)}, now=1.0)
    assert state.give_back(A, now=2.0) == (Grant(2, Place("a", "n")),)


PLACES = tuple(Place(node_id, model) for node_id in "abc" for model in ("m", "n"))


class AdmissionMachine(RuleBasedStateMachine):
    """Any order of asking, giving back, leaving and resizing keeps the invariants."""

    @initialize(slots=st.lists(st.integers(0, 3), min_size=3, max_size=3))
    def start(self, slots):
        self.state = Lanes(limit=6, patience_s=PATIENCE_S)
        self.since: dict[int, float] = {}
        self.swaps: dict[int, dict[Place, tuple[str, ...]]] = {}
        self.slots = dict(zip("abc", slots, strict=True))
        self.ticket = 0
        self.waiting: dict[int, tuple[Place, ...]] = {}
        self.working: dict[int, Place] = {}
        for node_id, count in self.slots.items():
            self.state.resize(node_id, count)

    now = 0.0

    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds):
        self.now += seconds
        self.granted(self.state.overdue(self.now))

    def granted(self, grants):
        for grant in grants:
            assert grant.place in self.waiting.pop(grant.ticket)
            self.working[grant.ticket] = grant.place

    @rule(client=st.sampled_from("xyz"), places=st.lists(st.sampled_from(PLACES), min_size=1, max_size=4, unique=True),
          swap=st.booleans())  # fmt: skip
    def ask(self, client, places, swap):
        lane = places[0].model
        if self.state.full(lane):
            return
        self.ticket += 1
        self.since[self.ticket] = self.now
        self.swaps[self.ticket] = {place: (other(place.model),) for place in places} if swap else {}
        place = self.state.ask(self.ticket, lane, client, places, self.swaps[self.ticket], self.now)
        if place:
            assert place in places
            self.working[self.ticket] = place
        else:
            self.waiting[self.ticket] = tuple(places)

    @rule(choice=st.randoms())
    def give_back(self, choice):
        if self.working:
            ticket = choice.choice(sorted(self.working))
            self.granted(self.state.give_back(self.working.pop(ticket), self.now))

    @rule(choice=st.randoms())
    def leave(self, choice):
        if self.waiting:
            ticket = choice.choice(sorted(self.waiting))
            del self.waiting[ticket]
            self.state.leave(ticket)

    @rule(node_id=st.sampled_from("abc"), count=st.integers(0, 4))
    def resize(self, node_id, count):
        self.slots[node_id] = count
        self.granted(self.state.resize(node_id, count, self.now))

    @rule(choice=st.randoms(), places=st.lists(st.sampled_from(PLACES), min_size=1, max_size=4, unique=True))
    def replan(self, choice, places):
        if self.waiting:
            ticket = choice.choice(sorted(self.waiting))
            self.waiting[ticket] = tuple(places)
            swaps = self.swaps[ticket] = {place: (other(place.model),) for place in places if self.swaps[ticket]}
            self.granted(self.state.replan(ticket, places, swaps, self.now))

    @invariant()
    def in_flight_is_what_was_granted_and_not_given_back(self):
        counted = dict.fromkeys(self.working.values(), 0)
        for place in self.working.values():
            counted[place] += 1
        assert self.state.in_flight() == counted

    @invariant()
    def no_one_waits_beside_a_free_slot_that_suits(self):
        for ticket, places in self.waiting.items():
            late = self.now - self.since[ticket] >= PATIENCE_S
            assert not any(self.state.free(place) and (late or not self.at_work(ticket, place)) for place in places)

    def at_work(self, ticket, place):
        """Whether a model is at work there that this ticket would put out."""
        working = self.state.in_flight()
        return any(working.get(Place(place.node_id, name)) for name in self.swaps[ticket].get(place, ()))

    @invariant()
    def everyone_who_waits_is_counted_in_a_lane_within_its_limit(self):
        assert sum(self.state.depths().values()) == len(self.waiting)
        assert sorted(self.state.waiting()) == sorted(self.waiting)
        assert all(depth <= 6 for depth in self.state.depths().values())

    def teardown(self):
        """Nobody starves: with slots everywhere and all work given back, the lanes run empty."""
        for node_id in "abc":
            self.granted(self.state.resize(node_id, 1, self.now))
        while self.working:
            ticket = min(self.working)
            self.granted(self.state.give_back(self.working.pop(ticket), self.now))
        assert self.waiting == {}


class GrowingOnlyMachine(AdmissionMachine):
    """Without a resize under way, there are never more in flight than slots."""

    @rule()
    def resize(self):
        return

    @invariant()
    def never_more_in_flight_than_slots(self):
        for place, count in self.state.in_flight().items():
            assert count <= self.slots[place.node_id]


TestAdmission = AdmissionMachine.TestCase
TestAdmission.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestNeverMoreInFlightThanSlots = GrowingOnlyMachine.TestCase
TestNeverMoreInFlightThanSlots.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
