"""Why the node that answered was taken, and others were not: the one place where a decision is put into words.

From the decision and from how the request ended, and nothing else; the page and `herd explain` show it as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from herd.core.routing import Candidate, Decision, Reason, RejectionReason

SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.MODEL_LOADED: "{node} had {model} in memory, and no other candidate had.",
    Reason.LEAST_LOADED: "Several candidates had {model} in memory; {node} cost the least time, its own and others'.",
    Reason.AFFINITY: (
        "Several candidates had {model} in memory; what set {node} apart is affinity: its cache holds the beginning of "
        "the conversation, or it delays others least."
    ),
    Reason.ONLY_CANDIDATE: "{node} was the only node that could take it.",
    Reason.FALLBACK: "{model} answered on {node} instead of {asked}.",
    Reason.RETRY: "The attempt before failed, and {node} was the next of the plan.",
    Reason.COLD: "No candidate had {model} in memory; {node} could load it best.",
}
FALLBACKS: Final[Mapping[str | None, str]] = {
    "loaded_alternative": "{asked} was in no memory, and {model}, which the client named as a fallback, was.",
    "model_unavailable": "No node could serve {asked}; {model} is the first fallback of the client's that one could.",
    "retry": "The nodes for {asked} failed or had no slot; {model} is what the client named next.",
}
LEFT_OUT: Final[Mapping[RejectionReason, str]] = {
    RejectionReason.OFFLINE: "offline",
    RejectionReason.ENGINE_DOWN: "its engine does not answer",
    RejectionReason.ENDPOINT_UNSUPPORTED: "its engine does not speak this endpoint",
    RejectionReason.MODEL_ABSENT: "does not have the model",
    RejectionReason.DRAINING: "draining",
    RejectionReason.BREAKER_OPEN: "its breaker is open",
    RejectionReason.CRITICAL_PRESSURE: "its memory pressure is critical",
    RejectionReason.DOES_NOT_FIT: "the model does not fit into its memory",
    RejectionReason.EXCLUDED: "failed this request already",
}
NOBODY: Final = "No node could take the request."
NO_SLOT: Final = "The plan was made, and the request ended before a slot of it came free."
SECOND: Final = "{first} came first in the plan and had no free slot; {node} was the next that had one."


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended, as its row says: by which node and model, what was asked for, and what came before."""

    node_id: str | None
    model: str | None
    original_model: str | None
    retry_count: int = 0
    fallback_used: bool = False
    fallback_reason: str | None = None


def why(decision: Decision, outcome: Outcome) -> str:
    """The sentences; names stand in them as they are, so whoever shows them shows text."""
    first = decision.plan[0] if decision.plan else None
    sentence = _sentence(decision, outcome)
    told = sentence.format(
        node=outcome.node_id, model=outcome.model, asked=outcome.original_model, first=first and first.node_id
    )
    return " ".join(filter(None, (told, "".join(_in_seconds(decision, outcome)))))


def _in_seconds(decision: Decision, outcome: Outcome) -> Iterator[str]:
    """What was predicted for the node that was taken, and for the best of the others; nothing for rows in points."""
    taken = next((c for c in decision.plan if (c.node_id, c.model) == (outcome.node_id, outcome.model)), None)
    if taken is None or taken.predicted is None:
        return
    yield f"Predicted: {taken.node_id} answers in {_seconds(taken.predicted_ttft_s)}{_mostly(taken)}"
    rival = next((c for c in decision.plan if c.model == taken.model and c is not taken and c.predicted), None)
    if rival is None:
        yield "."
        return
    cost = rival.total - rival.predicted_ttft_s
    if rival.predicted_ttft_s < taken.predicted_ttft_s and rival.total > taken.total and cost > 0:
        yield f"; {rival.node_id} in {_seconds(rival.predicted_ttft_s)}, at {_seconds(cost)} of other requests' time."
    else:
        yield f"; {rival.node_id} would need {_seconds(rival.predicted_ttft_s)}{_mostly(rival)}."


def _mostly(candidate: Candidate) -> str:
    """The part of a prediction that is most of it, where that is not the prompt."""
    assert candidate.predicted is not None
    parts = ((candidate.predicted.load_s, "to load"), (candidate.predicted.queue_s, "to wait for others"))
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
