"""Request metrics: what each counts when a request ends, an attempt fails or a context is protected.

A declaration returns the names as they are in the event; the label maps names that it does not allow.
"""

from typing import Final

from herd.core.events import Attempt, AttemptFailed, ContextProtected, Finished, FleetChanged, Status, Usage
from herd.core.health.of_requests import NOT_OURS
from herd.telemetry.catalog.buckets import (
    ATTEMPTS,
    DECISIONS,
    DECODES,
    DURATIONS,
    FIRST_TOKEN,
    FIRST_TOKEN_OF_NODE,
    LOADS,
    OVERHEADS,
    PER_TOKEN,
    PER_TOKEN_OF_NODE,
    PREFILLS,
    RATIOS,
    SIGNALLED,
    WAITS,
)
from herd.telemetry.catalog.labels import (
    ACTION,
    CODE_CLASS,
    ENDPOINT,
    ERROR_TYPE,
    FALLBACK_REASON,
    FROM_MODEL,
    GIVEN_UP,
    MODEL,
    NO_NODE,
    NODE,
    PHASE,
    QUEUE_REASON,
    REASON,
    REJECTION,
    RETRY_REASON,
    SIGNAL,
    STATUS,
    STREAM,
    TAG,
    TO_MODEL,
    TOKEN_TYPE,
    UNKNOWN,
)
from herd.telemetry.catalog.shapes import Metric, Of, Sample

COLD_LOAD_S: Final = 0.5  # a longer reported load time is a cold load
NO_USAGE: Final = frozenset({"/api/embeddings"})  # Ollama's older embedding endpoint reports no counts
NO_ANSWER: Final = frozenset({"load", "unload"})  # Ollama's finish reasons for a request without a prompt
PHASES: Final = PHASE.values or ()
LONGEST_S: Final = 86_400.0  # longer reported durations are discarded as implausible


def model_of(ended: Finished) -> str:
    """The model that answered, was tried last or was requested."""
    return ended.model or UNKNOWN


def node_of(ended: Finished) -> str:
    """The node that answered or was tried last."""
    return ended.chosen.node_id if ended.chosen else NO_NODE


def streamed(ended: Finished) -> bool:
    """Whether the request asked for a stream."""
    return ended.request is not None and ended.request.stream


def tokens(usage: Usage, *labels: str) -> list[Sample]:
    """The token counts with these labels and the type; missing counts are None."""
    return [
        ((*labels, "input"), usage.prompt_tokens),
        ((*labels, "output"), usage.completion_tokens),
        ((*labels, "cached_input"), usage.cached_tokens),
        ((*labels, "reasoning"), usage.reasoning_tokens),
    ]


def usage_missing(ended: Finished) -> bool:
    """Whether a completed answer lacks token counts that its endpoint should report."""
    return (
        ended.usage.source == "missing"
        and ended.status is Status.COMPLETED
        and ended.endpoint not in NO_USAGE
        and ended.usage.finish_reason not in NO_ANSWER
    )


def failed_here(ended: Finished) -> bool:
    """Whether a request was taken and then failed on our side."""
    return ended.status in {Status.FAILED, Status.INCOMPLETE} and ended.error_type not in NOT_OURS


def cold_load_s(ended: Finished) -> float | None:
    """Seconds the engine spent loading the model for this request; None if it was loaded."""
    seconds = ended.usage.load_s
    return seconds if seconds and COLD_LOAD_S < seconds < LONGEST_S else None


def reported(seconds: float | None) -> float | None:
    """Seconds reported by an engine, if present and plausible."""
    return seconds if seconds is not None and 0 <= seconds < LONGEST_S else None


def predicted_over_seen(ended: Finished) -> float | None:
    """Predicted over actual time to first token; None with several attempts, whose waits were not predicted."""
    seen = ended.ttft_s
    if ended.predicted is None or len(ended.attempts) != 1 or seen is None or seen <= 0:
        return None
    return ended.predicted.ttft_s / seen


def predicted_s(ended: Finished) -> list[Sample]:
    """What was predicted, by node and phase, of the requests that can be held against it."""
    if ended.predicted is None or predicted_over_seen(ended) is None:
        return []
    return [((node_of(ended), phase), seconds) for phase, seconds in zip(PHASES, ended.predicted, strict=True)]


def seen_s(ended: Finished) -> list[Sample]:
    """What came of that, by node and phase."""
    if predicted_over_seen(ended) is None:
        return []
    seen = (ended.queue_s, ended.usage.load_s or 0.0, ended.prefill_s, ended.decode_s)
    return [((node_of(ended), phase), seconds) for phase, seconds in zip(PHASES, seen, strict=True)]


def queue_wait_s(ended: Finished) -> float | None:
    """The wait for a slot; None if the request ended before that stage."""
    return ended.queue_s if ended.attempts or ended.queued_at is not None else None


def first_token_s(attempt: Attempt) -> float | None:
    """Seconds from the start of an attempt to its first content."""
    return None if attempt.first_content_at is None else attempt.first_content_at - attempt.started_at


def troubled(ended: Finished) -> bool:
    """Whether anything went wrong, for the client or in an attempt."""
    return ended.error_type is not None or len(ended.attempts) > 1


def timed(ended: Finished) -> bool:
    """Whether the engine reports times of its own."""
    usage = ended.usage
    return usage.prompt_eval_s is not None or usage.eval_s is not None or usage.load_s is not None


def tagged(ended: Finished) -> bool:
    """Whether the caller sent tags."""
    return ended.request is not None and bool(ended.request.tags)


def code_class(http_status: int | None) -> str:
    """The class of a node's HTTP status."""
    return f"{http_status // 100}xx" if http_status and 200 <= http_status < 600 else "none"


METRICS: Final = (
    Metric("herd_requests_total", "counter", "Finished requests.", (ENDPOINT, MODEL, STATUS),
           counts=Of(Finished, lambda ended: [((ended.endpoint, model_of(ended), ended.status), 1)])),
    Metric("herd_requests_finished_total", "counter",
           "Finished requests over all models. `herd audit` compares it, since per-model series go with their model.",
           (STATUS,), counts=Of(Finished, lambda ended: [((ended.status,), 1)])),
    Metric("herd_request_errors_total", "counter", "Requests that ended with an error, by error type.",
           (ERROR_TYPE, NODE), nodeless=True,
           counts=Of(Finished, lambda ended: [
               ((ended.error_type, node_of(ended)), 1)] if ended.error_type else [], troubled)),
    Metric("herd_requests_failed_total", "counter",
           "Requests that ended with an error other than the client's, by the model tried or requested.", (MODEL,),
           counts=Of(Finished, lambda ended: [((model_of(ended),), 1)], failed_here)),
    Metric("herd_request_duration_seconds", "histogram", "Request duration, from receipt to end.",
           (MODEL, STREAM), DURATIONS,
           exemplar=True, counts=Of(Finished, lambda ended: [
               ((model_of(ended), "true" if streamed(ended) else "false"), ended.latency_s)])),
    Metric("herd_time_to_first_token_seconds", "histogram", "Time from receipt to the first content; streams only.",
           (MODEL,), FIRST_TOKEN, exemplar=True,
           counts=Of(Finished, lambda ended: [((model_of(ended),), ended.ttft_s)], streamed)),
    Metric("herd_time_per_output_token_seconds", "histogram", "Time between output tokens; streams only.",
           (MODEL,), PER_TOKEN,
           counts=Of(Finished, lambda ended: [((model_of(ended),), ended.time_per_output_token_s)], streamed)),
    Metric("herd_prefill_seconds", "histogram", "Prompt processing time reported by the engine. Most engines report "
           "it only on their native API.", (NODE,), PREFILLS,
           counts=Of(Finished, lambda ended: [((node_of(ended),), reported(ended.usage.prompt_eval_s))], timed)),
    Metric("herd_decode_seconds", "histogram", "Generation time reported by the engine, as above.",
           (NODE,), DECODES,
           counts=Of(Finished, lambda ended: [((node_of(ended),), reported(ended.usage.eval_s))], timed)),
    Metric("herd_tokens_total", "counter", "Tokens. `output` includes `reasoning`, `input` includes `cached_input`.",
           (MODEL, NODE, TOKEN_TYPE),
           counts=Of(Finished, lambda ended: tokens(ended.usage, model_of(ended), node_of(ended)))),
    Metric("herd_tokens_finished_total", "counter", "Tokens over all models. `herd audit` compares it.",
           (TOKEN_TYPE,), spare=True,
           counts=Of(Finished, lambda ended: tokens(ended.usage))),
    Metric("herd_usage_missing_total", "counter", "Completed answers without token counts.", (MODEL,),
           counts=Of(Finished, lambda ended: [((model_of(ended),), 1)], usage_missing)),
    Metric("herd_routing_decisions_total", "counter", "Attempts by node and by the reason the node was chosen.",
           (NODE, REASON),
           counts=Of(Finished, lambda ended: [
               ((attempt.node_id, ended.reason_of(attempt)), 1) for attempt in ended.attempts])),
    Metric("herd_candidates_rejected_total", "counter", "Nodes excluded from decisions before scoring.", (REJECTION,),
           counts=Of(Finished, lambda ended: [
               ((entry.reason,), 1) for entry in (ended.decision.rejected if ended.decision else ())])),
    Metric("herd_signal_seconds", "histogram",
           "Predicted cost of the chosen node by signal, negative where it saves time; buckets only.",
           (SIGNAL,), SIGNALLED, counts=Of(Finished, lambda ended: [
               ((signal,), seconds) for signal, seconds in (ended.chosen.signals.items() if ended.chosen else ())])),
    Metric("herd_routing_decision_duration_seconds", "histogram", "Duration of a routing decision.", (), DECISIONS,
           counts=Of(Finished, lambda ended: [((), ended.decision_s)])),
    Metric("herd_overhead_seconds", "histogram", "Router overhead: total time minus upstream and queue.",
           (), OVERHEADS, counts=Of(Finished, lambda ended: [((), ended.overhead_s)])),
    Metric("herd_predicted_ttft_error_ratio", "histogram",
           "Predicted over actual time to first token; 1 is exact. Streams with one attempt only.", (), RATIOS,
           counts=Of(Finished, lambda ended: [((), predicted_over_seen(ended))], streamed)),
    Metric("herd_predicted_seconds_total", "counter", "Predicted duration of streams, by part; "
           "streams with one attempt only.", (NODE, PHASE), counts=Of(Finished, predicted_s, streamed)),
    Metric("herd_actual_seconds_total", "counter", "Actual duration of the same streams; where it "
           "grows faster than the predicted one, the node is slower than routing assumes.", (NODE, PHASE),
           counts=Of(Finished, seen_s, streamed)),
    Metric("herd_queue_wait_seconds", "histogram", "Wait for a slot; 0 if one was free.",
           (MODEL,), WAITS, counts=Of(Finished, lambda ended: [((model_of(ended),), queue_wait_s(ended))])),
    Metric("herd_queue_rejected_total", "counter", "Requests rejected by the queue.", (QUEUE_REASON,),
           counts=Of(Finished, lambda ended: [((ended.error_type,), 1)] if ended.error_type else [], troubled)),
    Metric("herd_retries_total", "counter", "Retried attempts, by failure.",
           (RETRY_REASON,),
           counts=Of(Finished, lambda ended: [
               ((attempt.error_type,), 1) for attempt in ended.attempts[:-1]], troubled)),
    Metric("herd_retries_exhausted_total", "counter",
           "Requests that failed with a retryable error after all retries.", (GIVEN_UP,),
           counts=Of(Finished, lambda ended: [
               ((last.error_type,), 1) for last in ended.attempts[-1:] if ended.status is Status.FAILED], troubled)),
    Metric("herd_retry_budget_exhausted_total", "counter",
           "Requests not retried because the retry budget was used up, by failure.", (RETRY_REASON,),
           counts=Of(AttemptFailed, lambda failed: [((failed.attempt.error_type,), 1)] if failed.budget_spent else [])),
    Metric("herd_fallbacks_total", "counter", "Requests answered by a fallback model.",
           (FROM_MODEL, TO_MODEL, FALLBACK_REASON), counts=Of(Finished, lambda ended: [
               ((ended.request.model if ended.request else None, model_of(ended), ended.fallback_reason), 1)
           ], lambda ended: ended.fallback_used)),
    Metric("herd_context_protection_total", "counter",
           "Requests whose num_ctx would have made a node reload the model, by action.",
           (ACTION,), counts=Of(ContextProtected, lambda protected: [((protected.action.action,), 1)])),
    Metric("herd_zombies_reaped_total", "counter", "Stuck requests ended by the reaper.", (NODE,),
           counts=Of(FleetChanged, lambda change: [((change.node_id,), 1)] if change.kind == "zombie_reaped" else [])),
    Metric("herd_upstream_requests_total", "counter", "Attempts by HTTP status class.",
           (NODE, CODE_CLASS), counts=Of(Finished, lambda ended: [
               ((attempt.node_id, code_class(attempt.http_status)), 1) for attempt in ended.attempts])),
    Metric("herd_upstream_duration_seconds", "histogram", "Duration of one attempt.", (NODE,), ATTEMPTS,
           counts=Of(Finished, lambda ended: [
               ((attempt.node_id,), attempt.ended_at - attempt.started_at) for attempt in ended.attempts])),
    Metric("herd_upstream_time_to_first_token_seconds", "histogram",
           "Time from the start of an attempt to its first content; streams only.", (NODE,), FIRST_TOKEN_OF_NODE,
           counts=Of(Finished, lambda ended: [
               ((attempt.node_id,), first_token_s(attempt)) for attempt in ended.attempts], streamed)),
    Metric("herd_upstream_time_per_output_token_seconds", "histogram",
           "Time between output tokens by node; streams only.", (NODE,), PER_TOKEN_OF_NODE,
           counts=Of(Finished, lambda ended: [((node_of(ended),), ended.time_per_output_token_s)], streamed)),
    Metric("herd_model_loads_total", "counter", f"Cold loads: the engine reports a load time over {COLD_LOAD_S} s.",
           (NODE, MODEL), counts=Of(Finished, lambda ended: [
               ((node_of(ended), ended.model), 1)] if cold_load_s(ended) else [], timed)),
    Metric("herd_model_load_seconds", "histogram", "Duration of a cold load.", (NODE,), LOADS,
           counts=Of(Finished, lambda ended: [((node_of(ended),), cold_load_s(ended))], timed)),
    Metric("herd_tag_requests_total", "counter",
           "Finished requests by tag, counted once per tag; only with the setting metric_tags.", (TAG,),
           counts=Of(Finished, lambda ended: [
               ((tag,), 1) for tag in (ended.request.tags if ended.request else ())], tagged)),
    Metric("herd_tag_tokens_total", "counter",
           "Tokens by tag, counted once per tag; only with the setting metric_tags.",
           (TAG, TOKEN_TYPE), counts=Of(Finished, lambda ended: [
               count for tag in (ended.request.tags if ended.request else ()) for count in tokens(ended.usage, tag)
           ], tagged)),
)  # fmt: skip
