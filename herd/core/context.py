"""What to do about a `num_ctx` that would make a node reload a loaded model: the one rule of context protection."""

from herd.core.events import ContextAction
from herd.core.fleet import Node
from herd.core.request import Request


def protect(request: Request, node: Node, model: str, mode: str) -> ContextAction | None:
    """The action for a request about to go to a node; None where there is nothing to do or to say.

    `mode` is `strip`, `warn` or `off`. A num_ctx no larger than the loaded context is stripped (the loaded one
    serves it as well); a larger one stays, since the answer may need it, and is warned about. Source: Ollama reloads
    a model whose load options differ from the loaded ones.
    """
    loaded = node.loaded.get(model)
    if mode == "off" or request.num_ctx is None or loaded is None or loaded.context_length is None:
        return None
    if request.num_ctx == loaded.context_length:
        return None
    fits = request.num_ctx < loaded.context_length
    action = "stripped" if fits and mode == "strip" else "warned"
    return ContextAction(action, node.node_id, model, request.num_ctx, loaded.context_length)
