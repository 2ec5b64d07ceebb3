"""Which node a model management request goes to: one that has the model, or for a pull the one with the most room.

What a node has no room for is said here too, in words for people.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from herd.core.fleet import Fleet, Node
from herd.core.signals import GIB, KV_SHARE

PULL = "/api/pull"
CREATE = "/api/create"
NEEDS_ROOM = frozenset({PULL, CREATE, "/api/blobs"})
DISK_FLOOR = 5 * GIB  # stays free on a node's disk after automatic pulls
NOTHING: Mapping[str, int] = MappingProxyType({})


def place(fleet: Fleet, endpoint: str, model: str | None, source: str | None = None) -> Node | None:
    """The best node for a management request, or None.

    A pull goes to the node with the best room. Create and blobs go to the node with the largest memory that is not
    draining (a fixed choice, since a create needs the blobs that were sent before it), and so does a pull where none
    has room for sure: its engine says what is wrong. A create from a model that a node holds (`source`) goes there,
    for elsewhere Ollama would fetch that model from its library. All others go to a node
    that holds the model, a loaded one first.
    """
    able = [node for node in fleet.nodes if can_manage(node, endpoint)]
    holders = _holders(able, source if endpoint == CREATE else model)
    if endpoint in NEEDS_ROOM and not (endpoint == CREATE and holders):
        roomy = [node for node in able if not node.draining]
        largest = min(roomy, key=lambda node: (-node.capacity, node.node_id), default=None)
        return (best_room(fleet) if endpoint == PULL else None) or largest
    return holders[0] if holders else None


def all_holders(fleet: Fleet, endpoint: str, model: str) -> list[Node]:
    """The nodes that have a model and can manage it, those with it loaded first."""
    return _holders([node for node in fleet.nodes if can_manage(node, endpoint)], model)


def _holders(nodes: Iterable[Node], model: str | None) -> list[Node]:
    """The nodes that have a model, those with it loaded first."""
    holders = [node for node in nodes if model is not None and node.holds(model)]
    return sorted(holders, key=lambda node: (model not in node.loaded, node.node_id))


def can_manage(node: Node, endpoint: str) -> bool:
    """Whether a node is online and its engine supports the endpoint."""
    return node.status != "offline" and node.engine_reachable and endpoint in node.endpoints


def best_room(fleet: Fleet, expected: Mapping[str, int] = NOTHING) -> Node | None:
    """The node that could take the largest model, or None if none should take any.

    `expected` is what pulls in progress will still write, in bytes by node.
    """
    able = [node for node in fleet.nodes if obstacle(node, expected.get(node.node_id, 0)) is None]
    return max(
        sorted(able, key=lambda node: node.node_id),
        key=lambda node: (_largest(node, expected.get(node.node_id, 0)), node.disk_free),
        default=None,
    )


def obstacle(node: Node, expected: int = 0) -> str | None:
    """Why a node should take no new model, however small, or None. A disk of unknown size counts as full."""
    for applies, words in (
        (node.status != "online", f"it is {node.status}"),
        (not can_manage(node, PULL), "its engine does not pull models"),
        (node.draining, "it is draining"),
        (node.pressure == "critical", "critical memory pressure"),
        (_disk_room(node, expected) <= 0, f"its disk has less than {_gib(DISK_FLOOR)} free"),
    ):
        if applies:
            return words
    return None


def no_room(node: Node, total: int, completed: int = 0, expected: int = 0) -> str | None:
    """Why a model of `total` bytes (`completed` of them present) does not fit a node's disk or memory, or None."""
    disk, memory = _disk_room(node, expected), _memory_room(node)
    if total - completed > disk:
        return (
            f"its {_gib(total)} do not fit the disk of {node.node_id}, which has {_gib(node.disk_free)} free, "
            f"of which {_gib(DISK_FLOOR + expected)} are spoken for"
        )
    if memory is not None and total * (1 + KV_SHARE) > memory:
        return f"its {_gib(total)} do not fit the memory of {node.node_id}, where models can have {_gib(memory)}"
    return None


def _largest(node: Node, expected: int) -> float:
    """Bytes of the largest model that the node could both keep and load."""
    disk, memory = _disk_room(node, expected), _memory_room(node)
    return disk if memory is None else min(disk, memory / (1 + KV_SHARE))


def _disk_room(node: Node, expected: int) -> int:
    return node.disk_free - DISK_FLOOR - expected


def _memory_room(node: Node) -> int | None:
    """Bytes available to one model with all others unloaded; None if unknown."""
    if not node.memory_total:
        return None
    return node.vram_free + node.memory_available + sum(other.size_bytes for other in node.loaded.values())


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
