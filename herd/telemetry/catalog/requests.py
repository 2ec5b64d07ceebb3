"""The metrics of requests: what each of them counts when a request ends, an attempt fails, a context is protected.

A declaration sees an event as it is; it gives the names that stand there, and the label says what becomes of them.
"""

from typing import Final

from herd.core.events import Attempt, AttemptFailed, ContextProtected, Finished, FleetChanged, Status, Usage
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

COLD_LOAD_S: Final = 0.5  # an engine that reports a longer load had to fetch the model
NO_USAGE: Final = frozenset({"/api/embeddings"})  # Ollama's older embedding answer has no counts at all
NO_ANSWER: Final = frozenset({"load", "unload"})  # what Ollama says to a request without a prompt: nothing was written
LONGEST_S: Final = 86_400.0  # a load, a prefill or a decode that an engine says was longer is nonsense too


def model_of(ended: Finished) -> str:
    """The model that answered, was last tried or was asked for."""
    return ended.model or UNKNOWN


def node_of(ended: Finished) -> str:
    """The node that answered or was last tried."""
    return ended.chosen.node_id if ended.chosen else NO_NODE


def streamed(ended: Finished) -> bool:
    """Whether a stream was asked for."""
    return ended.request is not None and ended.request.stream


def tokens(usage: Usage, *labels: str) -> list[Sample]:
    """The token counts, by these labels and by type; those that there are not are None."""
    return [
        ((*labels, "input"), usage.prompt_tokens),
        ((*labels, "output"), usage.completion_tokens),
        ((*labels, "cached_input"), usage.cached_tokens),
        ((*labels, "reasoning"), usage.reasoning_tokens),
    ]


def usage_missing(ended: Finished) -> bool:
    """Whether a completed answer has no token counts although its kind has some."""
    return (
        ended.usage.source == "missing"
        and ended.status is Status.COMPLETED
        and ended.endpoint not in NO_USAGE
        and ended.usage.finish_reason not in NO_ANSWER
    )


def cold_load_s(ended: Finished) -> float | None:
    """Seconds that the engine loaded the model for this request; None where it had it."""
    seconds = ended.usage.load_s
    return seconds if seconds and COLD_LOAD_S < seconds < LONGEST_S else None


def reported(seconds: float | None) -> float | None:
    """Seconds as an engine reports them, if it does and they can be true."""
    return seconds if seconds is not None and 0 <= seconds < LONGEST_S else None


def predicted_over_seen(ended: Finished) -> float | None:
    """The predicted time to the first token over the one seen; a second attempt's wait was nobody's prediction."""
    seen = ended.ttft_s
    if ended.chosen is None or len(ended.attempts) != 1 or seen is None or seen <= 0:
        return None
    return ended.chosen.predicted_ttft_s / seen


def queue_wait_s(ended: Finished) -> float | None:
    """The wait for a slot; None for a request that never came so far."""
    return ended.queue_s if ended.attempts or ended.queued_at is not None else None


def first_token_s(attempt: Attempt) -> float | None:
    """Seconds from an attempt's start to its first content."""
    return None if attempt.first_content_at is None else attempt.first_content_at - attempt.started_at


def code_class(http_status: int | None) -> str:
    """The class of a node's answer."""
    return f"{http_status // 100}xx" if http_status and 200 <= http_status < 600 else "none"


METRICS: Final = (
    Metric("herd_requests_total", "counter", "Requests ended.", (ENDPOINT, MODEL, STATUS),
           counts=Of(Finished, lambda ended: [((ended.endpoint, model_of(ended), ended.status), 1)])),
    Metric("herd_requests_finished_total", "counter",
           "Requests ended, whatever their model: what `herd audit` compares, since series by model leave with it.",
           (STATUS,), counts=Of(Finished, lambda ended: [((ended.status,), 1)])),
    Metric("herd_request_errors_total", "counter", "Requests that ended with an error, by its type.",
           (ERROR_TYPE, NODE), nodeless=True,
           counts=Of(Finished, lambda ended: [((ended.error_type, node_of(ended)), 1)] if ended.error_type else [])),
    Metric("herd_request_duration_seconds", "histogram", "From receipt to end.", (MODEL, STREAM), DURATIONS,
           exemplar=True, counts=Of(Finished, lambda ended: [
               ((model_of(ended), "true" if streamed(ended) else "false"), ended.latency_s)])),
    Metric("herd_time_to_first_token_seconds", "histogram", "From receipt to the first content, streams only.",
           (MODEL,), FIRST_TOKEN, exemplar=True,
           counts=Of(Finished, lambda ended: [((model_of(ended),), ended.ttft_s)])),
    Metric("herd_time_per_output_token_seconds", "histogram", "From one output token to the next, streams only.",
           (MODEL,), PER_TOKEN,
           counts=Of(Finished, lambda ended: [((model_of(ended),), ended.time_per_output_token_s)])),
    Metric("herd_prefill_seconds", "histogram", "Time to read the prompt, as the engine reports it; most report it on "
           "their own API alone.", (NODE,), PREFILLS,
           counts=Of(Finished, lambda ended: [((node_of(ended),), reported(ended.usage.prompt_eval_s))])),
    Metric("herd_decode_seconds", "histogram", "Time to write the answer, as the engine reports it; likewise.",
           (NODE,), DECODES,
           counts=Of(Finished, lambda ended: [((node_of(ended),), reported(ended.usage.eval_s))])),
    Metric("herd_tokens_total", "counter", "Tokens; output includes reasoning, input includes cached_input.",
           (MODEL, NODE, TOKEN_TYPE),
           counts=Of(Finished, lambda ended: tokens(ended.usage, model_of(ended), node_of(ended)))),
    Metric("herd_tokens_finished_total", "counter", "Tokens, whatever their model: what `herd audit` compares.",
           (TOKEN_TYPE,), spare=True,
           counts=Of(Finished, lambda ended: tokens(ended.usage))),
    Metric("herd_usage_missing_total", "counter", "Completed answers without token counts.", (MODEL,),
           counts=Of(Finished, lambda ended: [((model_of(ended),), 1)] if usage_missing(ended) else [])),
    Metric("herd_routing_decisions_total", "counter", "Attempts by node and by why they went there.", (NODE, REASON),
           counts=Of(Finished, lambda ended: [
               ((attempt.node_id, ended.reason_of(attempt)), 1) for attempt in ended.attempts])),
    Metric("herd_candidates_rejected_total", "counter", "Nodes left out of decisions before scoring.", (REJECTION,),
           counts=Of(Finished, lambda ended: [
               ((entry.reason,), 1) for entry in (ended.decision.rejected if ended.decision else ())])),
    Metric("herd_signal_seconds", "histogram",
           "Seconds that the chosen node was predicted to cost, by signal, less than 0 where it saves; buckets only.",
           (SIGNAL,), SIGNALLED, counts=Of(Finished, lambda ended: [
               ((signal,), seconds) for signal, seconds in (ended.chosen.signals.items() if ended.chosen else ())])),
    Metric("herd_routing_decision_duration_seconds", "histogram", "Time to decide.", (), DECISIONS,
           counts=Of(Finished, lambda ended: [((), ended.decision_s)])),
    Metric("herd_overhead_seconds", "histogram", "What herd itself took: total less upstream less queue.",
           (), OVERHEADS, counts=Of(Finished, lambda ended: [((), ended.overhead_s)])),
    Metric("herd_predicted_ttft_error_ratio", "histogram",
           "Predicted time to first token over the one seen; 1 is right, streams with one attempt only.", (), RATIOS,
           counts=Of(Finished, lambda ended: [((), predicted_over_seen(ended))])),
    Metric("herd_queue_wait_seconds", "histogram", "Wait for a slot; 0 for a request that got one at once.",
           (MODEL,), WAITS, counts=Of(Finished, lambda ended: [((model_of(ended),), queue_wait_s(ended))])),
    Metric("herd_queue_rejected_total", "counter", "Requests refused by the queue.", (QUEUE_REASON,),
           counts=Of(Finished, lambda ended: [((ended.error_type,), 1)] if ended.error_type else [])),
    Metric("herd_retries_total", "counter", "Attempts that were followed by another, by why they failed.",
           (RETRY_REASON,),
           counts=Of(Finished, lambda ended: [((attempt.error_type,), 1) for attempt in ended.attempts[:-1]])),
    Metric("herd_retries_exhausted_total", "counter",
           "Requests that failed on an error that another node might not have had.", (GIVEN_UP,),
           counts=Of(Finished, lambda ended: [
               ((last.error_type,), 1) for last in ended.attempts[-1:] if ended.status is Status.FAILED])),
    Metric("herd_retry_budget_exhausted_total", "counter",
           "Requests not tried again because too many others were being retried, by why they failed.", (RETRY_REASON,),
           counts=Of(AttemptFailed, lambda failed: [((failed.attempt.error_type,), 1)] if failed.budget_spent else [])),
    Metric("herd_fallbacks_total", "counter", "Requests answered by another model than the one asked for.",
           (FROM_MODEL, TO_MODEL, FALLBACK_REASON), counts=Of(Finished, lambda ended: [
               ((ended.request.model, model_of(ended), ended.fallback_reason), 1)
           ] if ended.request and ended.fallback_used else [])),
    Metric("herd_context_protection_total", "counter", "Times that a num_ctx would have made a node reload a model.",
           (ACTION,), counts=Of(ContextProtected, lambda protected: [((protected.action.action,), 1)])),
    Metric("herd_zombies_reaped_total", "counter", "Requests ended because nothing moved beyond every limit.", (NODE,),
           counts=Of(FleetChanged, lambda change: [((change.node_id,), 1)] if change.kind == "zombie_reaped" else [])),
    Metric("herd_upstream_requests_total", "counter", "Attempts, by the class of the node's answer.",
           (NODE, CODE_CLASS), counts=Of(Finished, lambda ended: [
               ((attempt.node_id, code_class(attempt.http_status)), 1) for attempt in ended.attempts])),
    Metric("herd_upstream_duration_seconds", "histogram", "Length of one attempt.", (NODE,), ATTEMPTS,
           counts=Of(Finished, lambda ended: [
               ((attempt.node_id,), attempt.ended_at - attempt.started_at) for attempt in ended.attempts])),
    Metric("herd_upstream_time_to_first_token_seconds", "histogram",
           "From an attempt's start to its first content, streams only.", (NODE,), FIRST_TOKEN_OF_NODE,
           counts=Of(Finished, lambda ended: [
               ((attempt.node_id,), first_token_s(attempt)) for attempt in ended.attempts
           ] if streamed(ended) else [])),
    Metric("herd_upstream_time_per_output_token_seconds", "histogram",
           "From one output token of a node to the next, streams only.", (NODE,), PER_TOKEN_OF_NODE,
           counts=Of(Finished, lambda ended: [((node_of(ended),), ended.time_per_output_token_s)])),
    Metric("herd_model_loads_total", "counter", f"Cold loads: the engine says that it loaded for over {COLD_LOAD_S} s.",
           (NODE, MODEL), counts=Of(Finished, lambda ended: [
               ((node_of(ended), ended.model), 1)] if cold_load_s(ended) else [])),
    Metric("herd_model_load_seconds", "histogram", "Length of a cold load.", (NODE,), LOADS,
           counts=Of(Finished, lambda ended: [((node_of(ended),), cold_load_s(ended))])),
    Metric("herd_tag_requests_total", "counter",
           "Requests ended, once for each of their tags; none unless the setting metric_tags is on.", (TAG,),
           counts=Of(Finished, lambda ended: [
               ((tag,), 1) for tag in (ended.request.tags if ended.request else ())])),
    Metric("herd_tag_tokens_total", "counter", "Tokens, once for each of their request's tags; likewise.",
           (TAG, TOKEN_TYPE), counts=Of(Finished, lambda ended: [
               count for tag in (ended.request.tags if ended.request else ()) for count in tokens(ended.usage, tag)])),
)  # fmt: skip
