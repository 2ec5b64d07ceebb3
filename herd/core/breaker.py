"""Circuit breakers: keep requests for a model away from a node where it keeps failing. One state per node and model.

Closed lets all requests through, open none until its time is over, half-open one probe. Only failures that are the
node's fault count, not client errors or disconnects.
"""

from dataclasses import replace
from enum import StrEnum

from herd.core.value import value

CONSECUTIVE_FAILURES = 5
WINDOW, WINDOW_FAILURES = 20, 10
FIRST_OPEN_S, LONGEST_OPEN_S = 5.0, 60.0
FAULTS_OF_THE_NODE = frozenset({"connect", "connection_lost", "connect_timeout", "first_byte_timeout", "stall_timeout",
                                "upstream_5xx", "stream_aborted", "bad_response"})  # fmt: skip


class BreakerState(StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@value
class Breaker:
    """The outcomes of the last attempts (True: failed), and until when the breaker is open (unix seconds)."""

    recent: tuple[bool, ...] = ()
    open_until: float | None = None
    open_s: float = FIRST_OPEN_S

    def state(self, now: float) -> BreakerState:
        """The current state."""
        if self.open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.open_until else BreakerState.HALF_OPEN

    def blocks(self, now: float, in_flight: int) -> bool:
        """Whether further requests are blocked; when half-open, while the probe is in progress."""
        state = self.state(now)
        return state is BreakerState.OPEN or (state is BreakerState.HALF_OPEN and in_flight > 0)

    def after(self, error_type: str | None, now: float) -> "Breaker":
        """The breaker after an attempt with this error, or without one."""
        if error_type is not None and error_type not in FAULTS_OF_THE_NODE:
            return self
        if self.open_until is not None and now >= self.open_until:  # the probe decides
            longer = min(LONGEST_OPEN_S, self.open_s * 2)
            return Breaker() if error_type is None else replace(self, open_until=now + longer, open_s=longer)
        recent = (*self.recent, error_type is not None)[-WINDOW:]
        failing = len(recent) >= CONSECUTIVE_FAILURES and all(recent[-CONSECUTIVE_FAILURES:])
        if self.open_until is None and (failing or sum(recent) >= WINDOW_FAILURES):
            return Breaker(recent, now + self.open_s, self.open_s)
        return Breaker(recent, self.open_until, self.open_s)
