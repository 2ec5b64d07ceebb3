"""Who holds a slot and who waits: lanes per model, fair between clients, with late binding, sparing of swaps.

It knows no clock and no task: `ask`, `give_back`, `leave`, `replan`, `resize` and `overdue` change the state and return
who was granted what; the moment comes with the call. Invariants: never more in flight at a place than its node has
slots; no one waits while a place that suits them is free, unless it would put out a model that is at work there; who
waits for that is overtaken by requests for the loaded model for no longer than `patience_s`; within a lane clients
take turns.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from herd.core.value import value


class Place(NamedTuple):
    """A node and a model on it. Slots are per node and model."""

    node_id: str
    model: str


@value
class Grant:
    """A waiting ticket got a slot at a place."""

    ticket: int
    place: Place


Swaps = Mapping[Place, tuple[str, ...]]  # by place, the models that would have to be evicted
NO_SWAPS: Swaps = MappingProxyType({})


@dataclass(slots=True)
class _Waiter:
    ticket: int
    lane: str
    client: str
    places: tuple[Place, ...]
    swaps: Swaps
    since: float


@dataclass(slots=True)
class _Lane:
    """The waiting tickets of one model: a queue per client, the client whose turn it is first."""

    clients: OrderedDict[str, deque[_Waiter]] = field(default_factory=OrderedDict)
    depth: int = 0

    def add(self, waiter: _Waiter) -> None:
        self.clients.setdefault(waiter.client, deque()).append(waiter)
        self.depth += 1

    def remove(self, waiter: _Waiter) -> None:
        queue = self.clients[waiter.client]
        queue.remove(waiter)
        self.depth -= 1
        if not queue:
            del self.clients[waiter.client]

    def in_turn(self) -> Iterator[_Waiter]:
        """Waiting tickets in the order they would be served if a slot suited all of them."""
        queues = [iter(queue) for queue in self.clients.values()]
        while queues:
            for queue in tuple(queues):
                waiter = next(queue, None)
                if waiter is None:
                    queues.remove(queue)
                else:
                    yield waiter

    def pass_turn(self, client: str) -> None:
        if client in self.clients:
            self.clients.move_to_end(client)


class Lanes:
    """The state of admission; `limit` is how many may wait in one lane.

    `patience_s` is how long requests for a model that is loaded may overtake one that would put it out. Without it N
    clients over more models than fit would have a node load back and forth, once a request.
    """

    def __init__(self, limit: int, patience_s: float = 0.0) -> None:
        self.limit = limit
        self.patience_s = patience_s
        self._slots: dict[str, int] = {}
        self._in_flight: Counter[Place] = Counter()
        self._lanes: dict[str, _Lane] = {}
        self._waiters: dict[int, _Waiter] = {}

    def ask(
        self, ticket: int, lane: str, client: str, places: Iterable[Place], swaps: Swaps = NO_SWAPS, now: float = 0.0
    ) -> Place | None:
        """A slot at the best free place, or None if the ticket has to wait. Check `full` first."""
        waiter = _Waiter(ticket, lane, client, tuple(places), swaps, now)
        place = self._best_free(waiter, now)
        if place:
            self._in_flight[place] += 1
            return place
        self._lanes.setdefault(lane, _Lane()).add(waiter)
        self._waiters[ticket] = waiter
        return None

    def suits(self, places: Iterable[Place], swaps: Swaps, now: float) -> bool:
        """Whether a slot at one of these places is available now."""
        return self._best_free(_Waiter(0, "", "", tuple(places), swaps, now), now) is not None

    def full(self, lane: str) -> bool:
        """Whether a lane is full."""
        return self.depth(lane) >= self.limit

    def give_back(self, place: Place, now: float = 0.0) -> tuple[Grant, ...]:
        """Free a slot, and grant it to the next ticket it suits."""
        if self._in_flight[place] <= 0:
            raise ValueError(f"no slot is in use at {place}")
        self._in_flight[place] -= 1
        if not self._in_flight[place]:
            del self._in_flight[place]
        late = self.overdue(now)
        granted = self._serve(place, now)
        if self._in_flight[place]:
            return late + granted
        # Nothing of this model is at work there any more: who would put it out need not wait longer.
        after = (each for each in self._wanted(place.node_id) if each != place)
        return late + granted + tuple(grant for each in after for grant in self._serve(each, now))

    def overdue(self, now: float) -> tuple[Grant, ...]:
        """Grant free slots to tickets that were overtaken for too long; called about once a second."""
        late = [each for each in self._waiters.values() if each.swaps and now - each.since >= self.patience_s]
        return tuple(self._grant(each, place) for each in late if (place := self._best_free(each, now)))

    def leave(self, ticket: int) -> None:
        """A waiting ticket gives up; unknown and granted tickets are ignored."""
        waiter = self._waiters.pop(ticket, None)
        if waiter:
            self._lanes[waiter.lane].remove(waiter)
            self._sweep(waiter.lane)

    def replan(
        self, ticket: int, places: Iterable[Place], swaps: Swaps = NO_SWAPS, now: float = 0.0
    ) -> tuple[Grant, ...]:
        """Change the places that suit a waiting ticket (a node joined or left)."""
        waiter = self._waiters.get(ticket)
        if waiter is None:
            return ()
        waiter.places, waiter.swaps = tuple(places), swaps
        place = self._best_free(waiter, now)
        return (self._grant(waiter, place),) if place else ()

    def resize(self, node_id: str, slots: int, now: float = 0.0) -> tuple[Grant, ...]:
        """Set a node's slots per model; 0 accepts no more requests."""
        self._slots[node_id] = slots
        return tuple(grant for place in self._wanted(node_id) for grant in self._serve(place, now))

    def depth(self, lane: str) -> int:
        """Number of tickets waiting in a lane."""
        return self._lanes[lane].depth if lane in self._lanes else 0

    def depths(self) -> dict[str, int]:
        """Number of waiting tickets by lane."""
        return {name: lane.depth for name, lane in self._lanes.items() if lane.depth}

    def in_flight(self) -> dict[Place, int]:
        """Slots in use, by place."""
        return dict(self._in_flight)

    def waiting(self) -> tuple[int, ...]:
        """Waiting tickets, oldest first."""
        return tuple(self._waiters)

    def free(self, place: Place) -> int:
        """Number of free slots at a place."""
        return max(0, self._slots.get(place.node_id, 0) - self._in_flight[place])

    def _wanted(self, node_id: str) -> tuple[Place, ...]:
        places = (place for waiter in self._waiters.values() for place in waiter.places if place.node_id == node_id)
        return tuple(dict.fromkeys(places))

    def _best_free(self, waiter: _Waiter, now: float) -> Place | None:
        return next((place for place in waiter.places if self._suits(waiter, place, now)), None)

    def _suits(self, waiter: _Waiter, place: Place, now: float) -> bool:
        if place not in waiter.places or not self.free(place):
            return False
        victims = waiter.swaps.get(place, ())
        if not victims or now - waiter.since >= self.patience_s:
            return True
        return not any(self._in_flight[Place(place.node_id, victim)] for victim in victims)

    def _serve(self, place: Place, now: float) -> tuple[Grant, ...]:
        granted = []
        while self.free(place):
            waiter = self._next_for(place, now)
            if waiter is None:
                break
            granted.append(self._grant(waiter, place))
        return tuple(granted)

    def _next_for(self, place: Place, now: float) -> _Waiter | None:
        # The model's own lane first; then those that would take this model as a fallback.
        names = [place.model, *(name for name in self._lanes if name != place.model)]
        lanes = (self._lanes[name] for name in names if name in self._lanes)
        return next((waiter for lane in lanes for waiter in lane.in_turn() if self._suits(waiter, place, now)), None)

    def _grant(self, waiter: _Waiter, place: Place) -> Grant:
        del self._waiters[waiter.ticket]
        lane = self._lanes[waiter.lane]
        lane.remove(waiter)
        lane.pass_turn(waiter.client)
        self._sweep(waiter.lane)
        self._in_flight[place] += 1
        return Grant(waiter.ticket, place)

    def _sweep(self, lane: str) -> None:
        if not self._lanes[lane].depth:
            del self._lanes[lane]
