"""What callers have used up: requests of a minute and tokens of a day by key, wrong credentials of a minute by address.

It counts in memory, from the router's start. Days are those of UTC.
"""

from dataclasses import dataclass

from herd.core.access import Caller
from herd.core.errors import AllowanceUsed
from herd.core.events import Event, Finished

MINUTE_S = 60
DAY_S = 86_400
WRONG_A_MINUTE = 10
MOST_ADDRESSES = 1000
LONGEST_RETRY_S = 60  # SDKs give up where they are told to wait longer


@dataclass(slots=True)
class Use:
    """What one key has used in the minute and on the day that it was last used in."""

    minute: int = 0
    requests: int = 0
    day: int = 0
    tokens: int = 0

    def at(self, now: float) -> "Use":
        """Itself, with nothing used where a new minute or day has begun."""
        if self.minute != (minute := int(now // MINUTE_S)):
            self.minute, self.requests = minute, 0
        if self.day != (day := int(now // DAY_S)):
            self.day, self.tokens = day, 0
        return self


class Allowances:
    """Counts what keys use and says when it is enough."""

    def __init__(self) -> None:
        self._uses: dict[str, Use] = {}
        self._wrong: dict[str, tuple[int, int]] = {}

    def use_of(self, key_id: str, now: float) -> Use:
        """What a key has used by now."""
        return self._uses.setdefault(key_id, Use()).at(now)

    def spend(self, caller: Caller, now: float) -> None:
        """Count a request of a key. Raises AllowanceUsed where its key has no more."""
        use, limits = self.use_of(caller.key_id, now), caller.limits
        if 0 < limits.requests_per_minute <= use.requests:
            text = f'"{caller.name}" has used {limits.requests_per_minute} requests this minute'
            raise AllowanceUsed(text, _rest(now, MINUTE_S))
        if 0 < limits.tokens_per_day <= use.tokens:
            text = f'"{caller.name}" has used {use.tokens} tokens of the {limits.tokens_per_day} of this day (UTC)'
            raise AllowanceUsed(text, _rest(now, DAY_S))
        use.requests += 1

    def take(self, event: Event) -> None:
        """Count the tokens of a request that is over; whatever it was, its prompt and its answer were worked on."""
        if isinstance(event, Finished) and event.api_key_id and event.attempts:
            used = (event.usage.prompt_tokens or 0) + (event.usage.completion_tokens or 0)
            self.use_of(event.api_key_id, event.finished_at).tokens += used

    def wrong(self, address: str, now: float) -> None:
        """Count a wrong credential. Raises AllowanceUsed where an address has shown too many of them."""
        minute = int(now // MINUTE_S)
        since, count = self._wrong.get(address, (minute, 0))
        count = count + 1 if since == minute else 1
        if len(self._wrong) >= MOST_ADDRESSES:
            self._wrong.clear()
        self._wrong[address] = minute, count
        if count > WRONG_A_MINUTE:
            text = f"{address} has shown more than {WRONG_A_MINUTE} wrong credentials this minute"
            raise AllowanceUsed(text, _rest(now, MINUTE_S))


def _rest(now: float, length: int) -> int:
    return min(LONGEST_RETRY_S, length - int(now % length))
