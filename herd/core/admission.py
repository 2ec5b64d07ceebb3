"""Who holds a slot and who waits: lanes per model, fair between clients, with late binding.

It knows no clock and no task: `ask`, `give_back`, `leave`, `replan` and `resize` change the state and return who was
granted what. Invariants: never more in flight at a place than its node has slots; no one waits while a place that
suits them is free; within a lane clients take turns.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request may be worked on: a node and a model there. A node has its slots for each model."""

    node_id: str
    model: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A waiting ticket was given a slot at a place."""

    ticket: int
    place: Place


@dataclass(slots=True)
class _Waiter:
    ticket: int
    lane: str
    client: str
    places: tuple[Place, ...]


@dataclass(slots=True)
class _Lane:
    """Waiters of one model: a queue per client, the client whose turn it is first."""

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
        """Waiters in the order in which they would be served if all were suited."""
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
    """The state of admission; `limit` is how many may wait in one lane."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._slots: dict[str, int] = {}
        self._in_flight: Counter[Place] = Counter()
        self._lanes: dict[str, _Lane] = {}
        self._waiters: dict[int, _Waiter] = {}

    def ask(self, ticket: int, lane: str, client: str, places: Iterable[Place]) -> Place | None:
        """A slot at the best free place, or None: then the ticket waits. Check `full` first."""
        waiter = _Waiter(ticket, lane, client, tuple(places))
        place = self._best_free(waiter.places)
        if place:
            self._in_flight[place] += 1
            return place
        self._lanes.setdefault(lane, _Lane()).add(waiter)
        self._waiters[ticket] = waiter
        return None

    def full(self, lane: str) -> bool:
        """Whether no one more may wait in a lane."""
        return self.depth(lane) >= self.limit

    def give_back(self, place: Place) -> tuple[Grant, ...]:
        """A slot is free again; whoever it suits next has it at once."""
        if self._in_flight[place] <= 0:
            raise ValueError(f"no slot is in use at {place}")
        self._in_flight[place] -= 1
        if not self._in_flight[place]:
            del self._in_flight[place]
        return self._serve(place)

    def leave(self, ticket: int) -> None:
        """A waiting ticket gives up; unknown and granted tickets are ignored."""
        waiter = self._waiters.pop(ticket, None)
        if waiter:
            self._lanes[waiter.lane].remove(waiter)
            self._sweep(waiter.lane)

    def replan(self, ticket: int, places: Iterable[Place]) -> tuple[Grant, ...]:
        """A waiting ticket is suited by other places now (a node came or went)."""
        waiter = self._waiters.get(ticket)
        if waiter is None:
            return ()
        waiter.places = tuple(places)
        place = self._best_free(waiter.places)
        return (self._grant(waiter, place),) if place else ()

    def resize(self, node_id: str, slots: int) -> tuple[Grant, ...]:
        """A node has this many slots for each model from now on; 0 takes no one more."""
        self._slots[node_id] = slots
        wanted = {place: None for waiter in self._waiters.values() for place in waiter.places}
        return tuple(grant for place in wanted if place.node_id == node_id for grant in self._serve(place))

    def depth(self, lane: str) -> int:
        """How many wait in a lane."""
        return self._lanes[lane].depth if lane in self._lanes else 0

    def depths(self) -> dict[str, int]:
        """How many wait, by lane."""
        return {name: lane.depth for name, lane in self._lanes.items() if lane.depth}

    def in_flight(self) -> dict[Place, int]:
        """Slots in use, by place."""
        return dict(self._in_flight)

    def waiting(self) -> tuple[int, ...]:
        """The tickets that wait, oldest first."""
        return tuple(self._waiters)

    def free(self, place: Place) -> int:
        """How many slots are free at a place."""
        return max(0, self._slots.get(place.node_id, 0) - self._in_flight[place])

    def _best_free(self, places: tuple[Place, ...]) -> Place | None:
        return next((place for place in places if self.free(place)), None)

    def _serve(self, place: Place) -> tuple[Grant, ...]:
        granted = []
        while self.free(place):
            waiter = self._next_for(place)
            if waiter is None:
                break
            granted.append(self._grant(waiter, place))
        return tuple(granted)

    def _next_for(self, place: Place) -> _Waiter | None:
        # The model's own lane first; then those that would take this model as a fallback.
        names = [place.model, *(name for name in self._lanes if name != place.model)]
        lanes = (self._lanes[name] for name in names if name in self._lanes)
        return next((waiter for lane in lanes for waiter in lane.in_turn() if place in waiter.places), None)

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
