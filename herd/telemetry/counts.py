"""What the log and the spans tell of themselves, as frozen values; whoever only adds these up imports no library."""

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from herd.core.value import value


@value
class LogStats:
    """Lines written, by level, and lines lost; `disposed` events and lines, in their order, are one or the other."""

    lines: Mapping[str, int] = field(default_factory=dict)
    dropped: int = 0
    disposed: int = 0


@value
class SpanStats:
    """Spans that the collector took, and spans that were lost; `disposed` events, in their order, have none waiting."""

    exported: int = 0
    dropped: int = 0
    disposed: int = 0


NO_LINES: Final = LogStats()
NO_SPANS: Final = SpanStats()
