"""How many connections each address has. It counts and picks; closing them is the caller's."""

from collections.abc import Callable
from typing import Generic, TypeVar

C = TypeVar("C")


class Crowd(Generic[C]):
    """The open connections by address, at most `limit` of one; `idle_until` is None for one that is at work."""

    def __init__(self, limit: int, idle_until: Callable[[C], float | None]) -> None:
        self._limit = limit
        self._idle_until = idle_until
        self._by_address: dict[str, set[C]] = {}

    def admit(self, address: str, connection: C) -> tuple[bool, C | None]:
        """Whether there is room for one more, and the connection to close for it: the one that is idle longest."""
        there = self._by_address.setdefault(address, set())
        idlest = self._idlest(there) if len(there) >= self._limit else None
        if len(there) >= self._limit and idlest is None:
            return False, None
        if idlest is not None:
            there.discard(idlest)
        there.add(connection)
        return True, idlest

    def leave(self, address: str, connection: C) -> None:
        """A connection is gone; one that was never admitted may leave, too."""
        there = self._by_address.get(address)
        if there is None:
            return
        there.discard(connection)
        if not there:
            del self._by_address[address]

    def _idlest(self, there: set[C]) -> C | None:
        idle = [(until, each) for each in there if (until := self._idle_until(each)) is not None]
        return min(idle, key=lambda pair: pair[0])[1] if idle else None
