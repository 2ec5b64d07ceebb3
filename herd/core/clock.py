"""The two clocks: unix seconds for people and records, the monotonic clock for durations; kept apart on purpose.

A wall clock is set, stepped by NTP and jumps when a laptop wakes, so no duration and no patience is measured by it.
"""

import time
from typing import NamedTuple


class Moment(NamedTuple):
    """One moment on both clocks: `at` in unix seconds, `tick` in seconds of the monotonic clock."""

    at: float
    tick: float

    def after(self, seconds: float) -> "Moment":
        """The moment that is so many seconds later."""
        return Moment(self.at + seconds, self.tick + seconds)


def moment() -> Moment:
    """This moment."""
    return Moment(time.time(), time.perf_counter())


class Clock:
    """One clock a request: wall time at its start, moved on by the monotonic clock: differences are durations."""

    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset = time.time() - time.perf_counter()

    def now(self) -> float:
        """Unix seconds that never run backwards."""
        return self._offset + time.perf_counter()
