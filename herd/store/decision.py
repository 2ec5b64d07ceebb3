"""The stored decision: what `decide` saw and what it said, as JSON from which it can be decided again.

Version 2 is in seconds. A text of version 1 has points: it is read and shown as what it is, and not decided again.
Knows the text's shape and version, not where it is kept. Plain code instead of a schema library: a model's name may
hold a lone surrogate, which those refuse, and floats must come back as they were.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, cast

from herd.core.events import Finished
from herd.core.fleet import Fleet, Loaded, Model, Node, Traffic
from herd.core.prediction import Pace
from herd.core.request import Dialect, Request
from herd.core.routing import (
    DEFAULT_POLICY,
    Candidate,
    Decision,
    Policy,
    Predicted,
    Reason,
    Rejection,
    RejectionReason,
    decide,
)
from herd.core.work import Job, Work

VERSION: Final = 2
UNITS: Final[Mapping[int, str]] = {1: "points", 2: "seconds"}

# Values that are left out of the text. They belong to the version, not to the dataclasses: a default that changes there
# must not change what an old row says.
_UNSAID: Final[Mapping[type, Mapping[str, Any]]] = {
    Request: {
        "stream": False, "fallback_models": (), "tags": (), "prompt_tokens": 0, "max_tokens": None, "num_ctx": None,
        "prefix": (), "client": "",
    },
    Node: {
        "status": "online", "engine": "ollama", "engine_reachable": True, "draining": False, "throttled": False,
        "pressure": "normal", "vram_total": 0, "vram_free": 0, "disk_free": 0, "models": {}, "loaded": {},
        "same_as": {}, "uptime": 1.0, "losses": 0,
    },
    Model: {"context_length": None},
    Loaded: {"vram_bytes": 0, "context_length": None, "expires_at": None},
    Traffic: {"slots": None, "pace": None, "unloaded_at": None, "breaker_open": False},
    Pace: {"measured": True},
    Work: {"jobs": (), "clock": 0.0, "floor": 0.0},
    Policy: {"salt": 0},
    Candidate: {"warm": False, "predicted": None, "evicts": ()},
    Rejection: {}, Decision: {},
}  # fmt: skip
_UNSET: Final = object()
MOST_TEXTS: Final = 4096
T = TypeVar("T")
_SIMPLE: Final = frozenset({str, int, float, bool, type(None), dict})
_json: Final = json.JSONEncoder(separators=(",", ":")).encode
_FIELDS: Final = {
    kind: tuple((field.name, unsaid.get(field.name, _UNSET)) for field in fields(kind) if field.init)
    for kind, unsaid in _UNSAID.items()
}


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """What a row's `decision` holds; `fleet` knows only the listings that the request's models needed."""

    request: Request
    fleet: Fleet
    policy: Policy
    decision: Decision
    version: int = VERSION

    @property
    def unit(self) -> str:
        """What its numbers are: seconds of which less is better, or points of which more was."""
        return UNITS[self.version]


def encode(finished: Finished) -> str | None:
    """The text for a row, ASCII only; None where the request ended before anything was decided."""
    if finished.request is None or finished.fleet is None or finished.decision is None:
        return None
    request = finished.request
    parts = {
        "version": str(VERSION),
        # Without its chain of hashes, which is long, and told in the fleet: what each node had of it.
        "request": _json(_plain(replace(request, prefix=()))),
        "fleet": _fleet_out(finished.fleet, request.models),
        "policy": _policy_out(finished.policy or DEFAULT_POLICY),
        "decision": _json(_plain(finished.decision)),
    }
    return _object(parts)


def decode(text: str) -> StoredDecision:
    """The values that were encoded; ValueError where the text is of an unknown version or not whole."""
    stored = json.loads(text)
    version = stored.get("version") if isinstance(stored, dict) else None
    if not isinstance(version, int) or version not in UNITS:
        raise ValueError(f"the stored decision has version {version!r}; this herd reads versions up to {VERSION}")
    try:
        return StoredDecision(
            _request_in(stored["request"]),
            _fleet_in(stored["fleet"], version),
            Policy(**stored["policy"]),
            _decision_in(stored["decision"]),
            version,
        )
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"the stored decision is incomplete: {error!r}") from error


def replay(stored: StoredDecision) -> Decision:
    """What `decide` says today of what was stored.

    The nodes that an earlier attempt had failed on stand among the rejected. One that was rejected for another reason
    instead was rejected before it came to that, and would be again.
    """
    failed = frozenset(entry.node_id for entry in stored.decision.rejected if entry.reason is RejectionReason.EXCLUDED)
    return decide(stored.request, stored.fleet, stored.policy, failed)


def agrees(stored: StoredDecision) -> bool:
    """Whether a replay gives the decision that was stored; one in points is taken at its word."""
    return stored.version != VERSION or replay(stored) == stored.decision


def _plain(value: Any) -> Any:
    known = _FIELDS.get(type(value))
    if known is not None:
        told = {}
        for name, unsaid in known:
            found = getattr(value, name)
            if found != unsaid:
                told[name] = found if type(found) in _SIMPLE else _plain(found)
        return told
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _object(parts: Mapping[str, str]) -> str:
    """A JSON object of values that are JSON already."""
    return "{" + ",".join(f'"{name}":{text}' for name, text in parts.items()) + "}"


def _fleet_out(fleet: Fleet, models: tuple[str, ...]) -> str:
    # Nodes of one kind speak the same endpoints: the sets stand once, and nodes name them by number.
    numbers: dict[frozenset[str], int] = {}
    nodes, needed = [], {node.node_id: fleet.needed(node, models) for node in fleet.nodes}
    for node in fleet.nodes:
        head, tail = _node_out(_Identical(node), needed[node.node_id])
        nodes.append(f"{head}{numbers.setdefault(node.endpoints, len(numbers))}{tail}")
    traffic = {
        node_id: _named({name: _TRAFFIC.of(each) for name, each in seen.items() if name in needed.get(node_id, models)})
        for node_id, seen in fleet.traffic.items()
    }
    return _object({
        "at": _json(fleet.at),
        "nodes": f"[{','.join(nodes)}]",
        "endpoint_sets": _json([sorted(names) for names in numbers]),
        "traffic": _named(traffic),
        "work": _named({node_id: _work_out(work) for node_id, work in fleet.work.items() if work.jobs}),
        "cached": _json(dict(fleet.cached)),
        "answer_tokens": _json({model: tokens for model, tokens in fleet.answer_tokens.items() if model in models}),
        "demand": _json(dict(fleet.demand)),
    })  # fmt: skip


def _work_out(work: Work) -> str:
    """A node's work, without the tickets of those who have it."""
    told = _json(_plain(replace(work, jobs=())))
    return f'{told[:-1]},"jobs":[{",".join(_JOB.of_all(work.jobs))}]}}'


def _named(parts: Mapping[str, str]) -> str:
    """The same as `_object`, of names that anybody chose."""
    return "{" + ",".join(f"{_json(name)}:{text}" for name, text in parts.items()) + "}"


@lru_cache(maxsize=16)
def _policy_out(policy: Policy) -> str:
    return _json(_plain(policy))


class _Texts(Generic[T]):
    """The texts of values that many decisions share: found by which object it is, since comparing costs as much.

    The value is held, so that no other takes its place.
    """

    def __init__(self, make: Callable[[T], str]) -> None:
        self._make = make
        self._known: dict[int, str] = {}
        self._held: list[T] = []

    def of(self, value: T) -> str:
        """The text of one."""
        text = self._known.get(id(value))
        if text is None:
            if len(self._held) >= MOST_TEXTS:
                self._known.clear()
                self._held.clear()
            text = self._known[id(value)] = self._make(value)
            self._held.append(value)
        return text

    def of_all(self, values: tuple[T, ...]) -> list[str]:
        """The texts of many, most of which are known."""
        found = list(map(self._known.get, map(id, values)))
        return [self.of(value) for value in values] if None in found else cast(list[str], found)


_TRAFFIC: Final[_Texts[Traffic]] = _Texts(lambda traffic: _json(_plain(traffic)))
_JOB: Final[_Texts[Job]] = _Texts(lambda job: _json([None, *job[1:]]))


class _Identical:
    """A node as a key: the same object, not an equal one, whose comparison would cost more than its text."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node

    def __hash__(self) -> int:
        return id(self.node)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identical) and other.node is self.node


@lru_cache(maxsize=256)
def _node_out(which: _Identical, models: tuple[str, ...]) -> tuple[str, str]:
    """A node with its listings of these models, around the number of its endpoints; the same for many requests."""
    out: dict[str, Any] = _plain(which.node.about(models))
    del out["endpoints"]
    for listing in ("models", "loaded"):
        if listing in out:
            out[listing] = {name: _plain(model) for name, model in out[listing].items()}
    return _json(out)[:-1] + ',"endpoints":', "}"


def _request_in(data: dict[str, Any]) -> Request:
    told = {**_UNSAID[Request], **data}
    told["dialect"] = Dialect(told["dialect"])
    told["fallback_models"] = tuple(told["fallback_models"])
    told["tags"] = tuple(told["tags"])
    told["prefix"] = ()
    return Request(**told)


def _fleet_in(data: dict[str, Any], version: int) -> Fleet:
    sets = [frozenset(names) for names in data["endpoint_sets"]]
    nodes = tuple(_node_in(node, sets) for node in data["nodes"])
    if version < VERSION:  # what was known of traffic then is nothing that could be decided with now
        return Fleet(data["at"], nodes)
    return Fleet(
        at=data["at"],
        nodes=nodes,
        traffic={
            node_id: {model: _traffic_in(seen) for model, seen in models.items()}
            for node_id, models in data["traffic"].items()
        },
        work={
            node_id: Work(**{**_UNSAID[Work], **work, "jobs": tuple(_job_in(job) for job in work.get("jobs", ()))})
            for node_id, work in data["work"].items()
        },
        cached=data["cached"],
        answer_tokens=data["answer_tokens"],
        demand=data["demand"],
    )


def _traffic_in(data: dict[str, Any]) -> Traffic:
    told = {**_UNSAID[Traffic], **data}
    if told["pace"] is not None:
        told["pace"] = Pace(**{**_UNSAID[Pace], **told["pace"]})
    return Traffic(**told)


def _job_in(data: list[Any]) -> Job:
    job = Job(*data)
    return job._replace(victims=tuple(job.victims))


def _node_in(data: dict[str, Any], sets: list[frozenset[str]]) -> Node:
    told = {**_UNSAID[Node], **data}
    told.pop("busy_usually", None)  # rows from before nobody read it
    told["endpoints"] = sets[told["endpoints"]]
    told["models"] = {key: Model(**{**_UNSAID[Model], **model}) for key, model in told["models"].items()}
    told["loaded"] = {key: Loaded(**{**_UNSAID[Loaded], **model}) for key, model in told["loaded"].items()}
    return Node(**told)


def _decision_in(data: dict[str, Any]) -> Decision:
    return Decision(
        plan=tuple(_candidate_in(candidate) for candidate in data["plan"]),
        rejected=tuple(
            Rejection(entry["node_id"], entry["model"], RejectionReason(entry["reason"])) for entry in data["rejected"]
        ),
        reason=Reason(data["reason"]) if data["reason"] is not None else None,
        fallback_reason=data["fallback_reason"],
    )


def _candidate_in(data: dict[str, Any]) -> Candidate:
    told = {**_UNSAID[Candidate], **data}
    told["evicts"] = tuple(told["evicts"])
    told["predicted"] = None if told["predicted"] is None else Predicted(*told["predicted"])
    return Candidate(**told)
