"""A month of traffic that never was: which model on which node for which application, how fast and how it ended.

Everything comes from one seed, so the same numbers give the same rows. Knows no database.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from herd.core.events import Attempt, Finished, Status, TraceIds, Usage
from herd.core.fleet import Fleet, Loaded, Model, Node, Traffic
from herd.core.prediction import Pace
from herd.core.request import Dialect, Request
from herd.core.routing import DEFAULT_POLICY, decide
from herd.store.decision import encode
from herd.wire import OLLAMA_ENDPOINTS

GIB: Final = 1024**3
HOUR_S: Final = 3_600
STATUSES: Final = ("completed", "failed", "incomplete", "client_disconnected", "rejected")
SHARES: Final = (0.962, 0.018, 0.004, 0.01, 0.006)
HTTP: Final = {"completed": 200, "failed": 502, "incomplete": 200, "client_disconnected": 499, "rejected": 503}
ERRORS: Final = {
    "failed": ("upstream_connect", "the node refused the connection"),
    "incomplete": ("upstream_incomplete", "the answer ended before its proper end"),
    "client_disconnected": ("client_disconnected", "the client left"),
    "rejected": ("queue_timeout", "no slot within the time that a request may wait"),
}
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Served:
    """A model: its nodes, the seconds to its first token and from token to token, and its decision as it is stored."""

    name: str
    nodes: tuple[str, ...]
    ttft_s: float
    token_s: float
    decision: str | None


@dataclass(slots=True)
class Month:
    """`rows` requests over `days` before `end` (unix s), sent by `tags` applications to `models` on `nodes`."""

    rows: int
    nodes: int = 10
    models: int = 30
    tags: int = 50
    days: int = 30
    end: float = 0.0
    seed: int = 1
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def requests(self) -> Iterator[Row]:
        """The rows in the order of their receipt, by column name."""
        models = [self._model(number) for number in range(self.models)]
        popular = [1 / (1 + rank) for rank in range(self.models)]
        apps = [self._app(number, models, popular) for number in range(self.tags)]
        weights = [1 / (1 + rank) ** 0.7 for rank in range(self.tags)]
        chosen = self.dice.choices(range(self.tags), weights, k=self.rows)
        ends = self.dice.choices(STATUSES, SHARES, k=self.rows)
        for number, (at, app, status) in enumerate(zip(self._moments(), chosen, ends, strict=True)):
            tag, used = apps[app]
            yield self._row(number, at, status, self.dice.choice(used), tag)

    def node_names(self) -> list[str]:
        """The nodes."""
        return [f"node-{number:02}" for number in range(self.nodes)]

    def _model(self, number: int) -> Served:
        size = self.dice.choice((1, 3, 7, 8, 14, 27, 32, 70))
        name = f"model-{number:02}:{size}b"
        nodes = tuple(sorted(self.dice.sample(self.node_names(), min(self.nodes, self.dice.choice((2, 3, 4))))))
        decision = _decision(name, size, nodes, self.node_names())
        return Served(name, nodes, 0.05 + size / 40, 0.002 + size / 1500, decision)

    def _app(self, number: int, models: list[Served], popular: list[float]) -> tuple[str, list[Served]]:
        used = self.dice.choices(models, popular, k=self.dice.choice((1, 2, 3, 4)))
        return f"app-{number:02}", used

    def _moments(self) -> Iterator[float]:
        """Moments of receipt: more by day than by night, fewer at the weekend."""
        first = self.end - self.days * 24 * HOUR_S
        hours = [first + HOUR_S * number for number in range(self.days * 24)]
        weights = [_busy(hour) for hour in hours]
        total, passed, given = sum(weights), 0.0, 0
        for hour, weight in zip(hours, weights, strict=True):
            passed += weight
            upto = round(self.rows * passed / total)
            yield from sorted(hour + HOUR_S * self.dice.random() for _ in range(upto - given))
            given = upto

    def _row(self, number: int, at: float, status: str, model: Served, tag: str) -> Row:
        dice = self.dice
        stream, cold = dice.random() < 0.7, dice.random() < 0.01
        answered = status != "rejected"
        load_s = 4 + 30 * dice.random() if cold else 0.0
        queue_s = dice.expovariate(0.5) if dice.random() < 0.08 else 0.0
        ttft_s = queue_s + load_s + model.ttft_s * dice.lognormvariate(0, 0.5)
        token_s = model.token_s * dice.lognormvariate(0, 0.2)
        tokens = int(dice.lognormvariate(5, 0.9)) + 2 if status == "completed" else 0
        total_s = ttft_s + token_s * tokens
        error_type, error_message = ERRORS.get(status, (None, None))
        retried, fell_back = dice.random() < 0.02, dice.random() < 0.01
        tags = dice.choices((None, f'["{tag}"]', f'["{tag}","team-a"]'), (0.05, 0.75, 0.2))[0]
        return {
            "request_id": f"{number:012x}{dice.getrandbits(80):020x}",
            "trace_id": f"{dice.getrandbits(128):032x}",
            "span_id": f"{dice.getrandbits(64):016x}",
            "timestamp": at,
            "finished_at": at + total_s,
            "endpoint": "/api/chat",
            "original_format": "ollama",
            "model": model.name,
            "original_model": "model-00:70b" if fell_back and answered else model.name,
            "node_id": dice.choice(model.nodes) if answered else None,
            "score": round(dice.uniform(20, 110), 2) if answered else None,
            "scores_breakdown": SCORES if answered else None,
            "status": status,
            "http_status": HTTP[status],
            "error_type": error_type,
            "error_message": error_message,
            "finish_reason": "stop" if status == "completed" else None,
            "stream": int(stream),
            "latency_ms": round(total_s * 1000, 3),
            "time_to_first_token_ms": round(ttft_s * 1000, 3) if stream and answered else None,
            "time_per_output_token_ms": round(token_s * 1000, 3) if stream and tokens else None,
            "queue_ms": round(queue_s * 1000, 3),
            "decision_ms": round(dice.lognormvariate(-2, 0.3), 3),
            "overhead_ms": round(dice.lognormvariate(0.2, 0.5), 3),
            "load_ms": round(load_s * 1000, 3) if cold else 12.5,
            **_parts(queue_s, load_s, ttft_s, token_s * tokens, model.ttft_s),
            "prompt_tokens": int(dice.lognormvariate(6, 1)) if answered else None,
            "completion_tokens": tokens if answered else None,
            "cached_tokens": number % 400 if answered else None,
            "reasoning_tokens": None,
            "tokens_source": "reported" if answered else "missing",
            "retry_count": int(retried),
            "fallback_used": int(fell_back and answered),
            "fallback_reason": "loaded_alternative" if fell_back and answered else None,
            "excluded_nodes": None,
            "tags": tags,
            "client_ip": "127.0.0.1",
            "api_key_id": None,
            "decision": model.decision if answered else None,
        }


def _parts(queue_s: float, load_s: float, ttft_s: float, decode_s: float, usual_s: float) -> dict[str, float]:
    seen = {"prefill_ms": ttft_s - queue_s - load_s, "decode_ms": decode_s}
    predicted = {"predicted_ttft_ms": usual_s, "predicted_queue_ms": 0.0, "predicted_load_ms": 0.0,
                 "predicted_prefill_ms": usual_s, "predicted_decode_ms": decode_s}  # fmt: skip
    return {name: round(seconds * 1000, 3) for name, seconds in {**seen, **predicted}.items()}


SCORES: Final = (
    '{"thermal":50.0,"memory_fit":12.5,"queue_depth":-2.5,"wait_time":-1.19,"role_affinity":11.0,'
    '"availability_trend":9.6,"context_fit":15.0,"total":94.41}'
)


def _busy(hour: float) -> float:
    clock, day = hour / HOUR_S % 24, int(hour / (24 * HOUR_S)) % 7
    return (1.2 - math.cos((clock - 3) / 24 * 2 * math.pi)) * (0.4 if day in {2, 3} else 1.0)


def _decision(model: str, size: int, holders: tuple[str, ...], names: list[str]) -> str | None:
    """A stored decision of the size that such a fleet's have."""
    bytes_ = size * GIB * 6 // 10
    nodes = tuple(
        Node(
            name, f"http://{name}:11434", endpoints=frozenset(OLLAMA_ENDPOINTS), memory_total=64 * GIB,
            memory_available=40 * GIB, models={model: Model(model, bytes_, 131_072)} if name in holders else {},
            loaded={model: Loaded(model, bytes_, 0, 8192, 1e9)} if name == holders[0] else {},
        )
        for name in names
    )  # fmt: skip
    asked = Request("/api/chat", Dialect.OLLAMA, model, stream=True, prompt_tokens=400)
    fleet = Fleet(1e9, nodes, {name: {model: Traffic(pace=Pace())} for name in holders})
    decision = decide(asked, fleet)
    attempt = Attempt(1, holders[0], model, f"http://{holders[0]}:11434", "0" * 16, 1e9, 1e9 + 1)
    return encode(
        Finished(
            "r", TraceIds("0" * 32, "0" * 16), "/api/chat", "ollama", Status.COMPLETED, 200, 1e9, 1e9 + 1, asked, fleet,
            DEFAULT_POLICY, decision, decision.plan[0], (attempt,), Usage(400, 100, source="reported"),
        )
    )  # fmt: skip
