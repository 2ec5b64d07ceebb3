"""W3C trace context: ids made, read from `traceparent`, and written to it. Standard library only, a few microseconds.

A header that does not keep to the standard is as good as none: a request never fails for it.
"""

import os
import re

from herd.core.events import TraceIds

# Version 00 has exactly these four fields; a later version may carry more behind them; version ff is forbidden.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.A)
LONGEST_HEADER = 256
DRAWN_BYTES = 4096


class Randomness:
    """Random hexadecimal digits from the operating system, drawn many at a time: a system call for each id adds up.

    Not `random`: a seeded generator would give two routers the same ids.
    """

    def __init__(self) -> None:
        self._drawn = ""
        self._used = 0

    def digits(self, count: int) -> str:
        """So many digits, not all of them zero."""
        end = self._used + count
        if end > len(self._drawn):
            self._drawn, self._used, end = os.urandom(DRAWN_BYTES).hex(), 0, count
        found = self._drawn[self._used : end]
        self._used = end
        return found if found.strip("0") else self.digits(count)


RANDOM = Randomness()


def new_ids(traceparent: str | None = None) -> TraceIds:
    """The ids of a request: in the caller's trace if it sent a valid `traceparent`, else in a new one."""
    found = _parsed(traceparent) if traceparent else None
    if found is None:
        return TraceIds(trace_id=RANDOM.digits(32), span_id=new_span_id())
    trace_id, parent_span_id, flags = found
    return TraceIds(trace_id, new_span_id(), parent_span_id, sampled=bool(int(flags, 16) & 1))


def new_span_id() -> str:
    """16 hexadecimal digits, not all zero."""
    return RANDOM.digits(16)


def traceparent(ids: TraceIds, span_id: str) -> str:
    """The header that makes a span of this trace the parent of what a node records."""
    return f"00-{ids.trace_id}-{span_id}-{'01' if ids.sampled else '00'}"


def traceresponse(ids: TraceIds) -> str:
    """The header that tells the caller which span its request was."""
    return traceparent(ids, ids.span_id)


def _parsed(header: str) -> tuple[str, str, str] | None:
    match = TRACEPARENT.fullmatch(header.strip()) if len(header) <= LONGEST_HEADER else None
    if match is None or (match[4] is not None and header.strip().startswith("00")):
        return None
    return match[1], match[2], match[3]
