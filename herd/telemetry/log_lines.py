"""What each event says in the log. Pure: an event in, a line out; how lines are written is not known here.

A user's strings stand only as values, under keys that are fixed here.
"""

from collections.abc import Mapping
from types import MappingProxyType

from herd.core.events import (
    AttemptFailed,
    ContextAction,
    ContextProtected,
    Event,
    FindingChanged,
    Finished,
    FleetChanged,
    Managed,
    Status,
    StreamBroken,
)
from herd.core.record import record
from herd.core.value import value

LEVEL_OF: Mapping[Status, str] = MappingProxyType({
    Status.COMPLETED: "INFO",
    Status.CLIENT_DISCONNECTED: "INFO",
    Status.REJECTED: "WARNING",
    Status.FAILED: "ERROR",
    Status.INCOMPLETE: "ERROR",
})  # fmt: skip
BAD_NEWS = frozenset({
    "node_lost", "node_degraded", "engine_lost", "pull_failed", "preload_failed", "request_quarantined",
})  # fmt: skip


@value
class Line:
    """One line of the log; `at` in unix seconds. `template` is what lines of one kind have in common."""

    at: float
    level: str
    logger: str
    event: str
    fields: Mapping[str, object]
    template: str = ""


def line_of(event: Event, taken_at: float) -> Line | None:
    """The line of an event, or None for one that the log does not tell."""
    if isinstance(event, Finished):
        return _finished(event)
    if isinstance(event, AttemptFailed):
        return _attempt_failed(event)
    if isinstance(event, StreamBroken):
        return _stream_broken(event, taken_at)
    if isinstance(event, ContextProtected):
        return _context_protected(event, taken_at)
    if isinstance(event, FleetChanged):
        return _fleet_changed(event)
    if isinstance(event, FindingChanged):
        return _finding_changed(event)
    return _managed(event) if isinstance(event, Managed) else None


def _finished(event: Finished) -> Line:
    fields: dict[str, object] = dict(record(event))
    fields["received_at"] = fields.pop("timestamp")  # the line has a timestamp of its own
    return Line(event.finished_at, LEVEL_OF[event.status], "herd.request", "request_finished", fields)


def _attempt_failed(event: AttemptFailed) -> Line:
    attempt = event.attempt
    fields = {
        "request_id": event.request_id,
        "trace_id": event.trace_id,
        "span_id": attempt.span_id,
        "attempt": attempt.number,
        "node_id": attempt.node_id,
        "model": attempt.model,
        "http_status": attempt.http_status,
        "error_type": attempt.error_type,
        "error_message": attempt.error_message,
        "duration_ms": round((attempt.ended_at - attempt.started_at) * 1000, 3),
        "will_retry": event.will_retry,
    }
    return Line(attempt.ended_at, "WARNING", "herd.request", "attempt_failed", fields)


def _stream_broken(event: StreamBroken, at: float) -> Line:
    fields = {
        "request_id": event.request_id,
        "trace_id": event.trace_id,
        "node_id": event.node_id,
        "model": event.model,
        "error_type": event.error_type,
        "error_message": event.error_message,
    }
    return Line(at, "ERROR", "herd.request", f"Stream error from {event.node_id}: {event.error_type}", fields)


def _context_protected(event: ContextProtected, at: float) -> Line:
    action = event.action
    fields = {
        "request_id": event.request_id,
        "trace_id": event.trace_id,
        "node_id": action.node_id,
        "model": action.model,
        "action": action.action,
        "num_ctx_asked": action.asked,
        "num_ctx_loaded": action.loaded,
    }
    level = "WARNING" if action.action == "warned" else "INFO"
    return Line(at, level, "herd.request", f"Context protection: {_in_words(action)}", fields)


def _in_words(action: ContextAction) -> str:
    asked = f"num_ctx {action.asked}"
    loaded = f"{action.node_id} has {action.model} loaded" + (f" with {action.loaded}" if action.loaded else "")
    if action.action == "stripped":
        return f"{asked} taken out of the request, {loaded}"
    if action.action == "moved":
        return f"request with {asked} moved to where it fits, {loaded}"
    return f"{asked} passed on and will make the engine reload the model, {loaded}"


def _fleet_changed(event: FleetChanged) -> Line:
    fields = {"node_id": event.node_id, "model": event.model, "data": dict(event.data) or None}
    known = {name: value for name, value in fields.items() if value is not None}
    level = "WARNING" if event.kind in BAD_NEWS else "INFO"
    return Line(event.at, level, "herd.fleet", event.kind, known, template=f"{event.kind} {event.node_id}")


def _finding_changed(event: FindingChanged) -> Line | None:
    episode, finding = event.episode, event.episode.finding
    if event.change == "seen":
        return None  # it is there still, as the line that opened it says
    fields = {
        "finding_id": episode.id,
        "check_id": finding.check_id,
        "severity": finding.severity.value,
        "node_id": finding.node_id,
        "model": finding.model,
        "title": finding.title,
        "description": finding.description,
        "note": episode.note,
        "silenced_until": episode.silenced_until,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    worse = event.change in {"opened", "changed"} and finding.severity.rank
    return Line(event.at, "WARNING" if worse else "INFO", "herd.health", f"finding_{event.change}", known)


def _managed(event: Managed) -> Line:
    fields = {
        "request_id": event.request_id,
        "trace_id": event.ids.trace_id,
        "span_id": event.ids.span_id,
        "endpoint": event.endpoint,
        "model": event.model,
        "node_id": event.node_id,
        "http_status": event.http_status,
        "latency_ms": round((event.finished_at - event.received_at) * 1000, 3),
        "error_type": event.error_type,
        "error_message": event.error_message,
    }
    return Line(event.finished_at, "INFO", "herd.management", "management_request", fields)
