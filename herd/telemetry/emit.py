"""The only place where events become records. It never raises, blocks or awaits."""

import logging
from collections.abc import Sequence
from typing import Protocol

from herd.core.events import Event

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Receives every event, ignores those it does not handle, and returns immediately."""

    def take(self, event: Event) -> None:
        """Record the event, or count it as dropped."""


class Emitter:
    """Passes each event to each sink, in order; `failures` counts exceptions raised by sinks."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self.failures = 0

    def __call__(self, event: Event) -> None:
        """Record an event in all sinks."""
        for sink in self._sinks:
            try:
                sink.take(event)
            except Exception:  # law 3: a defect in telemetry must not fail a request
                self.failures += 1
                logger.exception("A telemetry sink raised on %s", type(event).__name__)
