"""The fields of a request's row and of its canonical log line: one function, so the two cannot differ.

A new column starts here, then gets its migration in `store.schema`; a test holds the two lists equal.
"""

from herd.core.events import Finished
from herd.core.signals import SIGNALS

Field = str | int | float | bool | None | list[str] | dict[str, float]


def record(event: Finished) -> dict[str, Field]:
    """All fields of a request's row except the stored decision; milliseconds if the name ends in `_ms`."""
    return {**_identity(event), **_route(event), **_outcome(event), **_timing(event), **_usage(event)}


def _identity(event: Finished) -> dict[str, Field]:
    request = event.request
    return {
        "request_id": event.request_id,
        "trace_id": event.ids.trace_id,
        "span_id": event.ids.span_id,
        "timestamp": event.received_at,
        "finished_at": event.finished_at,
        "endpoint": event.endpoint,
        "original_format": event.original_format,
        "stream": bool(request and request.stream),
        "tags": list(request.tags) if request and request.tags else None,
        "client_ip": event.client_ip,
        "api_key_id": event.api_key_id,
    }


def _route(event: Finished) -> dict[str, Field]:
    chosen = event.chosen
    breakdown = {**{name: chosen.signals[name] for name in SIGNALS}, "total": chosen.total} if chosen else None
    failed = [attempt.node_id for attempt in event.attempts if attempt.error_type]
    return {
        "model": event.model,
        "original_model": event.request.model if event.request else None,
        "node_id": chosen.node_id if chosen else None,
        "score": chosen.score if chosen else None,
        "scores_breakdown": breakdown,
        "retry_count": event.retry_count,
        "fallback_used": event.fallback_used,
        "fallback_reason": event.fallback_reason,
        "excluded_nodes": list(dict.fromkeys(failed)) or None,
    }


def _outcome(event: Finished) -> dict[str, Field]:
    return {
        "status": event.status.value,
        "http_status": event.http_status,
        "error_type": event.error_type,
        "error_message": event.error_message,
        "finish_reason": event.usage.finish_reason,
    }


def _timing(event: Finished) -> dict[str, Field]:
    predicted = event.predicted
    return {
        "latency_ms": _ms(event.latency_s),
        "time_to_first_token_ms": _ms(event.ttft_s),
        "time_per_output_token_ms": _ms(event.time_per_output_token_s),
        "queue_ms": _ms(event.queue_s),
        "decision_ms": _ms(event.decision_s),
        "overhead_ms": _ms(event.overhead_s),
        "load_ms": _ms(event.usage.load_s),
        "prefill_ms": _ms(event.prefill_s),
        "decode_ms": _ms(event.decode_s),
        "predicted_ttft_ms": _ms(predicted and predicted.ttft_s),
        "predicted_queue_ms": _ms(predicted and predicted.queue_s),
        "predicted_load_ms": _ms(predicted and predicted.load_s),
        "predicted_prefill_ms": _ms(predicted and predicted.prefill_s),
        "predicted_decode_ms": _ms(predicted and predicted.decode_s),
    }


def _usage(event: Finished) -> dict[str, Field]:
    return {
        "prompt_tokens": event.usage.prompt_tokens,
        "completion_tokens": event.usage.completion_tokens,
        "cached_tokens": event.usage.cached_tokens,
        "reasoning_tokens": event.usage.reasoning_tokens,
        "tokens_source": event.usage.source,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
