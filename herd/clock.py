"""One clock a request: unix seconds that never run backwards."""

import time


class Clock:
    """Wall time at its start, then moved on by the monotonic clock, so that differences are durations."""

    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset = time.time() - time.perf_counter()

    def now(self) -> float:
        """Unix seconds."""
        return self._offset + time.perf_counter()
