"""Context protection: what to do with a `num_ctx` that would make a node reload a loaded model."""

from collections.abc import Iterable
from typing import Final

from herd.core.events import ContextAction
from herd.core.fleet import Node
from herd.core.request import Request

# A longer context reads more of a text, so that its embedding is another one; of an answer it only bounds the length.
EMBEDDINGS: Final = frozenset({"/api/embed", "/api/embeddings", "/v1/embeddings"})


def protect(request: Request, node: Node, model: str, mode: str, others: Iterable[Node] = ()) -> ContextAction | None:
    """The action for a request about to be sent to a node; None if there is nothing to do.

    `mode` is `strip`, `warn` or `off`; `others` are the fleet's nodes. A num_ctx no larger than the loaded context is
    stripped, since the loaded one suffices (`moved`: another node's is too small, so it was routed here). A larger
    one stays, because the answer may need it, with a warning. Source: Ollama reloads a model whose load options
    differ from the loaded ones, even if they are smaller.
    """
    loaded = node.in_memory(model)
    if mode == "off" or request.num_ctx is None or loaded is None or loaded.context_length is None:
        return None
    fits = request.num_ctx <= loaded.context_length and request.endpoint not in EMBEDDINGS
    narrow = any(_too_narrow(other, model, request.num_ctx) for other in others if other.node_id != node.node_id)
    if fits and narrow:
        action = "moved"
    elif request.num_ctx == loaded.context_length:
        return None
    else:
        action = "stripped" if fits and mode == "strip" else "warned"
    return ContextAction(action, node.node_id, model, request.num_ctx, loaded.context_length)


def loaded_instead(action: ContextAction | None, mode: str) -> int | None:
    """The loaded context that replaces the client's num_ctx in the body; None if it stays."""
    strips = mode == "strip" and action is not None and action.action in {"stripped", "moved"}
    return action.loaded if strips and action else None


def _too_narrow(node: Node, model: str, num_ctx: int) -> bool:
    loaded = node.in_memory(model)
    return loaded is not None and loaded.context_length is not None and loaded.context_length < num_ctx
