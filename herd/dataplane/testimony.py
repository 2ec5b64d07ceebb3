"""What nodes said of one request: an error that two healthy nodes answer alike is the request's own.

Engines call many of their clients' mistakes a failure of their own, in words that change with every version. So no list
of words decides: a node's 5xx is held back from its breaker until another node has been asked.
"""

import re
from dataclasses import replace
from typing import Final

from herd.core import errors
from herd.core.breaker import BreakerState
from herd.core.clock import moment
from herd.core.events import Attempt
from herd.fleet.keeper import Keeper

OWN_WORDS: Final = re.compile(r"\d+|0x[0-9a-f]+")  # ports, sizes, ids: no two nodes have the same

NOT_AGAIN: Final = (b"x-should-retry", b"false")  # OpenAI's clients would send it again on any 5xx


class Testimony:
    """The attempts of one request, each judged once; `settle` judges what is still held at its end."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._held: tuple[Attempt, errors.AttemptError] | None = None

    def hear(self, attempts: tuple[Attempt, ...], error: errors.AttemptError | None) -> errors.AttemptError | None:
        """Take in how the last of the attempts ended; the error that it ended with in the light of the one before."""
        attempt = attempts[-1]
        held, self._held = self._held, None
        if error is None or error.own is None or not self._healthy(attempt):
            self._judge(held)
            self._keeper.attempted(attempt)
            return error
        if held is not None and held[0].model == attempt.model and _alike(held[1], error):
            own = error.own._replace(headers=[*error.own.headers, NOT_AGAIN])
            return errors.Upstream4xx(error.message, error.http_status, own)
        self._judge(held)
        self._held = attempt, error
        return error

    def settle(self) -> None:
        """No other node is asked: what is held counts."""
        held, self._held = self._held, None
        self._judge(held)

    def _judge(self, held: tuple[Attempt, errors.AttemptError] | None) -> None:
        if held is not None:
            self._keeper.attempted(held[0])

    def _healthy(self, attempt: Attempt) -> bool:
        entry = self._keeper.cell.entries.get(attempt.node_id)
        service = entry.services.get(attempt.model) if entry else None
        return service is None or service.breaker.state(moment().tick) is BreakerState.CLOSED


def confirmed(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """The attempts of a request whose last two said the same: neither node is to blame."""
    error_type = errors.Upstream4xx.error_type
    return (*attempts[:-2], *(replace(attempt, error_type=error_type) for attempt in attempts[-2:]))


def _alike(one: errors.AttemptError, other: errors.AttemptError) -> bool:
    said = [(error.http_status, OWN_WORDS.sub("#", error.message.lower())) for error in (one, other)]
    return type(one) is type(other) and said[0] == said[1]
