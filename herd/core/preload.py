"""Which models to preload and keep loaded: recently requested models, where they fit.

It never makes an engine unload one model for another, and never fills a memory to its end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from herd.core.fleet import Fleet, Node
from herd.core.request import Dialect, Request
from herd.core.routing import rejection, score
from herd.core.signals import GIB, Case, outlook

ENDPOINT = "/api/generate"  # without a prompt it only loads the model
LEAST_DEMAND = 3.0  # as much as three requests of the last hour, or six of yesterday's: less is chance
HEADROOM = 0.10  # of the memory that models live in stays free
# What a loaded model takes is known only afterwards: weights, context for every slot, buffers. This is more than usual.
SIZE_FACTOR, SIZE_EXTRA = 1.25, 2 * GIB
MOST_LOADED = 3  # what Ollama keeps loaded where nothing else is said; with one more it would unload another


@dataclass(frozen=True, slots=True)
class Load:
    """A model to load or keep loaded on a node, and its demand."""

    node: Node
    model: str
    demand: float


def asked_about(models: tuple[str, ...]) -> Request:
    """The request to take a fleet's snapshot for, so that it has the traffic of these models (at least one)."""
    return Request(ENDPOINT, Dialect.OLLAMA, models[0], fallback_models=models[1:])


def to_load(
    fleet: Fleet, demand: Mapping[str, float], avoid: frozenset[tuple[str, str]] = frozenset()
) -> tuple[Load, ...]:
    """The models to load now, by demand; at most one per node, since its memory use is only known afterwards.

    `demand` is weighted requests by model, `avoid` pairs of node and model that lately failed to load. A model that is
    warm on a node that takes requests is left as it is.
    """
    loads: dict[str, Load] = {}
    for model, weight in _wanted(demand):
        cases = [Case.of(asked_about((model,)), model, node, fleet) for node in fleet.nodes]
        if any(_serves(case.node) and case.warm for case in cases):
            continue
        able = [case for case in cases if (case.node.node_id, model) not in avoid and may_load(case)]
        best = min(able, key=lambda case: (score(outlook(case)).total, case.node.node_id), default=None)
        if best and best.node.node_id not in loads:
            loads[best.node.node_id] = Load(best.node, model, weight)
    return tuple(loads.values())


def to_keep(fleet: Fleet, demand: Mapping[str, float], within_s: float) -> tuple[Load, ...]:
    """Loaded models in demand that would be unloaded within this many seconds, each where it would stay longest.

    To unload it and load it again would cost a minute's disk and leave a gap in which requests wait.
    """
    kept = []
    for model, weight in _wanted(demand):
        holders = [node for node in fleet.nodes if _serves(node) and node.in_memory(model)]
        last = max(holders, key=lambda node: (_expires(node, model), node.node_id), default=None)
        if last and last.pressure == "normal" and _expires(last, model) < fleet.at + within_s:
            kept.append(Load(last, model, weight))
    return tuple(kept)


def may_load(case: Case) -> bool:
    """Whether a node can and should load a model now, with room to spare and without evicting another."""
    node, size = case.node, case.node.size_of(case.model)
    left = node.free - int(size * SIZE_FACTOR) - SIZE_EXTRA
    return (
        rejection(case) is None
        and _serves(node)
        and node.pressure == "normal"
        and size > 0
        and len(node.loaded) < MOST_LOADED
        and not _is_loading(case)
        and left >= HEADROOM * node.capacity
    )


def _is_loading(case: Case) -> bool:
    """Whether a load is in progress, whose memory is not in the node's figures yet."""
    return any(not case.node.in_memory(model) for model in case.work.held)


def _serves(node: Node) -> bool:
    return node.status == "online" and node.engine_reachable and not node.draining


def _expires(node: Node, model: str) -> float:
    loaded = node.in_memory(model)
    return inf if loaded is None or loaded.expires_at is None else loaded.expires_at


def _wanted(demand: Mapping[str, float]) -> list[tuple[str, float]]:
    enough = ((model, weight) for model, weight in demand.items() if weight >= LEAST_DEMAND)
    return sorted(enough, key=lambda wanted: (-wanted[1], wanted[0]))
