"""Waiting for a slot: the lanes of `core.admission` with tasks, deadlines and the measured service rate around them."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count

from herd.core.admission import Grant, Lanes, Place
from herd.errors import NoNode, QueueFull, QueueTimeout

SMOOTHING = 0.2
RETRY_AFTER_LIMIT_S = 60

Replan = Callable[[], tuple[Place, ...]]


@dataclass(slots=True)
class Waiting:
    """One request in a lane: its future, and how to plan it anew when the fleet changes."""

    lane: str
    granted: asyncio.Future[Place]
    replan: Replan


class Slots:
    """Slots of all nodes; `acquire` one, `release` it in a `finally`."""

    def __init__(self, limit: int, timeout_s: float) -> None:
        self._lanes = Lanes(limit)
        self._timeout_s = timeout_s
        self._waiting: dict[int, Waiting] = {}
        self._tickets = count(1)
        self._held_s: dict[str, float] = {}
        self._sizes: dict[str, int] = {}

    async def acquire(self, lane: str, client: str, places: tuple[Place, ...], replan: Replan) -> Place:
        """A slot at the best free place, waiting in the lane if there is none.

        Raises QueueFull or QueueTimeout, both with a Retry-After, and NoNode if the last place went while it waited.
        """
        ticket = next(self._tickets)
        if not self.any_free(places) and self._lanes.full(lane):
            raise QueueFull(f"{self._lanes.limit} requests wait for {lane} already", self._retry_after_s(lane, places))
        place = self._lanes.ask(ticket, lane, client, places)
        if place:
            return place
        granted: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = Waiting(lane, granted, replan)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await granted
        except TimeoutError:
            self._give_up(ticket, granted)
            raise QueueTimeout(
                f"no slot for {lane} came free within {self._timeout_s:g} s", self._retry_after_s(lane, places)
            ) from None
        except asyncio.CancelledError:
            self._give_up(ticket, granted)
            raise
        finally:
            self._waiting.pop(ticket, None)

    def set_limits(self, limit: int, timeout_s: float) -> None:
        """Let so many wait in a lane, and so long, from now on; those who wait already keep their deadline."""
        self._lanes.limit, self._timeout_s = limit, timeout_s

    def any_free(self, places: Iterable[Place]) -> bool:
        """Whether one of the places has a free slot now."""
        return any(self._lanes.free(place) for place in places)

    def release(self, place: Place, held_s: float) -> None:
        """Give a slot back after `held_s` seconds; the next waiter has it at once."""
        old = self._held_s.get(place.model)
        self._held_s[place.model] = held_s if old is None else old + SMOOTHING * (held_s - old)
        self._tell(self._lanes.give_back(place))

    def resize(self, sizes: Mapping[str, int]) -> None:
        """Nodes have these many slots for each model; those not named have none. Waiters are planned anew."""
        changed = {name: sizes.get(name, 0) for name in {*self._sizes, *sizes}}
        for node_id, slots in changed.items():
            if self._sizes.get(node_id, 0) != slots:
                self._tell(self._lanes.resize(node_id, slots))
        self._sizes = dict(sizes)

    def replan(self) -> None:
        """The fleet changed: every waiter is planned anew; one whom no place suits any more is refused."""
        for ticket in self._lanes.waiting():
            waiting = self._waiting[ticket]
            places = waiting.replan()
            if places:
                self._tell(self._lanes.replan(ticket, places))
            elif not waiting.granted.done():
                self._lanes.leave(ticket)
                waiting.granted.set_exception(NoNode(f"the last node that could serve {waiting.lane} went away", 10))

    def _retry_after_s(self, lane: str, places: Iterable[Place]) -> int:
        """Seconds after which a slot is likely: those who wait, times the mean time a slot is held, over the slots."""
        held_s = self._held_s.get(lane, 1.0)
        slots = max(1, sum(self._sizes.get(place.node_id, 0) for place in places))
        return min(RETRY_AFTER_LIMIT_S, max(1, round((self._lanes.depth(lane) + 1) * held_s / slots)))

    def depth(self, lane: str) -> int:
        """How many wait in a lane."""
        return self._lanes.depth(lane)

    def depths(self) -> dict[str, int]:
        """How many wait, by model."""
        return self._lanes.depths()

    def in_flight(self) -> dict[str, dict[str, int]]:
        """Slots in use, by node and model."""
        used: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for place, held in self._lanes.in_flight().items():
            used[place.node_id][place.model] = held
        return dict(used)

    def _give_up(self, ticket: int, granted: "asyncio.Future[Place]") -> None:
        self._lanes.leave(ticket)
        if granted.done() and not granted.cancelled() and not granted.exception():
            self._tell(self._lanes.give_back(granted.result()))  # granted in the same moment as it gave up

    def _tell(self, grants: Iterable[Grant]) -> None:
        for grant in grants:
            waiting = self._waiting[grant.ticket]
            if waiting.granted.done():  # cancelled in this very moment: the slot goes on to the next
                self._tell(self._lanes.give_back(grant.place))
            else:
                waiting.granted.set_result(grant.place)
