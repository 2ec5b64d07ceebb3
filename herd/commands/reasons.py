"""Why the node that answered was taken, as a sentence; from what is stored of a request, and nothing else."""

from collections.abc import Mapping
from typing import Any, Final

from herd.core.routing import Reason

Document = Mapping[str, Any]
SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.MODEL_LOADED: "{node} has {model} in memory, and no other candidate has.",
    Reason.LEAST_LOADED: "Several candidates have {model} in memory; {node} leads them by points.",
    Reason.AFFINITY: (
        "Several candidates have {model} in memory; what sets {node} apart is affinity: the model suits the machine, "
        "or its cache holds the beginning of the conversation."
    ),
    Reason.ONLY_CANDIDATE: "{node} is the only node that can take it.",
    Reason.COLD: "No candidate has {model} in memory; {node} can load it best.",
    Reason.RETRY: "The attempt before failed, and {node} is the next of the plan.",
}
FALLBACKS: Final = {
    "loaded_alternative": "{asked} is in no memory, and its fallback {model} is.",
    "model_unavailable": "No node can serve {asked}; {model} is the first of its fallbacks that one can.",
    "retry": "The nodes for {asked} failed or had no slot; {model} is its next fallback.",
}


def reason_sentence(found: Document) -> str:
    """The sentence for a request's document, as `records` give it."""
    names = {"node": found["node_id"], "model": found["model"], "asked": found["original_model"]}
    if not found["decision"]["plan"]:
        return "No node could take the request."
    if not found["node_id"]:
        return "The plan was made, and the request ended before a slot of it came free."
    if found["retry_count"]:
        return SENTENCES[Reason.RETRY].format(**names)
    if found["fallback_used"]:
        return FALLBACKS[found["fallback_reason"]].format(**names)
    first = found["decision"]["plan"][0]
    if (first["node_id"], first["model"]) != (found["node_id"], found["model"]):
        return f"{first['node_id']} has more points and had no free slot; {found['node_id']} is the next that had one."
    return SENTENCES[Reason(found["decision"]["reason"])].format(**names)
