"""The requests that are under way: counted, found when stuck, and ended in order when the router stops."""

import asyncio
from collections.abc import Iterator

from herd import errors
from herd.dataplane.client import Client
from herd.dataplane.life import Life

STOPPING, STOPPING_RETRY_S = "the router is stopping", 5
STOPPED = "the router stopped before the answer was whole"
REAP_AFTER_S = 5.0  # how long past its own limit a request may stay before it is ended from outside
LAST_WORDS_S = 1.0  # what requests that are ended at the router's stop get to tell their clients


class Flights:
    """Every request between its first byte and its Finished event, by request_id."""

    def __init__(self) -> None:
        self._under_way: dict[str, tuple[Life, Client]] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._under_way)

    def __iter__(self) -> Iterator[Life]:
        return (life for life, _ in self._under_way.values())

    def add(self, life: Life, client: Client) -> None:
        """A request begins."""
        self._under_way[life.request_id] = (life, client)
        self._idle.clear()

    def remove(self, life: Life) -> None:
        """A request has ended."""
        del self._under_way[life.request_id]
        if not self._under_way:
            self._idle.set()

    def reap(self) -> list[Life]:
        """End the requests that did not move on by the limit that holds where they are; returns them."""
        stuck = []
        for life, client in tuple(self._under_way.values()):
            overdue = life.due_at is not None and life.clock.now() > life.due_at + REAP_AFTER_S
            if overdue and client.end(errors.Stuck("nothing moved for longer than any limit allows")):
                stuck.append(life)
        return stuck

    async def drain(self, grace_s: float) -> None:
        """Wait until no request is under way; after `grace_s` end those that are left."""
        if await self._emptied(grace_s):
            return
        for life, client in tuple(self._under_way.values()):
            client.end(stopped(life))
        await self._emptied(LAST_WORDS_S)

    async def _emptied(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


def stopped(life: Life) -> errors.HerdError:
    """How the router's stop ends a request: as a failure only where a node has had it."""
    return errors.Internal(STOPPED) if life.attempts else errors.NoNode(STOPPING, STOPPING_RETRY_S)
