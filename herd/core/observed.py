"""The node's speeds seen in a finished request: from the engine's times, else from the router's measurements."""

from dataclasses import dataclass
from typing import NamedTuple

from herd.core.events import Attempt, Usage
from herd.core.learning import Observation
from herd.core.request import Request
from herd.core.signals import LATELY_S

LEAST_LOAD_S = 0.5  # a shorter reported load is not a load
LEAST_TOKEN_S = 0.0002  # no engine writes faster: an answer that seems to was held back, as tool calls are, to its end


class Told(NamedTuple):
    """A completed attempt and its node's report."""

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


def observed(told: Told, mark: Mark | None, busy: float, unloaded_at: float | None) -> Observation:
    """The speeds seen in an answer, from the engine's own times if reported."""
    request, attempt, usage = told
    load_s = usage.load_s if usage.load_s and usage.load_s > LEAST_LOAD_S else None
    first_at, ended_at = attempt.first_content_at, attempt.ended_at
    prompt_s, answer_s = usage.prompt_eval_s, usage.eval_s
    if first_at is not None and request.stream and not in_one_piece(usage.completion_tokens, ended_at - first_at):
        prompt_s = max(0.0, first_at - attempt.started_at - (usage.load_s or 0.0))
        answer_s = ended_at - first_at
    beside_prompt = beside_answer = 0.0
    if mark and mark.first_at is not None:
        beside_prompt = _beside(mark.first_busy - mark.began_busy, mark.first_at - mark.began_at - (load_s or 0.0))
        beside_answer = _beside(busy - mark.first_busy, ended_at - mark.first_at)
    return Observation(
        load_s=load_s,
        reload=unloaded_at is not None and attempt.started_at - unloaded_at <= LATELY_S,
        prompt_tokens=worked_on(request.prompt_tokens, usage.prompt_tokens or 0, usage.cached_tokens or 0),
        prompt_s=prompt_s,
        prompt_others=beside_prompt,
        answer_tokens=usage.completion_tokens or 0,
        answer_s=answer_s,
        answer_others=beside_answer,
    )


def worked_on(estimate: int, tokens: int, cached: int) -> int:
    """Uncached prompt tokens, in the units of `Request.prompt_tokens`.

    `tokens` and `cached` are the engine's counts, 0 where it gave none. Predictions know only the estimate, and a
    tokenizer may make four times as many tokens of the same text, so speeds are learned per estimated token.
    """
    return round((estimate or tokens) * max(0, tokens - cached) / tokens) if tokens else 0


def in_one_piece(tokens: int | None, seconds: float) -> bool:
    """Whether an answer came too fast to have been written meanwhile: then its stream tells nothing of speeds."""
    return seconds < ((tokens or 0) - 1) * LEAST_TOKEN_S


def _beside(busy: float, seconds: float) -> float:
    """Average number of other requests in progress."""
    return max(0.0, busy / seconds - 1) if seconds > 0 else 0.0
