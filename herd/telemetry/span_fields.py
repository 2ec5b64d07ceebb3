"""What the spans of a request say, as plain values made from its event. Pure: of OpenTelemetry only the names."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import chain, islice
from urllib.parse import urlsplit

from herd.core.events import Attempt, Finished, Managed, Status
from herd.core.request import NOTHING_SAID, Parameters
from herd.core.routing import Candidate, Decision, Rejection
from herd.telemetry import semconv
from herd.telemetry.labels import clean

Traced = Finished | Managed
Value = str | bool | int | float | tuple[str, ...]
Fields = dict[str, Value]
MOST_CANDIDATES = 16  # a large fleet's whole decision stands in the row; a span shows its head
LARGEST_INT = 2**63 - 1  # protobuf refuses a larger one, and with it the whole batch
BROKEN = frozenset({Status.FAILED, Status.INCOMPLETE})


def server_fields(event: Finished) -> Fields:
    """The SERVER span: the request as the client saw it."""
    request = event.request
    return fields({
        semconv.HTTP_REQUEST_METHOD: "POST",
        semconv.HTTP_ROUTE: event.endpoint,
        semconv.URL_PATH: event.endpoint,
        semconv.URL_SCHEME: "http",
        semconv.HTTP_RESPONSE_STATUS_CODE: event.http_status,
        semconv.CLIENT_ADDRESS: event.client_ip,
        semconv.ERROR_TYPE: event.error_type or "internal" if is_error(event) else None,
        semconv.GEN_AI_REQUEST_MODEL: request.model if request else None,
        semconv.GEN_AI_REQUEST_STREAM: request.stream if request else None,
        "herd.request_id": event.request_id,
        "herd.status": event.status.value,
        "herd.error_type": event.error_type,
        "herd.retries": event.retry_count,
        "herd.tags": request.tags if request and request.tags else None,
    })  # fmt: skip


def managed_fields(event: Managed) -> Fields:
    """The SERVER span of a management request."""
    return fields({
        semconv.HTTP_REQUEST_METHOD: event.method,
        semconv.HTTP_ROUTE: managed_route(event),
        semconv.URL_PATH: event.path,
        semconv.URL_SCHEME: "http",
        semconv.HTTP_RESPONSE_STATUS_CODE: event.http_status,
        semconv.CLIENT_ADDRESS: event.client_ip,
        semconv.ERROR_TYPE: event.error_type or "internal" if event.http_status >= 500 else None,
        semconv.GEN_AI_REQUEST_MODEL: event.model,
        "herd.request_id": event.request_id,
        "herd.error_type": event.error_type,
        "herd.node": event.node_id,
    })  # fmt: skip


def managed_route(event: Managed) -> str:
    """The path without what is different in every request."""
    return "/api/blobs/{digest}" if event.endpoint == "/api/blobs" else event.endpoint


def called_fields(event: Managed, attempt: Attempt) -> Fields:
    """The CLIENT span of a management request: the call to the node."""
    address, port = _address(attempt.url)
    status = attempt.http_status
    return fields({
        semconv.HTTP_REQUEST_METHOD: event.method,
        semconv.URL_FULL: attempt.url,
        semconv.SERVER_ADDRESS: address,
        semconv.SERVER_PORT: port,
        semconv.HTTP_RESPONSE_STATUS_CODE: status,
        semconv.ERROR_TYPE: attempt.error_type or (str(status) if status and status >= 500 else None),
        "herd.node": attempt.node_id,
        "herd.reconnected": attempt.reconnected or None,
    })  # fmt: skip


def route_fields(event: Finished, decision: Decision) -> Fields:
    """The `herd.route` span: what was decided, and what became of it."""
    chosen = event.chosen or (decision.plan[0] if decision.plan else None)
    return fields({
        "herd.node": chosen.node_id if chosen else None,
        "herd.score": chosen.score if chosen else None,
        "herd.reason": event.reason.value if event.reason else None,
        "herd.candidates": len(decision.plan),
        "herd.rejected": len(decision.rejected),
        "herd.model.requested": event.request.model if event.request else None,
        "herd.model.served": chosen.model if chosen else None,
        "herd.fallback": event.fallback_used,
        "herd.fallback_reason": event.fallback_reason,
        "herd.context.action": event.context.action if event.context else None,
    })  # fmt: skip


def candidate_fields(decision: Decision) -> Iterator[Fields]:
    """One `candidate` event each: the plan in its order, then the nodes left out, at most `MOST_CANDIDATES`."""
    everyone = chain(map(_planned, decision.plan), map(_rejected, decision.rejected))
    return islice(everyone, MOST_CANDIDATES)


def attempt_fields(event: Finished, attempt: Attempt) -> Fields:
    """What a CLIENT span is created with, so that samplers see it."""
    address, port = _address(attempt.url)
    return fields({
        semconv.GEN_AI_OPERATION_NAME: operation(event),
        semconv.GEN_AI_PROVIDER_NAME: _engine(event, attempt.node_id),
        semconv.GEN_AI_REQUEST_MODEL: attempt.model,
        semconv.SERVER_ADDRESS: address,
        semconv.SERVER_PORT: port,
    })  # fmt: skip


def outcome_fields(event: Finished, attempt: Attempt) -> Fields:
    """What is known of an attempt at its end; usage stands on the last one only, whose answer it counts."""
    request, first = event.request, attempt.first_content_at
    return fields({
        semconv.GEN_AI_REQUEST_MAX_TOKENS: request.max_tokens if request else None,
        **_parameter_fields(event.parameters),
        semconv.GEN_AI_REQUEST_STREAM: request.stream if request else None,
        semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: (
            max(0.0, first - attempt.started_at) if first is not None and request and request.stream else None),
        semconv.HTTP_RESPONSE_STATUS_CODE: attempt.http_status,
        semconv.HTTP_REQUEST_RESEND_COUNT: attempt.number - 1 or None,
        semconv.ERROR_TYPE: attempt.error_type,
        "herd.node": attempt.node_id,
        "herd.attempt": attempt.number,
        "herd.reason": reason.value if (reason := event.reason_of(attempt)) else None,
        "herd.reconnected": attempt.reconnected or None,
        **(_usage_fields(event, attempt) if attempt is event.attempts[-1] else {}),
    })  # fmt: skip


def operation(event: Finished) -> str:
    """The conventions' name of what was asked for."""
    return semconv.OPERATIONS.get(event.endpoint, semconv.CHAT)


def is_error(event: Finished) -> bool:
    """Whether the request failed on this side: a client that left or asked wrong is no error of the server's."""
    return event.status in BROKEN or (event.status is Status.REJECTED and event.http_status >= 500)


def fields(found: Mapping[str, Value | None]) -> Fields:
    """Without what is not known, and with nothing that the exporter's encoding refuses."""
    return {name: _encodable(value) for name, value in found.items() if value is not None}


def _parameter_fields(said: Parameters) -> Mapping[str, Value | None]:
    if said is NOTHING_SAID:
        return {}
    return {
        semconv.GEN_AI_REQUEST_TEMPERATURE: said.temperature,
        semconv.GEN_AI_REQUEST_TOP_P: said.top_p,
        semconv.GEN_AI_REQUEST_TOP_K: said.top_k,
        semconv.GEN_AI_REQUEST_SEED: said.seed,
        semconv.GEN_AI_REQUEST_STOP_SEQUENCES: said.stop_sequences or None,
        semconv.GEN_AI_REQUEST_PRESENCE_PENALTY: said.presence_penalty,
        semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY: said.frequency_penalty,
        semconv.GEN_AI_REQUEST_CHOICE_COUNT: said.choice_count if said.choice_count != 1 else None,
        semconv.GEN_AI_REQUEST_ENCODING_FORMATS: said.encoding_formats or None,
    }


def _usage_fields(event: Finished, attempt: Attempt) -> Mapping[str, Value | None]:
    usage = event.usage
    return {
        semconv.GEN_AI_RESPONSE_MODEL: attempt.model if attempt.first_content_at is not None else None,
        semconv.GEN_AI_RESPONSE_FINISH_REASONS: (usage.finish_reason,) if usage.finish_reason else None,
        semconv.GEN_AI_USAGE_INPUT_TOKENS: usage.prompt_tokens,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS: usage.completion_tokens,
        semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: usage.cached_tokens,
        semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: usage.reasoning_tokens,
        "herd.tokens_source": usage.source,
        "herd.ollama.load_s": usage.load_s,
        "herd.ollama.prompt_eval_s": usage.prompt_eval_s,
        "herd.ollama.eval_s": usage.eval_s,
    }


def _planned(entry: Candidate) -> Fields:
    seconds = {f"herd.signal.{name}": value for name, value in entry.signals.items()}
    return fields({"herd.node": entry.node_id, "herd.model": entry.model, **seconds, "herd.total": entry.total})


def _rejected(entry: Rejection) -> Fields:
    return fields({"herd.node": entry.node_id, "herd.model": entry.model, "herd.rejection": entry.reason.value})


def _engine(event: Finished, node_id: str) -> str:
    nodes = event.fleet.nodes if event.fleet else ()
    return next((node.engine for node in nodes if node.node_id == node_id), "ollama")


@lru_cache(maxsize=256)
def _address(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None, None


def _encodable(value: Value) -> Value:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, tuple):
        return tuple(clean(text) for text in value)
    if type(value) is int:
        return max(-LARGEST_INT, min(value, LARGEST_INT))
    return value


def span_count(event: Traced) -> int:
    """How many spans an event makes."""
    if isinstance(event, Managed):
        return 1 + (event.attempt is not None)
    return 1 + (event.decision is not None) + (event.queue_s > 0) + len(event.attempts)
