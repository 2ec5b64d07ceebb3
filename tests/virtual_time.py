"""An event loop whose clock jumps to the next timer when nothing else is to be done: an hour passes in no time.

What runs in an executor runs at once, in the loop's thread, so that no timer overtakes it. Sockets work, but time does
not wait for them: a test over loopback belongs on a usual loop.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

START = 1000.0


class NothingMoves(Exception):
    """Nothing is ready, no timer is set, and nobody does anything: the loop would wait for ever."""


class _Selector(selectors.DefaultSelector):
    """Looks what is ready without waiting; the time that it should have waited has then passed."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else self.loop.patience_s)
        if not ready and timeout is None:
            raise NothingMoves
        if not ready and timeout:
            self.loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`now` is its time in seconds; `patience_s` of real time are given to other threads where no timer is set."""

    def __init__(self, patience_s: float = 5.0) -> None:
        selector = _Selector()
        selector.loop = self
        self.now, self.patience_s = START, patience_s
        super().__init__(selector)

    def time(self) -> float:
        """The virtual time."""
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Run it now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever awaits the future gets it, as from an executor
            future.set_exception(error)
        return future
