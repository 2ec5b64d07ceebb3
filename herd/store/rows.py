"""From an event to the rows it leaves, as plain values that SQLite takes.

Knows which event goes into which table, and how a value must look there; touches no database.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from herd.core.events import (
    Attempt,
    ContextProtected,
    FindingChanged,
    Finished,
    FleetChanged,
    Managed,
    NodeKnown,
    NodeSampled,
)
from herd.core.finding import Episode
from herd.core.record import record
from herd.store.decision import encode

Value = str | int | float | None
Stored = Finished | ContextProtected | FleetChanged | NodeSampled | NodeKnown | Managed | FindingChanged
STORED: Final = (Finished, ContextProtected, FleetChanged, NodeSampled, NodeKnown, Managed, FindingChanged)
INTEGER_LIMIT: Final = 2**63 - 1

# What a row shows to readers. `decision` is read only where one request is asked for.
TRACE_COLUMNS: Final = (
    "request_id", "trace_id", "span_id", "timestamp", "finished_at", "endpoint", "original_format", "model",
    "original_model", "node_id", "score", "scores_breakdown", "status", "http_status", "error_type", "error_message",
    "finish_reason", "stream", "latency_ms", "time_to_first_token_ms", "time_per_output_token_ms", "queue_ms",
    "decision_ms", "overhead_ms", "load_ms", "predicted_ttft_ms", "prompt_tokens", "completion_tokens",
    "tokens_source", "retry_count", "fallback_used", "fallback_reason", "excluded_nodes", "tags", "client_ip",
    "api_key_id", "cached_tokens", "reasoning_tokens", "prefill_ms", "decode_ms", "predicted_queue_ms",
    "predicted_load_ms", "predicted_prefill_ms", "predicted_decode_ms",
)  # fmt: skip
ATTEMPT_COLUMNS: Final = (
    "request_id", "number", "node_id", "model", "url", "span_id", "started_at", "ended_at", "http_status",
    "first_content_at", "error_type", "error_message", "reconnected",
)  # fmt: skip
SAMPLE_COLUMNS: Final = (
    "node_id", "at", "status", "cpu", "memory_used", "memory_total", "pressure", "models_loaded", "in_flight", "slots",
)  # fmt: skip
NODE_COLUMNS: Final = ("node_id", "heartbeat", "last_seen", "left", "drained")
EVENT_COLUMNS: Final = ("at", "kind", "node_id", "model", "data")
FINDING_COLUMNS: Final = (
    "id", "check_id", "severity", "node_id", "model", "title", "description", "fix", "data", "first_seen", "last_seen",
    "resolved_at", "acknowledged_at", "note", "silenced_until", "alerted",
)  # fmt: skip
JSON_COLUMNS: Final = frozenset({"scores_breakdown", "excluded_nodes", "tags", "models_loaded", "data"})
BOOLEAN_COLUMNS: Final = frozenset({"stream", "fallback_used", "reconnected"})


_encoded: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_AS_THEY_ARE: Final = frozenset({type(None), float})


class Rows(NamedTuple):
    """What one event leaves: at most one trace with its attempts and decision, and rows of the other tables.

    `nodes` replace what was known of them; `forgotten` are the ids of those that are known no longer. `repeat`: they
    may have been written before.
    """

    trace: tuple[Value, ...] | None = None
    attempts: tuple[tuple[Value, ...], ...] = ()
    samples: tuple[tuple[Value, ...], ...] = ()
    events: tuple[tuple[Value, ...], ...] = ()
    findings: tuple[tuple[Value, ...], ...] = ()
    nodes: tuple[tuple[Value, ...], ...] = ()
    forgotten: tuple[tuple[Value, ...], ...] = ()
    repeat: bool = False


def rows_of(event: Stored, at: float) -> Rows:
    """The rows of an event; `at` (unix s) is when it came, for the events that do not say so themselves."""
    match event:
        case Finished():
            return _finished(event)
        case NodeSampled():
            return Rows(samples=(tuple(column(getattr(event, name)) for name in SAMPLE_COLUMNS),))
        case NodeKnown():
            return Rows(nodes=(tuple(column(getattr(event, name)) for name in NODE_COLUMNS),))
        case FleetChanged():
            told = _event(event.at, event.kind, event.node_id, event.model, event.data)
            gone = event.kind == "node_forgotten"
            return told._replace(forgotten=((column(event.node_id),),)) if gone else told
        case ContextProtected(action=action):
            data = {"request_id": event.request_id, "trace_id": event.trace_id, "action": action.action,
                    "asked": action.asked, "loaded": action.loaded}  # fmt: skip
            return _event(at, "context_protection", action.node_id, action.model, data)
        case FindingChanged():
            return Rows(findings=(_finding(event.episode),))
        case Managed():
            return _event(event.finished_at, "managed", event.node_id, event.model, _managed(event))


def column(value: object) -> Value:
    """A value as SQLite takes it: JSON for lists and objects, and nothing that it would refuse.

    SQLite has no integer over 64 bits and no text with a lone surrogate; both can come from a request.
    """
    kind = type(value)
    if kind in _AS_THEY_ARE or (kind is str and str(value).isascii()):
        return value  # type: ignore[return-value]  # as most values of every row
    match value:
        case None | float():
            return value
        case int():
            return max(-INTEGER_LIMIT, min(INTEGER_LIMIT, int(value)))
        case str():
            return value if value.isascii() else _clean(value)
        case tuple() | list():
            return _json(list(value))
        case Mapping():
            return _json(dict(value))
    raise TypeError(f"there is no column for a {type(value).__name__}")


def tag_text(tag: str) -> str:
    """How a tag stands in the `tags` column, quotes included."""
    return _json(tag)


def _finished(event: Finished) -> Rows:
    told = record(event)
    trace = (*(column(told[name]) for name in TRACE_COLUMNS), encode(event))
    attempts = tuple(_attempt(event.request_id, attempt) for attempt in event.attempts)
    if not event.fallback_used or event.request is None:
        return Rows(trace, attempts)
    data = {"request_id": event.request_id, "trace_id": event.ids.trace_id, "from_model": event.request.model,
            "to_model": event.model, "reason": event.fallback_reason}  # fmt: skip
    return _event(event.finished_at, "fallback", told["node_id"], event.model, data)._replace(
        trace=trace, attempts=attempts
    )


def _attempt(request_id: str, attempt: Attempt) -> tuple[Value, ...]:
    return (column(request_id), *(column(getattr(attempt, name)) for name in ATTEMPT_COLUMNS[1:]))


def _finding(episode: Episode) -> tuple[Value, ...]:
    return tuple(
        column(getattr(episode if hasattr(episode, name) else episode.finding, name)) for name in FINDING_COLUMNS
    )


def _event(at: float, kind: str, node_id: object, model: object, data: Mapping[str, Any]) -> Rows:
    return Rows(events=((at, kind, column(node_id), column(model), column(data)),))


def _managed(event: Managed) -> dict[str, Any]:
    return {
        "request_id": event.request_id,
        "trace_id": event.ids.trace_id,
        "endpoint": event.endpoint,
        "http_status": event.http_status,
        "latency_ms": round((event.finished_at - event.received_at) * 1000, 3),
        "error_type": event.error_type,
        "error_message": event.error_message,
    }


def _json(value: object) -> str:
    # As UTF-8 rather than with escapes, so that a search for a word with an accent finds it; a lone surrogate becomes
    # the escape that JSON has for it.
    return _clean(_encoded(value))


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
