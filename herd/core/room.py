"""How many bytes of request bodies are in memory at once, over all requests, and how many may be.

Pure. Reading a body takes about three times its bytes more; the limit leaves space for that.
"""

from collections.abc import Callable
from typing import Final

from herd.core.errors import NoRoom

LEAST: Final = 256 * 2**20
SHARE: Final = 4  # a quarter of the machine's memory
RETRY_S: Final = 5  # bodies are handed on, and given back, as fast as nodes answer


class Room:
    """A number of bytes that is taken and given back; `refused` is called where there is not enough."""

    def __init__(self, limit: int, refused: Callable[[], None] = lambda: None) -> None:
        self.limit = limit
        self.taken = 0
        self._refused = refused

    @classmethod
    def of(cls, memory: int, refused: Callable[[], None]) -> "Room":
        """The room on a machine with so many bytes of memory."""
        return cls(max(LEAST, memory // SHARE), refused)

    def take(self, size: int) -> None:
        """Take so many more; raises NoRoom, and takes nothing then."""
        if self.taken + size > self.limit:
            self._refused()
            taken, limit = self.taken >> 20, self.limit >> 20
            raise NoRoom(f"request bodies take {taken} MiB of the {limit} MiB that they may take together", RETRY_S)
        self.taken += size

    def give_back(self, size: int) -> None:
        """These bytes are free again."""
        self.taken -= size
