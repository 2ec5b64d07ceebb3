"""Small fleets for tests of the core, in the words of the fleet."""

from collections.abc import Mapping
from dataclasses import replace

from herd.core.fleet import Fleet, Loaded, Model, Node, Traffic
from herd.core.request import Dialect, Request
from herd.core.work import Job, Work
from herd.wire import OLLAMA_ENDPOINTS

GIB = 1024**3


def request(model: str = "llama:8b", **changes: object) -> Request:
    return Request(**{"endpoint": "/api/chat", "dialect": Dialect.OLLAMA, "model": model, **changes})


def node(
    node_id: str = "a", holds: dict[str, float] | None = None, loaded: dict[str, int] | None = None, **changes: object
) -> Node:
    """A healthy 64 GiB machine; `holds` is GiB by model, `loaded` the context length of the ones in memory."""
    sizes = {"llama:8b": 5.0} if holds is None else holds
    facts = {
        "url": f"http://127.0.0.1/{node_id}",
        "endpoints": frozenset(OLLAMA_ENDPOINTS),
        "memory_total": 64 * GIB,
        "memory_available": 40 * GIB,
        "models": {name: Model(name, int(size * GIB), 131_072) for name, size in sizes.items()},
        "loaded": {name: Loaded(name, int(sizes[name] * GIB), 0, context) for name, context in (loaded or {}).items()},
    }
    return Node(node_id=node_id, **{**facts, **changes})


def fleet(*nodes: Node, traffic: dict[str, dict[str, Traffic]] | None = None, **known: Mapping[str, object]) -> Fleet:
    return Fleet(at=1000.0, nodes=nodes, traffic=traffic or {}, **known)


def busy(count: int, model: str = "llama:8b", **changes: object) -> Work:
    """The work of a node that answers so many requests, each with two more seconds to go, were it alone."""
    usual = {"prefill_s": 0.2, "answer_s": 2.0, "answered": True}
    return Work(1000.0, tuple(Job(number, model, **{**usual, **changes}) for number in range(count)))


def about(seen: Fleet, models: tuple[str, ...]) -> Fleet:
    """The fleet without what concerns other models: all that a stored decision needs."""
    needed = {node.node_id: seen.needed(node, models) for node in seen.nodes}
    return replace(
        seen,
        nodes=tuple(node.about(needed[node.node_id]) for node in seen.nodes),
        traffic={
            node_id: {model: each for model, each in known.items() if model in needed.get(node_id, models)}
            for node_id, known in seen.traffic.items()
        },
        work={
            node_id: replace(work, jobs=tuple(job._replace(ticket=None) for job in work.jobs))
            for node_id, work in seen.work.items()
            if work.jobs
        },
        answer_tokens={model: tokens for model, tokens in seen.answer_tokens.items() if model in models},
    )
