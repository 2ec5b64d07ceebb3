"""Explains a decision in words: why the node that answered was chosen, and others were not.

Depends only on the decision and the request's outcome; the page and `herd explain` show the text unchanged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from herd.core.routing import Candidate, Decision, Reason, RejectionReason

SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.MODEL_LOADED: "{node} was the only candidate with {model} loaded.",
    Reason.LEAST_LOADED: "Several candidates had {model} loaded; {node} had the lowest total cost in time.",
    Reason.AFFINITY: (
        "Several candidates had {model} loaded; {node} won by affinity: its cache holds the beginning of the "
        "conversation, or it delays other requests least."
    ),
    Reason.ONLY_CANDIDATE: "{node} was the only node that could take the request.",
    Reason.FALLBACK: "{model} answered on {node} instead of {asked}.",
    Reason.RETRY: "The previous attempt failed, and {node} was next in the plan.",
    Reason.COLD: "No candidate had {model} loaded; {node} was the best place to load it.",
}
FALLBACKS: Final[Mapping[str | None, str]] = {
    "loaded_alternative": "{asked} was not loaded anywhere; the client's fallback {model} was.",
    "model_unavailable": "No node could serve {asked}; {model} is the client's first fallback that a node could serve.",
    "retry": "The nodes for {asked} failed or had no slot; {model} is the client's next fallback.",
}
LEFT_OUT: Final[Mapping[RejectionReason, str]] = {
    RejectionReason.OFFLINE: "offline",
    RejectionReason.ENGINE_DOWN: "engine unreachable",
    RejectionReason.ENDPOINT_UNSUPPORTED: "engine does not support this endpoint",
    RejectionReason.MODEL_ABSENT: "does not have the model",
    RejectionReason.DRAINING: "draining",
    RejectionReason.BREAKER_OPEN: "circuit breaker open",
    RejectionReason.CRITICAL_PRESSURE: "critical memory pressure",
    RejectionReason.DOES_NOT_FIT: "model does not fit in memory",
    RejectionReason.EXCLUDED: "already failed this request",
}
NOBODY: Final = "No node could take the request."
NO_SLOT: Final = "The request ended before any node in the plan had a free slot."
SECOND: Final = "{first} was first in the plan but had no free slot; {node} was the next with one."


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request's outcome as in its row: node, served and requested model, retries, fallback."""

    node_id: str | None
    model: str | None
    original_model: str | None
    retry_count: int = 0
    fallback_used: bool = False
    fallback_reason: str | None = None


def why(decision: Decision, outcome: Outcome) -> str:
    """The explanation as plain text; names in it are not escaped."""
    first = decision.plan[0] if decision.plan else None
    sentence = _sentence(decision, outcome)
    told = sentence.format(
        node=outcome.node_id, model=outcome.model, asked=outcome.original_model, first=first and first.node_id
    )
    return " ".join(filter(None, (told, "".join(_in_seconds(decision, outcome)))))


def _in_seconds(decision: Decision, outcome: Outcome) -> Iterator[str]:
    """The prediction for the chosen node and for the best other one; nothing for rows in points."""
    taken = next((c for c in decision.plan if (c.node_id, c.model) == (outcome.node_id, outcome.model)), None)
    if taken is None or taken.predicted is None:
        return
    yield f"Predicted time to first token: {_seconds(taken.predicted_ttft_s)} on {taken.node_id}{_mostly(taken)}"
    rival = next((c for c in decision.plan if c.model == taken.model and c is not taken and c.predicted), None)
    if rival is None:
        yield "."
        return
    cost = rival.total - rival.predicted_ttft_s
    if rival.predicted_ttft_s < taken.predicted_ttft_s and rival.total > taken.total and cost > 0:
        yield f"; {_seconds(rival.predicted_ttft_s)} on {rival.node_id}, delaying other requests by {_seconds(cost)}."
    else:
        yield f"; {_seconds(rival.predicted_ttft_s)} on {rival.node_id}{_mostly(rival)}."


def _mostly(candidate: Candidate) -> str:
    """The largest part of a prediction, unless it is the prompt."""
    assert candidate.predicted is not None
    parts = ((candidate.predicted.load_s, "load"), (candidate.predicted.queue_s, "queue"))
    seconds, words = max(parts)
    return f", of which {_seconds(seconds)} {words}" if seconds > candidate.predicted.prefill_s else ""


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"


def _sentence(decision: Decision, outcome: Outcome) -> str:
    if not decision.plan or decision.reason is None:
        return NOBODY
    if not outcome.node_id:
        return NO_SLOT
    if outcome.retry_count:
        return SENTENCES[Reason.RETRY]
    if outcome.fallback_used:
        return FALLBACKS.get(outcome.fallback_reason, SENTENCES[Reason.FALLBACK])
    first = decision.plan[0]
    if (first.node_id, first.model) != (outcome.node_id, outcome.model):
        return SECOND
    return SENTENCES[decision.reason]
