"""What a request is called in its answer and in all of its records: as its caller says, where that is its alone."""

import re
from collections import OrderedDict

from herd.dataplane.trace_ids import RANDOM

VALID = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
REMEMBERED = 10_000  # ids given by callers; of one that comes again later, the row says so with its span's id


class RequestIds:
    """Gives out ids; the callers' own are taken once."""

    def __init__(self) -> None:
        self._taken: OrderedDict[str, None] = OrderedDict()

    def take(self, asked: str) -> str:
        """The caller's `X-Request-Id` where it is 1 to 64 of `[A-Za-z0-9_.-]` and new, else a new one."""
        if not VALID.fullmatch(asked):
            return RANDOM.digits(32)
        if asked in self._taken:
            # Whoever tries again under the same id would otherwise have two requests that no record can tell apart.
            return f"{asked[:47]}.{RANDOM.digits(16)}"
        self._taken[asked] = None
        if len(self._taken) > REMEMBERED:
            self._taken.popitem(last=False)
        return asked
