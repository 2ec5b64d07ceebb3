"""Two clocks: unix seconds for records, the monotonic clock for durations.

A wall clock can be set, stepped by NTP, or jump when a laptop wakes, so it never measures durations or deadlines.
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
        """The moment this many seconds later."""
        return Moment(self.at + seconds, self.tick + seconds)


def moment() -> Moment:
    """Now, with the event loop's monotonic clock, which deadlines use."""
    return Moment(time.time(), asyncio.get_running_loop().time())


class Clock:
    """A request's clock: wall time at its start plus a monotonic clock, so differences are durations."""

    __slots__ = ("_offset", "_tick")

    def __init__(self, tick: Callable[[], float] = time.perf_counter) -> None:
        self._tick = tick
        self._offset = time.time() - tick()

    def now(self) -> float:
        """Unix seconds that never run backwards."""
        return self._offset + self._tick()
