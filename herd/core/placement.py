"""Which node a management request goes to: one that holds the model, else the one with most room."""

from herd.core.fleet import Fleet, Node

NEEDS_ROOM = frozenset({"/api/pull", "/api/create", "/api/blobs"})


def place(fleet: Fleet, endpoint: str, model: str | None) -> Node | None:
    """The best node for a management request, or None.

    Pull, create and blobs go to the node with the largest memory that is not draining (a fixed choice, since a create
    needs the blobs that were sent before it); all others to a node that holds the model, a loaded one first.
    """
    able = [node for node in fleet.nodes if can_manage(node, endpoint)]
    if endpoint in NEEDS_ROOM:
        roomy = [node for node in able if not node.draining]
        return min(roomy, key=lambda node: (-node.capacity, node.node_id), default=None)
    holders = [node for node in able if model is not None and node.holds(model)]
    return min(holders, key=lambda node: (model not in node.loaded, node.node_id), default=None)


def can_manage(node: Node, endpoint: str) -> bool:
    """Whether a node is there and its engine speaks the endpoint."""
    return node.status != "offline" and node.engine_reachable and endpoint in node.endpoints
