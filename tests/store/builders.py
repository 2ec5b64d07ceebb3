"""Events for tests: whole, consistent, and different from their usual selves only where a test says so."""

from dataclasses import replace
from itertools import count
from typing import Any

from herd.core.events import Attempt, Finished, NodeSampled, Status, TraceIds, Usage
from herd.core.fleet import Fleet, Loaded, Model, Node, Traffic
from herd.core.prediction import Pace
from herd.core.request import Dialect, Request
from herd.core.routing import DEFAULT_POLICY, decide
from herd.core.work import Job, Work
from herd.wire import OLLAMA_ENDPOINTS

GIB = 1024**3
NOON = 1_767_787_200.0  # a Wednesday, 12:00 UTC
PACE = Pace(2.5, 1.25, 0.04, 0.000123456789, 0.0123, 0.5, 0.2)
_numbers = count(1)


def node(node_id: str = "ada", models: tuple[str, ...] = ("llama3.2:3b",), **changes: Any) -> Node:
    """A machine of 32 GiB that has the models on disk, and the first of them in memory."""
    usual = Node(
        node_id=node_id,
        url=f"http://{node_id}:11434",
        endpoints=frozenset(OLLAMA_ENDPOINTS),
        memory_total=32 * GIB,
        memory_available=20 * GIB,
        models={name: Model(name, 2 * GIB, 131_072) for name in models},
        loaded={name: Loaded(name, 3 * GIB, 0, 8192, NOON + 300) for name in models[:1]},
        uptime=0.98,
    )
    return replace(usual, **changes)


def fleet(*nodes: Node, models: tuple[str, ...] = ("llama3.2:3b",), at: float = NOON) -> Fleet:
    """Those nodes (else two), with a little traffic."""
    there = nodes or (node("ada"), node("bob", loaded={}))
    traffic = {each.node_id: {name: Traffic(pace=PACE) for name in models} for each in there}
    work = {each.node_id: Work(at - 0.25, (Job(None, models[0], 0.123456789, 2.0),)) for each in there[:1]}
    return Fleet(at, there, traffic, work, answer_tokens=dict.fromkeys(models, 180.0))


def request(model: str = "llama3.2:3b", **changes: Any) -> Request:
    """A streamed chat."""
    return replace(Request("/api/chat", Dialect.OLLAMA, model, stream=True, prompt_tokens=20), **changes)


def finished(
    request_id: str | None = None,
    *,
    at: float = NOON,
    model: str = "llama3.2:3b",
    served: str | None = None,
    node_id: str = "ada",
    status: Status = Status.COMPLETED,
    latency_s: float = 1.5,
    ttft_s: float | None = 0.25,
    tags: tuple[str, ...] = (),
    tokens: tuple[int | None, int | None] = (20, 40),
    attempts: int = 1,
    asked: Request | None = None,
    seen: Fleet | None = None,
    **changes: Any,
) -> Finished:
    """A request that `node_id` answered with `served` (else `model`); all but the last attempt failed to connect."""
    number = next(_numbers)
    served = served or model
    names = tuple(dict.fromkeys((model, served)))
    asked = asked or request(model, fallback_models=names[1:], tags=tags)
    seen = seen or fleet(node(node_id, (served,)), node("other", names, loaded={}), models=names, at=at)
    decision = decide(asked, seen)
    chosen = next((entry for entry in decision.plan if (entry.node_id, entry.model) == (node_id, served)), None)
    first = None if ttft_s is None else at + ttft_s
    made = Finished(
        request_id=request_id or f"r{number:08d}",
        ids=TraceIds(f"{number:032x}", f"{number:016x}"),
        endpoint=asked.endpoint,
        original_format=asked.dialect.value,
        status=status,
        http_status=200 if status is Status.COMPLETED else 502,
        received_at=at,
        finished_at=at + latency_s,
        request=asked,
        fleet=seen,
        policy=DEFAULT_POLICY,
        decision=decision,
        chosen=chosen,
        predicted=chosen.predicted if chosen else None,
        attempts=tuple(_attempt(number, turn, attempts, node_id, served, at, latency_s, first)
                       for turn in range(1, attempts + 1)),
        usage=Usage(tokens[0], tokens[1], source="reported", finish_reason="stop"),
        decision_s=0.0002,
        first_content_at=first,
        last_content_at=None if first is None else at + latency_s,
        client_ip="127.0.0.1",
    )  # fmt: skip
    return replace(made, **changes)


def failed(request_id: str | None = None, **changes: Any) -> Finished:
    """A request that no node could answer."""
    usual: dict[str, Any] = {
        "status": Status.FAILED, "error_type": "connect", "error_message": "ada refused the connection",
        "ttft_s": None, "tokens": (None, None),
    }  # fmt: skip
    return finished(request_id, **{**usual, **changes})


def refused(request_id: str | None = None, at: float = NOON) -> Finished:
    """A request whose body was no JSON: no model, no node, nothing decided."""
    number = next(_numbers)
    return Finished(
        request_id or f"r{number:08d}", TraceIds(f"{number:032x}", f"{number:016x}"), "/api/chat", "ollama",
        Status.REJECTED, 400, at, at + 0.001, error_type="bad_request", error_message="the body is not JSON",
    )  # fmt: skip


def sample(node_id: str = "ada", at: float = NOON, status: str = "online", in_flight: int = 1) -> NodeSampled:
    """A node of four slots at one minute."""
    return NodeSampled(at, node_id, status, 0.25, 12 * GIB, 32 * GIB, "normal", ("llama3.2:3b",), in_flight, 4)


def _attempt(
    number: int, turn: int, of: int, node_id: str, model: str, at: float, latency_s: float, first: float | None
) -> Attempt:
    last = turn == of
    share = latency_s / of
    return Attempt(
        number=turn,
        node_id=node_id if last else f"lost{turn}",
        model=model,
        url=f"http://{node_id}:11434",
        span_id=f"{number * 16 + turn:016x}",
        started_at=at + share * (turn - 1),
        ended_at=at + share * turn,
        http_status=200 if last else None,
        first_content_at=first if last else None,
        error_type=None if last else "connect",
        error_message=None if last else "connection refused",
    )
