"""A task that wakes every 10 ms and records the delay, which all other tasks experience too."""

import asyncio
from collections.abc import Callable

INTERVAL_S = 0.010


class EventLoopCanary:
    """Measures the delay of its event loop; `observe` is called with the seconds."""

    def __init__(self, observe: Callable[[float], None], interval_s: float = INTERVAL_S) -> None:
        self._observe = observe
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start; needs a running event loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="event-loop-canary")

    async def stop(self) -> None:
        """Stop, and wait until it has stopped."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + self._interval_s
            await asyncio.sleep(self._interval_s)
            self._observe(max(0.0, clock() - due))
