"""The requests under way: which phase each has reached, which are stuck, and their end when the router stops."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from herd.core import errors
from herd.dataplane.client import Client
from herd.dataplane.phases import Attempted, Phase, Reading

P = TypeVar("P", bound=Phase)
STOPPING, STOPPING_RETRY_S = "the router is stopping", 5
STOPPED = "the router stopped before the answer was whole"
REAP_AFTER_S = 5.0  # how long past its own limit a request may stay before it is ended from outside
LAST_WORDS_S = 1.0  # what requests that are ended at the router's stop get to tell their clients


@dataclass(slots=True, eq=False)
class Flight:
    """One request under way: its client, and the last phase that it reached.

    `due_at` is the event loop's time by which it must have moved on; None where something else sees to that.
    `trying`: an attempt goes on now, and `reading` gives what was read of its answer.
    """

    client: Client
    phase: Phase
    due_at: float | None = None
    retrying: bool = False
    trying: bool = False
    reading: Callable[[], Reading] = Reading

    def reach(self, phase: P) -> P:
        """The request has come to this phase."""
        self.phase = phase
        return phase

    @property
    def request_id(self) -> str:
        """The request's name in all of its records."""
        return self.phase.received.request_id


class Flights:
    """Every request between its first byte and its Finished event."""

    def __init__(self) -> None:
        self._under_way: set[Flight] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._under_way)

    def __iter__(self) -> Iterator[Flight]:
        return iter(tuple(self._under_way))

    def add(self, flight: Flight) -> None:
        """A request begins."""
        self._under_way.add(flight)
        self._idle.clear()

    def remove(self, flight: Flight) -> None:
        """A request has ended."""
        self._under_way.remove(flight)
        if not self._under_way:
            self._idle.set()

    def retrying(self) -> int:
        """How many of them are being tried again."""
        return sum(flight.retrying for flight in self._under_way)

    def oldest(self) -> float | None:
        """When the oldest of them was received, in unix seconds; None where there is none."""
        return min((flight.phase.received.at for flight in self._under_way), default=None)

    def cancel(self, request_id: str) -> bool:
        """End a request on the operator's behalf; False where none of that id is under way, or it is ending already."""
        error = "an operator cancelled the request"
        return any(flight.client.end(errors.Cancelled(error)) for flight in self if flight.request_id == request_id)

    def reap(self, now: float) -> list[Flight]:
        """End the requests that did not move on by the limit that holds where they are; returns them."""
        stuck = []
        for flight in self:
            overdue = flight.due_at is not None and now > flight.due_at + REAP_AFTER_S
            if overdue and flight.client.end(errors.Stuck("nothing moved for longer than any limit allows")):
                stuck.append(flight)
        return stuck

    def strike(self, unfit: Callable[[str], str | None]) -> None:
        """End the requests of keys that are no longer good; `unfit` says why, by a key's id."""
        for flight in self:
            key_id = flight.phase.received.caller.key_id
            if key_id and (why := unfit(key_id)):
                flight.client.end(errors.Unauthorized(why))

    async def drain(self, grace_s: float) -> None:
        """Wait until no request is under way; after `grace_s` end those that are left."""
        if await self._emptied(grace_s):
            return
        for flight in self:
            flight.client.end(stopped(flight.phase))
        await self._emptied(LAST_WORDS_S)

    async def _emptied(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


def stopped(phase: Phase) -> errors.HerdError:
    """How the router's stop ends a request: as a failure only where a node has had it."""
    if isinstance(phase, Attempted):
        return errors.Internal(STOPPED)
    return errors.NoNode(STOPPING, STOPPING_RETRY_S)
