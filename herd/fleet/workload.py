"""What one node has to do, and how fast it was seen to do it; and what the whole fleet is asked for.

It keeps the jobs of `core.prediction` in step with what happens, and makes observations of it for `core.learning`.
Times are unix seconds of a clock that never jumps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import exp
from typing import NamedTuple

from herd.core.events import Attempt, Usage
from herd.core.learning import Length, Machine, Observation, expected_tokens
from herd.core.prediction import IDLE, Job, Pace, Work
from herd.core.request import Request
from herd.core.signals import LATELY_S

DEMAND_S = 600.0  # a request of so long ago counts a third
LEAST_LOAD_S = 0.5  # what an engine calls a load and is shorter is none


class Told(NamedTuple):
    """What an attempt that came to its proper end says of its node."""

    request: Request
    attempt: Attempt
    usage: Usage


@dataclass(slots=True)
class Mark:
    """Where a request began and answered: its moments, and the sum over time of who was at work, up to them."""

    began_at: float
    began_busy: float
    first_at: float | None = None
    first_busy: float = 0.0


@dataclass(slots=True)
class Workload:
    """The jobs of one node, with a mark for each by its ticket; `busy` is the sum over time of who was at work."""

    machine: Machine
    work: Work = IDLE
    busy: float = 0.0
    marks: dict[int, Mark] = field(default_factory=dict)

    def without(self, ticket: int | None, now: float) -> Work:
        """The node's work as it would be without this ticket's own."""
        if ticket is None or ticket not in self.marks:
            return self.work
        return self.work.ended(ticket, now)

    def begun(self, job: Job, ticket: int, now: float) -> None:
        """A request was given to the node, or waits for a slot there."""
        self._move(now)
        self.work = self.work.begun(job._replace(ticket=ticket), now)
        self.marks[ticket] = Mark(now, self.busy)

    def answered(self, ticket: int, now: float) -> None:
        """A request's first content came."""
        if mark := self.marks.get(ticket):
            self._move(now)
            self.work = self.work.answered(ticket, now)
            mark.first_at, mark.first_busy = now, self.busy

    def loaded(self, model: str, now: float) -> None:
        """A model is in memory now."""
        if self.work.jobs:
            self._move(now)
            self.work = self.work.loaded(model, now)

    def ended(self, ticket: int, now: float) -> Mark | None:
        """A request is done with the node, or waits for it no longer; returns where it began."""
        mark = self.marks.pop(ticket, None)
        if mark is not None:
            self._move(now)
            self.work = self.work.ended(ticket, now)
        return mark

    def follow(self, pace: Pace) -> None:
        """Take over how the machine slows with the number of requests at work."""
        if (self.work.prompt_fall, self.work.token_fall) != (pace.prompt_fall, pace.token_fall):
            self.work = replace(self.work, prompt_fall=pace.prompt_fall, token_fall=pace.token_fall)

    def _move(self, now: float) -> None:
        self.busy += max(0.0, now - self.work.as_of) * self.work.at_work


def observed(told: Told, mark: Mark | None, busy: float, unloaded_at: float | None) -> Observation:
    """What an answer says of its node's speeds, by the engine's own times where it gives them."""
    request, attempt, usage = told
    load_s = usage.load_s if usage.load_s and usage.load_s > LEAST_LOAD_S else None
    first_at, ended_at = attempt.first_content_at, attempt.ended_at
    prompt_s, answer_s = usage.prompt_eval_s, usage.eval_s
    if first_at is not None and request.stream:
        prompt_s = max(0.0, first_at - attempt.started_at - (usage.load_s or 0.0))
        answer_s = ended_at - first_at
    beside_prompt = beside_answer = 0.0
    if mark and mark.first_at is not None:
        beside_prompt = _beside(mark.first_busy - mark.began_busy, mark.first_at - mark.began_at - (load_s or 0.0))
        beside_answer = _beside(busy - mark.first_busy, ended_at - mark.first_at)
    return Observation(
        load_s=load_s,
        reload=unloaded_at is not None and attempt.started_at - unloaded_at <= LATELY_S,
        prompt_tokens=(usage.prompt_tokens or 0) - (usage.cached_tokens or 0),
        prompt_s=prompt_s,
        prompt_others=beside_prompt,
        answer_tokens=usage.completion_tokens or 0,
        answer_s=answer_s,
        answer_others=beside_answer,
    )


def _beside(busy: float, seconds: float) -> float:
    """How many others were at work on average."""
    return max(0.0, busy / seconds - 1) if seconds > 0 else 0.0


class Demand:
    """How often each model is asked for, and how long its answers are."""

    def __init__(self) -> None:
        self._rates: dict[str, tuple[float, float]] = {}
        self._lengths: dict[tuple[str, str], Length] = {}

    def asked(self, model: str, now: float) -> None:
        """A request asks for a model."""
        rate, at = self._rates.get(model, (0.0, now))
        self._rates[model] = (rate * exp(-(now - at) / DEMAND_S) + 1 / DEMAND_S, now)

    def rates(self, now: float) -> dict[str, float]:
        """Requests a second for each model, of late."""
        return {model: rate * exp(-(now - at) / DEMAND_S) for model, (rate, at) in self._rates.items()}

    def answered(self, model: str, tags: tuple[str, ...], tokens: int) -> None:
        """An answer had so many tokens."""
        for tag in dict.fromkeys(("", *tags[:1])):
            self._lengths[model, tag] = self._lengths.get((model, tag), NO_LENGTH).after(tokens)

    def lengths(self, request: Request) -> Mapping[str, float]:
        """Tokens to expect of an answer to a request, by model."""
        return {model: self._expected(request, model) for model in request.models}

    def _expected(self, request: Request, model: str) -> float:
        of_tag = self._lengths.get((model, request.tags[0])) if request.tags else None
        return expected_tokens(self._lengths.get((model, ""), NO_LENGTH), of_tag, request.max_tokens)


NO_LENGTH = Length()
