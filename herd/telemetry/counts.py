"""Counts of log lines and spans as frozen values, importable without any telemetry library."""

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from herd.core.value import value


@value
class LogStats:
    """Lines written, by level, and lines lost; the first `disposed` events and lines are one or the other."""

    lines: Mapping[str, int] = field(default_factory=dict)
    dropped: int = 0
    disposed: int = 0


@value
class SpanStats:
    """Spans accepted by the collector, and spans lost; the first `disposed` events have no spans waiting."""

    exported: int = 0
    dropped: int = 0
    disposed: int = 0


NO_LINES: Final = LogStats()
NO_SPANS: Final = SpanStats()
