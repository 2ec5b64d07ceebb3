"""Demand on the fleet: how often each model is requested, and how long its answers are. Times are unix seconds."""

from collections.abc import Iterable, Mapping
from math import exp
from typing import Final, TypeVar

from herd.core.learning import Length, expected_tokens
from herd.core.request import Request

DEMAND_S: Final = 600.0  # a request this long ago counts a third
MOST_NAMES: Final = 1000  # clients can send any name; beyond this limit the least recently requested is dropped
NO_LENGTH: Final = Length()
Name = TypeVar("Name")
Value = TypeVar("Value")


class Demand:
    """Request rates and answer lengths by model."""

    def __init__(self) -> None:
        self._rates: dict[str, tuple[float, float]] = {}
        self._lengths: dict[tuple[str, str], Length] = {}

    def asked(self, model: str, now: float) -> None:
        """Record a request for a model."""
        rate, at = self._rates.pop(model, (0.0, now))
        _keep(self._rates, model, (_faded(rate, at, now) + 1 / DEMAND_S, now))

    def rates(self, now: float, models: Iterable[str]) -> dict[str, float]:
        """Recent requests per second for each of these models, if any."""
        known = ((model, self._rates[model]) for model in models if model in self._rates)
        return {model: _faded(rate, at, now) for model, (rate, at) in known}

    def answered(self, model: str, tags: tuple[str, ...], tokens: int) -> None:
        """Record the length of an answer."""
        for tag in dict.fromkeys(("", *tags[:1])):
            before = self._lengths.pop((model, tag), NO_LENGTH)
            _keep(self._lengths, (model, tag), before.after(tokens))

    def lengths(self, request: Request) -> Mapping[str, float]:
        """Expected answer tokens of a request, by model."""
        return {model: self._expected(request, model) for model in request.models}

    def _expected(self, request: Request, model: str) -> float:
        of_tag = self._lengths.get((model, request.tags[0])) if request.tags else None
        return expected_tokens(self._lengths.get((model, ""), NO_LENGTH), of_tag, request.max_tokens)


def _faded(rate: float, at: float, now: float) -> float:
    return rate * exp(-(now - at) / DEMAND_S)


def _keep(known: dict[Name, Value], name: Name, value: Value) -> None:
    """Insert a name as the newest, and drop the oldest if there are too many."""
    known[name] = value
    if len(known) > MOST_NAMES:
        del known[next(iter(known))]
