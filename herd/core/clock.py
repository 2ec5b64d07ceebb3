"""The two clocks: unix seconds for people and records, the monotonic clock for durations; kept apart on purpose.

A wall clock is set, stepped by NTP and jumps when a laptop wakes, so no duration and no patience is measured by it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple


class Moment(NamedTuple):
    """One moment on both clocks: `at` in unix seconds, `tick` in seconds of the monotonic clock."""

    at: float
    tick: float

    def after(self, seconds: float) -> "Moment":
        """The moment that is so many seconds later."""
        return Moment(self.at + seconds, self.tick + seconds)


def moment() -> Moment:
    """This moment, on the running event loop's monotonic clock: the one by which deadlines are kept."""
    return Moment(time.time(), asyncio.get_running_loop().time())


class Clock:
    """One clock a request: wall time at its start, moved on by a monotonic clock, `tick`: differences are durations."""

    __slots__ = ("_offset", "_tick")

    def __init__(self, tick: Callable[[], float] = time.perf_counter) -> None:
        self._tick = tick
        self._offset = time.time() - tick()

    def now(self) -> float:
        """Unix seconds that never run backwards."""
        return self._offset + self._tick()
