"""Requests that kill the nodes that work on them: which body did, how often in a row, and until when it is refused.

Pure: the moment is given, in seconds of a clock that never jumps. A request is known by the digest of its body.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

MOST = 1000  # bodies remembered; the oldest goes first
MEMORY_S = 600.0  # deaths that lie further apart have nothing to do with each other


class Death(NamedTuple):
    """A node whose connection was lost while it worked on a request, which began there at `began` and ended at `at`."""

    node_id: str
    model: str
    request_id: str
    began: float
    at: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """A body on which nodes died, one after the other without an answer in between; `until` it is refused."""

    digest: str
    deaths: tuple[Death, ...]
    until: float | None = None


def digest_of(body: bytes) -> str:
    """The digest under which a body is suspected."""
    return blake2b(body, digest_size=16).hexdigest()


class Quarantine:
    """The bodies that are suspected, by digest."""

    def __init__(self) -> None:
        self._suspects: dict[str, Suspect] = {}

    def __bool__(self) -> bool:
        return bool(self._suspects)

    def died(self, digest: str, death: Death, most: int, hold_s: float) -> Suspect:
        """A node died on this body. The `most`-th death in a row has it refused for `hold_s` seconds.

        When one node dies, all requests that it worked on lose it, and each is sent on. So a death counts only where
        the attempt began after the one before it: who was somewhere else at that time is a bystander.
        """
        before = self._suspects.pop(digest, None) or Suspect(digest, ())
        deaths = tuple(each for each in before.deaths if death.at - each.at < MEMORY_S)
        if not deaths or death.began >= deaths[-1].at:
            deaths += (death,)
        until = death.at + hold_s if hold_s and len(deaths) >= most else before.until
        found = self._suspects[digest] = Suspect(digest, deaths[-most:], until)
        while len(self._suspects) > MOST:
            del self._suspects[next(iter(self._suspects))]
        return found

    def answered(self, digest: str) -> bool:
        """A node answered this body, so that it was not the body; whether it was suspected."""
        return self._suspects.pop(digest, None) is not None

    def held(self, digest: str, now: float) -> Suspect | None:
        """The suspect, if this body is refused now."""
        found = self._suspects.get(digest)
        return found if found is not None and found.until is not None and now < found.until else None

    def view(self, now: float) -> Iterator[Suspect]:
        """All that are refused now, those that have been for longest first."""
        return (found for digest in self._suspects if (found := self.held(digest, now)))
