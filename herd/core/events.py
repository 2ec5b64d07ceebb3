"""Events as frozen values; `telemetry.emit` is the only code that acts on them.

A request ends in exactly one `Finished`; the row, the log line, the metrics and the spans are all made from it.
All times are unix seconds on one clock that never runs backwards within a request.
"""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from herd.core.finding import Episode
from herd.core.fleet import Fleet
from herd.core.request import NOTHING_SAID, Parameters, Request
from herd.core.routing import Candidate, Decision, Policy, Predicted, Reason
from herd.core.value import value


class Status(StrEnum):
    """The final status of a request."""

    COMPLETED = "completed"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    CLIENT_DISCONNECTED = "client_disconnected"
    REJECTED = "rejected"


@value
class TraceIds:
    """W3C ids of a request: 32 and 16 hexadecimal digits; `parent_span_id` is the caller's, if it sent one."""

    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    sampled: bool = True


@value
class Usage:
    """Tokens and engine timings of one answer; `source` is `reported`, `counted` (frames of content) or `missing`."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    source: str = "missing"
    finish_reason: str | None = None
    load_s: float | None = None
    prompt_eval_s: float | None = None
    eval_s: float | None = None


@value
class Attempt:
    """One try at one node; `error_type` is None if it completed. `first_content_at` is on the router's clock."""

    number: int
    node_id: str
    model: str
    url: str
    span_id: str
    started_at: float
    ended_at: float
    http_status: int | None = None
    first_content_at: float | None = None
    error_type: str | None = None
    error_message: str | None = None
    reconnected: bool = False


@value
class ContextAction:
    """The action taken on `num_ctx`: `stripped`, `moved` or `warned`; requested and loaded tokens."""

    action: str
    node_id: str
    model: str
    asked: int
    loaded: int | None = None


@value
class Finished:
    """One request from receipt to end. `http_status` is what the client got, or would have got.

    `predicted` is the prediction of the first decision, including the wait for a slot.
    """

    request_id: str
    ids: TraceIds
    endpoint: str
    original_format: str
    status: Status
    http_status: int
    received_at: float
    finished_at: float
    request: Request | None = None
    fleet: Fleet | None = None
    policy: Policy | None = None
    decision: Decision | None = None
    chosen: Candidate | None = None
    attempts: tuple[Attempt, ...] = ()
    usage: Usage = field(default_factory=Usage)
    error_type: str | None = None
    error_message: str | None = None
    decision_s: float | None = None
    predicted: Predicted | None = None
    queued_at: float | None = None
    admitted_at: float | None = None
    requeued_s: float = 0.0
    first_content_at: float | None = None
    last_content_at: float | None = None
    content_frames: int = 0
    context: ContextAction | None = None
    dropped_tags: int = 0
    parameters: Parameters = NOTHING_SAID
    client_ip: str | None = None
    api_key_id: str | None = None

    @property
    def latency_s(self) -> float:
        """Seconds from receipt to end."""
        return self.finished_at - self.received_at

    @property
    def ttft_s(self) -> float | None:
        """Seconds from receipt to the first content, streams only."""
        if self.first_content_at is None or not (self.request and self.request.stream):
            return None
        return self.first_content_at - self.received_at

    @property
    def time_per_output_token_s(self) -> float | None:
        """Seconds between output tokens: (last - first) / (n - 1), for streams of two tokens or more."""
        tokens = self.usage.completion_tokens or 0
        if self.ttft_s is None or self.last_content_at is None or self.first_content_at is None or tokens < 2:
            return None
        return (self.last_content_at - self.first_content_at) / (tokens - 1)

    @property
    def queue_s(self) -> float:
        """Seconds spent waiting for a slot; `queued_at` is None if one was free, `requeued_s` is before retries."""
        first = 0.0 if self.queued_at is None else (self.admitted_at or self.finished_at) - self.queued_at
        return max(0.0, first) + self.requeued_s

    @property
    def prefill_s(self) -> float | None:
        """Seconds from the start of the last attempt to the first content, minus the load time that the engine reports.

        Measured by the router for streams, else reported by the engine.
        """
        if self.ttft_s is None or self.first_content_at is None or not self.attempts:
            return self.usage.prompt_eval_s
        return max(0.0, self.first_content_at - self.attempts[-1].started_at - (self.usage.load_s or 0.0))

    @property
    def decode_s(self) -> float | None:
        """Seconds from the first content to the last for streams, else reported by the engine."""
        if self.ttft_s is None or self.first_content_at is None or self.last_content_at is None:
            return self.usage.eval_s
        return self.last_content_at - self.first_content_at

    @property
    def upstream_s(self) -> float:
        """Seconds spent in attempts."""
        return sum(attempt.ended_at - attempt.started_at for attempt in self.attempts)

    @property
    def overhead_s(self) -> float:
        """Router overhead in seconds: total minus upstream and queue."""
        return max(0.0, self.latency_s - self.upstream_s - self.queue_s)

    @property
    def retry_count(self) -> int:
        """Attempts beyond the first."""
        return max(0, len(self.attempts) - 1)

    @property
    def model(self) -> str | None:
        """The model that answered or was tried last; the requested model if there was no attempt."""
        if self.chosen:
            return self.chosen.model
        return self.request.model if self.request else None

    @property
    def reason(self) -> Reason | None:
        """Why the node that answered or was tried last was chosen; None if there was none."""
        return self.reason_of(self.attempts[-1]) if self.attempts else None

    def reason_of(self, attempt: Attempt) -> Reason | None:
        """Why the attempt's node was chosen; None if there was no decision."""
        if self.decision is None or self.request is None:
            return None
        if attempt.number > 1:
            return Reason.RETRY
        if any((first.node_id, first.model) == (attempt.node_id, attempt.model) for first in self.decision.plan[:1]):
            return self.decision.reason
        # The first candidate of the plan had no free slot.
        return Reason.LEAST_LOADED if attempt.model == self.request.model else Reason.FALLBACK

    @property
    def fallback_used(self) -> bool:
        """Whether a fallback model was used."""
        return bool(self.chosen and self.request and self.chosen.model != self.request.model)

    @property
    def fallback_reason(self) -> str | None:
        """Why a fallback was used: `loaded_alternative`, `model_unavailable` or `retry`; None if none was."""
        if not self.fallback_used:
            return None
        return (self.decision.fallback_reason if self.decision else None) or "retry"


@value
class AttemptFailed:
    """An attempt failed; `will_retry`: another node is tried; `budget_spent`: the retry budget is used up."""

    request_id: str
    trace_id: str
    attempt: Attempt
    will_retry: bool
    budget_spent: bool = False


@value
class StreamBroken:
    """A stream ended without its end marker."""

    request_id: str
    trace_id: str
    node_id: str
    model: str
    error_type: str
    error_message: str


@value
class ContextProtected:
    """A `num_ctx` was stripped, its request moved, or only a warning logged."""

    request_id: str
    trace_id: str
    action: ContextAction


@value
class FleetChanged:
    """A fleet event at `at`; `kind` is one of `FLEET_EVENTS`, `data` its details."""

    at: float
    kind: str
    node_id: str | None = None
    model: str | None = None
    data: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@value
class NodeSampled:
    """One node's state at `at`, once a minute: the history behind trends and availability."""

    at: float
    node_id: str
    status: str
    cpu: float
    memory_used: int
    memory_total: int
    pressure: str
    models_loaded: tuple[str, ...]
    in_flight: int
    slots: int


@value
class NodeKnown:
    """What a restarted router must know about a node: last heartbeat, its time, and whether it is draining."""

    node_id: str
    heartbeat: Mapping[str, Any]
    last_seen: float
    left: bool = False
    drained: bool = False


@value
class Managed:
    """A management request (pull, delete, show, …) was forwarded to a node; `attempt` is the call, if there was one.

    `endpoint` is the path without its variable parts, `path` the requested one.
    """

    request_id: str
    ids: TraceIds
    endpoint: str
    model: str | None
    node_id: str | None
    http_status: int
    received_at: float
    finished_at: float
    error_type: str | None = None
    error_message: str | None = None
    method: str = "POST"
    path: str | None = None
    client_ip: str | None = None
    attempt: Attempt | None = None


@value
class AccessRefused:
    """A request was refused by access control; `door` and `reason` are from `core.doors`. It is counted, not logged."""

    door: str
    reason: str


@value
class FindingChanged:
    """A health finding at `at`; `change` is opened, seen, resolved, acknowledged or silenced."""

    at: float
    change: str
    episode: Episode


FLEET_EVENTS = (
    "router_started", "router_stopping",
    "node_joined", "node_left", "node_lost", "node_back", "node_degraded", "engine_lost", "engine_back",
    "model_loaded", "model_unloaded", "model_added", "model_removed", "drain_changed", "node_forgotten",
    "fallback", "context_protection", "managed", "breaker_changed",
    "slots_limited", "zombie_reaped", "setting_changed",
    "twin_heard", "clock_jumped",
    "pull_started", "pull_progress", "pull_finished", "pull_failed", "preload", "preload_failed", "door_closed",
    "request_quarantined",
)  # fmt: skip
Event = (
    Finished
    | AttemptFailed
    | StreamBroken
    | ContextProtected
    | FleetChanged
    | NodeSampled
    | NodeKnown
    | Managed
    | AccessRefused
    | FindingChanged
)
