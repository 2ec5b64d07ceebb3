"""A bounded queue and its worker thread, so that recording never waits for a disk or a network.

It knows nothing of what it carries. `put` returns at once: what does not fit is counted, not waited for.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")
BATCH = 256
# What a defect in a worker can raise. The thread outlives it, because a dead thread would lose every later record too.
DEFECTS = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class _Mark:
    """A marker in the queue behind earlier items; `last` stops the thread."""

    last: bool = False
    reached: threading.Event = field(default_factory=threading.Event)


class Backlog(Generic[T]):
    """Takes items from any thread and hands them, in order, to `work` on its own; `after` ends each batch.

    `dropped` adds up the `weight` of what was refused (queue full or closed) and of what `work` raised on.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[T], None],
        after: Callable[[], None] = lambda: None,
        weight: Callable[[T], int] = lambda _: 1,
        capacity: int = 10_000,
    ) -> None:
        self._work = work
        self._after = after
        self._weight = weight
        self._capacity = capacity
        self._queue: SimpleQueue[T | _Mark] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._failed = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> bool:
        """Enqueue an item; False if it was dropped."""
        if self._closed or self._queue.qsize() >= self._capacity:
            self._drop(item)
            return False
        self._queue.put(item)
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until all items put before this call are processed; False after `timeout` seconds."""
        if not self._thread.is_alive():
            return True
        mark = _Mark()
        self._queue.put(mark)
        return mark.reached.wait(timeout)

    def close(self, timeout: float) -> bool:
        """Accept no more items, process the rest, stop the thread; False after `timeout` seconds."""
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._queue.put(_Mark(last=True))
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _drop(self, item: T) -> None:
        with self._lock:
            self.dropped += self._weight(item)

    def _run(self) -> None:
        mark = None
        while mark is None or not mark.last:
            items, mark = self._next()
            for item in items:
                self._work_off(item)
            if items:
                self._after()
            if mark:
                mark.reached.set()

    def _work_off(self, item: T) -> None:
        try:
            self._work(item)
        except DEFECTS:
            self._drop(item)
            if not self._failed:  # said once: where the log is what fails, each line about it would fail again
                self._failed = True
                logger.exception("%s could not work off a %s", self._thread.name, type(item).__name__)

    def _next(self) -> tuple[list[T], _Mark | None]:
        """The waiting items, up to a batch or the next marker; blocks until there is one."""
        items: list[T] = []
        entry = self._queue.get()
        while not isinstance(entry, _Mark):
            items.append(entry)
            if len(items) >= BATCH:
                return items, None
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return items, None
        return items, entry
