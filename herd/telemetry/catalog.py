"""Every metric, span attribute and log field, declared once, as tables.

The sinks are built from it, `docs/metrics.md` is generated from it, and what is not declared here is not recorded.
It holds no state; closed lists of label values are the core's own enums.
"""

from dataclasses import dataclass
from typing import Final, Literal

from herd.core.breaker import BreakerState
from herd.core.events import Status
from herd.core.finding import Severity
from herd.core.routing import Reason, RejectionReason
from herd.core.signals import SIGNALS
from herd.errors import AttemptError, error_types
from herd.health.checks import CHECKS
from herd.telemetry import semconv
from herd.telemetry.semconv import OPERATIONS

Kind = Literal["counter", "gauge", "histogram", "info"]

UNKNOWN: Final = "_unknown"  # a value that the fleet does not know, or one too many
NO_NODE: Final = "_none"  # the request ended before a node was chosen
MAX_MODELS: Final = 200
MAX_NODES: Final = 64
# Series made before their first use stop here. Up to 10 nodes with 20 models all of them are made, and with everything
# in use the exposition stays under 5,000 samples; in a larger fleet what is used comes on top, as it is used.
EAGER_LINES: Final = 4500
COLD_LOAD_S: Final = 0.5  # an engine that reports a longer load had to fetch the model
STALL_S: Final = 0.1  # an event loop that comes this late has stalled
NO_USAGE: Final = frozenset({"/api/embeddings"})  # Ollama's older embedding answer has no counts at all
NO_ANSWER: Final = frozenset({"load", "unload"})  # what Ollama says to a request without a prompt: nothing was written


@dataclass(frozen=True, slots=True)
class Label:
    """A label: its meaning, and its closed list of values; open (None) only for names that the fleet gives."""

    name: str
    help: str
    values: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric; `buckets` are upper bounds in the metric's unit, `spare` says that no dashboard or alert needs it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    exemplar: bool = False
    spare: bool = False

    @property
    def lines(self) -> int:
        """Lines of the exposition that one series takes."""
        return len(self.buckets) + 3 if self.kind == "histogram" else 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A span attribute or a log field: its name, where it stands, and what it says."""

    name: str
    where: str
    help: str


RETRYABLE: Final = tuple(
    dict.fromkeys(kind.error_type for kind in AttemptError.__subclasses__() if kind.retryable)
)  # fmt: skip
STATUSES: Final = tuple(status.value for status in Status)
CODE_CLASSES: Final = ("2xx", "3xx", "4xx", "5xx", "none")
TOKEN_TYPES: Final = ("input", "output", "cached_input", "reasoning")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

NODE: Final = Label("node", f"node_id; `{NO_NODE}` where there is none, `{UNKNOWN}` for one that is not of the fleet")
MODEL: Final = Label("model", f"model that answered or was asked for; `{UNKNOWN}` if the fleet does not know it")
ENDPOINT: Final = Label("endpoint", "path of the request", (*OPERATIONS, UNKNOWN))
STATUS: Final = Label("status", "how the request ended, as in its row", STATUSES)
STREAM: Final = Label("stream", "whether the answer was streamed", ("true", "false"))
ERROR_TYPE: Final = Label("error_type", "as in the row", error_types())
TOKEN_TYPE: Final = Label("type", "which tokens", TOKEN_TYPES)
RETRY_REASON: Final = Label("reason", "`error_type` of the attempt that failed", RETRYABLE)
REASON: Final = Label("reason", "why this node", tuple(reason.value for reason in Reason))
REJECTION: Final = Label("reason", "why not", tuple(reason.value for reason in RejectionReason))
SIGNAL: Final = Label("signal", "one of the seven", tuple(SIGNALS))
QUEUE_REASON: Final = Label("reason", "full, or waited too long", ("queue_full", "queue_timeout"))
FALLBACK_REASON: Final = Label("reason", "as in the row", ("loaded_alternative", "model_unavailable", "retry"))
FROM_MODEL: Final = Label("from_model", "model asked for")
TO_MODEL: Final = Label("to_model", "model that answered")
ACTION: Final = Label("action", "what was done about num_ctx", ("stripped", "moved", "warned"))
BREAKER_TO: Final = Label("to", "what it became", (BreakerState.OPEN.value, BreakerState.CLOSED.value))
CODE_CLASS: Final = Label("code_class", "class of the node's HTTP status; none without an answer", CODE_CLASSES)
OUTCOME: Final = Label("outcome", "what became of the row", ("written", "dropped", "failed"))
LEVEL: Final = Label("level", "level of the line", LEVELS)
OVERFLOWN: Final = Label("label", "which label", ("model", "node", "tag"))
TAG: Final = Label("tag", f"a caller's tag; `{UNKNOWN}` for one more than the setting metric_tags lets in")
MEMORY_KIND: Final = Label("kind", "which bytes", ("total", "used", "available"))
GPU: Final = Label("gpu", "index of the accelerator")
GPU_KIND: Final = Label("kind", "which bytes", ("total", "used"))
VERSION: Final = Label("version", "version of the software")
ENGINE: Final = Label("engine", "kind of the inference server")
ENGINE_VERSION: Final = Label("engine_version", "version of the inference server")

CHECK: Final = Label("check_id", "the health check", tuple(check.check_id for check in CHECKS))
SEVERITY: Final = Label("severity", "how bad", tuple(severity.value for severity in Severity))

DURATIONS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
FIRST_TOKEN: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
PER_TOKEN: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
WAITS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
LOADS: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0)
DECISIONS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
OVERHEADS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
LAGS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
COMMITS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
RATIOS: Final = (0.1, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0, 10.0)
SIGNALLED: Final = (-10.0, -1.0, -0.1, 0.0, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

METRICS: Final = (
    Metric("herd_requests_total", "counter", "Requests ended.", (ENDPOINT, MODEL, STATUS)),
    Metric("herd_requests_finished_total", "counter",
           "Requests ended, whatever their model: what `herd audit` compares, since series by model leave with it.",
           (STATUS,)),
    Metric("herd_request_errors_total", "counter", "Requests that ended with an error, by its type.",
           (ERROR_TYPE, NODE)),
    Metric("herd_request_duration_seconds", "histogram", "From receipt to end.", (MODEL, STREAM), DURATIONS, True),
    Metric("herd_time_to_first_token_seconds", "histogram", "From receipt to the first content, streams only.",
           (MODEL,), FIRST_TOKEN, True),
    Metric("herd_time_per_output_token_seconds", "histogram", "From one output token to the next, streams only.",
           (MODEL,), PER_TOKEN),
    Metric("herd_tokens_total", "counter", "Tokens; output includes reasoning, input includes cached_input.",
           (MODEL, NODE, TOKEN_TYPE)),
    Metric("herd_tokens_finished_total", "counter", "Tokens, whatever their model: what `herd audit` compares.",
           (TOKEN_TYPE,), spare=True),
    Metric("herd_usage_missing_total", "counter", "Completed answers without token counts.", (MODEL,)),
    Metric("herd_requests_in_flight", "gauge", "Requests that a node works on.", (NODE,)),
    Metric("herd_oldest_request_timestamp_seconds", "gauge",
           "When the oldest unfinished request was received; no sample while there is none."),
    Metric("herd_routing_decisions_total", "counter", "Attempts by node and by why they went there.", (NODE, REASON)),
    Metric("herd_candidates_rejected_total", "counter", "Nodes left out of decisions before scoring.", (REJECTION,)),
    Metric("herd_signal_seconds", "histogram",
           "Seconds that the chosen node was predicted to cost, by signal, less than 0 where it saves; buckets only.",
           (SIGNAL,), SIGNALLED),
    Metric("herd_routing_decision_duration_seconds", "histogram", "Time to decide.", (), DECISIONS),
    Metric("herd_overhead_seconds", "histogram", "What herd itself took: total less upstream less queue.",
           (), OVERHEADS),
    Metric("herd_predicted_ttft_error_ratio", "histogram",
           "Predicted time to first token over the one seen; 1 is right, streams with one attempt only.", (), RATIOS),
    Metric("herd_queue_wait_seconds", "histogram", "Wait for a slot; 0 for a request that got one at once.",
           (MODEL,), WAITS),
    Metric("herd_queue_depth", "gauge", "Requests that wait for a slot.", (MODEL,)),
    Metric("herd_queue_rejected_total", "counter", "Requests refused by the queue.", (QUEUE_REASON,)),
    Metric("herd_retries_total", "counter", "Attempts that were followed by another, by why they failed.",
           (RETRY_REASON,)),
    Metric("herd_retries_exhausted_total", "counter",
           "Requests that failed on an error that another node might not have had.", (RETRY_REASON,)),
    Metric("herd_retry_budget_exhausted_total", "counter",
           "Requests not tried again because too many others were being retried, by why they failed.", (RETRY_REASON,)),
    Metric("herd_fallbacks_total", "counter", "Requests answered by another model than the one asked for.",
           (FROM_MODEL, TO_MODEL, FALLBACK_REASON)),
    Metric("herd_context_protection_total", "counter", "Times that a num_ctx would have made a node reload a model.",
           (ACTION,)),
    Metric("herd_zombies_reaped_total", "counter", "Requests ended because nothing moved beyond every limit.", (NODE,)),
    Metric("herd_breaker_state", "gauge", "Worst breaker of a node's models: 0 closed, 1 half open, 2 open.", (NODE,)),
    Metric("herd_breaker_transitions_total", "counter", "Times that a breaker opened or closed.", (NODE, BREAKER_TO)),
    Metric("herd_upstream_requests_total", "counter", "Attempts, by the class of the node's answer.",
           (NODE, CODE_CLASS)),
    Metric("herd_upstream_duration_seconds", "histogram", "Length of one attempt.", (NODE,), DURATIONS),
    Metric("herd_model_loads_total", "counter", f"Cold loads: the engine says that it loaded for over {COLD_LOAD_S} s.",
           (NODE, MODEL)),
    Metric("herd_model_load_seconds", "histogram", "Length of a cold load.", (NODE,), LOADS),
    Metric("herd_models_loaded", "gauge", "Models in memory.", (NODE,)),
    Metric("herd_model_vram_bytes", "gauge", "Video memory that a loaded model takes.", (NODE, MODEL)),
    Metric("herd_node_up", "gauge", "1 while the node sends heartbeats and did not leave.", (NODE,)),
    Metric("herd_node_ready", "gauge",
           "1 while new requests may go there: up, engine reachable, not draining, memory pressure not critical.",
           (NODE,)),
    Metric("herd_node_left", "gauge", "1 once the node has left in order; it is not missed then.", (NODE,)),
    Metric("herd_node_info", "info", "Versions of a node's software.", (NODE, VERSION, ENGINE, ENGINE_VERSION)),
    Metric("herd_node_last_seen_timestamp_seconds", "gauge", "When the last heartbeat came.", (NODE,)),
    Metric("herd_node_draining", "gauge", "1 while the node takes no new request.", (NODE,)),
    Metric("herd_node_cpu_ratio", "gauge", "Processor utilisation, 0 to 1.", (NODE,)),
    Metric("herd_node_memory_bytes", "gauge", "Main memory.", (NODE, MEMORY_KIND)),
    Metric("herd_node_memory_pressure", "gauge", "As the system sees it: 0 normal, 1 warn, 2 critical.", (NODE,)),
    Metric("herd_node_gpu_memory_bytes", "gauge", "Accelerator memory.", (NODE, GPU, GPU_KIND)),
    Metric("herd_node_gpu_utilization_ratio", "gauge", "Accelerator utilisation, 0 to 1, where it can be read.",
           (NODE, GPU)),
    Metric("herd_node_disk_free_bytes", "gauge", "Free on the disk that holds the models.", (NODE,)),
    Metric("herd_tag_requests_total", "counter",
           "Requests ended, once for each of their tags; none unless the setting metric_tags is on.", (TAG,)),
    Metric("herd_tag_tokens_total", "counter", "Tokens, once for each of their request's tags; likewise.",
           (TAG, TOKEN_TYPE)),
    Metric("herd_event_loop_lag_seconds", "histogram", "How late a 10 ms timer of the event loop came.", (), LAGS),
    Metric("herd_event_loop_stalls_total", "counter", f"Times that it came over {STALL_S:g} s late."),
    Metric("herd_event_loop_tasks", "gauge", "Tasks of the event loop; at rest the same as ever, or something leaks.",
           spare=True),
    Metric("herd_trace_rows_total", "counter", "Rows handed to the trace store.", (OUTCOME,)),
    Metric("herd_trace_store_commit_seconds", "histogram", "Length of one commit.", (), COMMITS),
    Metric("herd_trace_store_bytes", "gauge", "Size of the database's files."),
    Metric("herd_trace_store_up", "gauge", "1 while rows can be written."),
    Metric("herd_spans_exported_total", "counter", "Spans that the collector took."),
    Metric("herd_spans_dropped_total", "counter", "Spans that were lost: queue full, or not taken by the collector."),
    Metric("herd_log_lines_total", "counter", "Lines written to the log file.", (LEVEL,)),
    Metric("herd_log_dropped_total", "counter", "Log lines that were lost: queue full, or the file not writable."),
    Metric("herd_sink_failures_total", "counter", "Events that a telemetry sink raised on: defects of herd's own."),
    Metric("herd_label_overflow_total", "counter",
           f"Uses of a label value beyond the cap ({MAX_MODELS} models, {MAX_NODES} nodes), counted as `{UNKNOWN}`.",
           (OVERFLOWN,)),
    Metric("herd_health_findings", "gauge", "Findings of the health checks, silenced ones left out.",
           (CHECK, SEVERITY)),
    Metric("herd_health_score", "gauge", "100 less 20 for each critical finding and 10 for each warning."),
    Metric("herd_build_info", "info", "Version of the router.", (VERSION,)),
    Metric("herd_start_time_seconds", "gauge", "When the counters began."),
)  # fmt: skip
BY_NAME: Final = {metric.name: metric for metric in METRICS}

SERVER: Final = "SERVER"
ROUTE: Final = "herd.route"
CANDIDATE: Final = "candidate event"
CLIENT: Final = "CLIENT"
ATTRIBUTES: Final = (
    Entry(semconv.HTTP_REQUEST_METHOD, SERVER, "method"),
    Entry(semconv.HTTP_ROUTE, SERVER, "path, with what differs in every request replaced"),
    Entry(semconv.URL_PATH, SERVER, "path"),
    Entry(semconv.URL_SCHEME, SERVER, "scheme"),
    Entry(
        semconv.HTTP_RESPONSE_STATUS_CODE,
        SERVER,
        "status code of the answer; 499 where the client left",
    ),
    Entry(semconv.CLIENT_ADDRESS, SERVER, "address of the client"),
    Entry(semconv.ERROR_TYPE, SERVER, "`error_type`, only where the request failed on herd's side"),
    Entry(semconv.GEN_AI_REQUEST_MODEL, SERVER, "model asked for"),
    Entry(semconv.GEN_AI_REQUEST_STREAM, SERVER, "whether a stream was asked for"),
    Entry("herd.request_id", SERVER, "the request's id in row, log and response header"),
    Entry("herd.status", SERVER, "how the request ended; management requests have none"),
    Entry("herd.error_type", SERVER, "`error_type` as in the row, refusals too"),
    Entry("herd.retries", SERVER, "attempts beyond the first"),
    Entry("herd.tags", SERVER, "the caller's tags"),
    Entry("herd.node", SERVER, "node that a management request went to"),
    Entry("herd.node", ROUTE, "node that was chosen"),
    Entry("herd.score", ROUTE, "its score: the negative sum of its seconds"),
    Entry("herd.reason", ROUTE, "why the node that answered or was last tried was taken; `retry` if others failed"),
    Entry("herd.candidates", ROUTE, "entries of the plan"),
    Entry("herd.rejected", ROUTE, "entries left out"),
    Entry("herd.model.requested", ROUTE, "model asked for"),
    Entry("herd.model.served", ROUTE, "model that answered or was last tried"),
    Entry("herd.fallback", ROUTE, "whether the two differ"),
    Entry("herd.fallback_reason", ROUTE, "why"),
    Entry("herd.context.action", ROUTE, "what was done about num_ctx"),
    Entry("herd.node", CANDIDATE, "node"),
    Entry("herd.model", CANDIDATE, "model"),
    *(Entry(f"herd.signal.{name}", CANDIDATE, f"seconds of {name}") for name in SIGNALS),
    Entry("herd.total", CANDIDATE, "their sum"),
    Entry("herd.rejection", CANDIDATE, "why the node was left out"),
    Entry(semconv.GEN_AI_OPERATION_NAME, CLIENT, "chat, text_completion or embeddings"),
    Entry(semconv.GEN_AI_PROVIDER_NAME, CLIENT, "the node's engine"),
    Entry(semconv.GEN_AI_REQUEST_MODEL, CLIENT, "model that the node was asked for"),
    Entry(semconv.GEN_AI_REQUEST_STREAM, CLIENT, "whether a stream was asked for"),
    Entry(semconv.GEN_AI_REQUEST_MAX_TOKENS, CLIENT, "the client's limit"),
    Entry(semconv.GEN_AI_REQUEST_TEMPERATURE, CLIENT, "as the client asked"),
    Entry(semconv.GEN_AI_REQUEST_TOP_P, CLIENT, "as the client asked"),
    Entry(semconv.GEN_AI_REQUEST_TOP_K, CLIENT, "as the client asked"),
    Entry(semconv.GEN_AI_REQUEST_SEED, CLIENT, "as the client asked"),
    Entry(
        semconv.GEN_AI_REQUEST_STOP_SEQUENCES,
        CLIENT,
        "as the client asked; at most 16, longer ones than 64 characters left out",
    ),
    Entry(semconv.GEN_AI_REQUEST_PRESENCE_PENALTY, CLIENT, "as the client asked"),
    Entry(semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY, CLIENT, "as the client asked"),
    Entry(semconv.GEN_AI_REQUEST_CHOICE_COUNT, CLIENT, "answers asked for, where it is not one"),
    Entry(semconv.GEN_AI_REQUEST_ENCODING_FORMATS, CLIENT, "as the client asked, embeddings"),
    Entry(semconv.GEN_AI_RESPONSE_MODEL, CLIENT, "model that answered"),
    Entry(semconv.GEN_AI_RESPONSE_FINISH_REASONS, CLIENT, "why the answer ended"),
    Entry(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, CLIENT, "seconds from the attempt's start, streams only"),
    Entry(semconv.GEN_AI_USAGE_INPUT_TOKENS, CLIENT, "tokens of the prompt"),
    Entry(semconv.GEN_AI_USAGE_OUTPUT_TOKENS, CLIENT, "tokens of the answer"),
    Entry(semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, CLIENT, "tokens of the prompt that came from a cache"),
    Entry(semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, CLIENT, "tokens of the answer that are reasoning"),
    Entry(semconv.HTTP_REQUEST_METHOD, CLIENT, "method, on a management request's call"),
    Entry(semconv.URL_FULL, CLIENT, "address that was called, on a management request's call"),
    Entry(semconv.SERVER_ADDRESS, CLIENT, "host of the node's engine"),
    Entry(semconv.SERVER_PORT, CLIENT, "port of the node's engine"),
    Entry(semconv.HTTP_RESPONSE_STATUS_CODE, CLIENT, "status code that the node answered"),
    Entry(semconv.HTTP_REQUEST_RESEND_COUNT, CLIENT, "which retry this is"),
    Entry(semconv.ERROR_TYPE, CLIENT, "`error_type` of the attempt"),
    Entry("herd.node", CLIENT, "node"),
    Entry("herd.attempt", CLIENT, "number of the attempt, from 1"),
    Entry("herd.reason", CLIENT, "why the attempt went there, as `herd_routing_decisions_total` counts it"),
    Entry("herd.reconnected", CLIENT, "true where a pooled connection was dead and a fresh one was used"),
    Entry("herd.tokens_source", CLIENT, "where the token counts come from: reported, counted or missing"),
    Entry("herd.ollama.load_s", CLIENT, "seconds that the engine loaded"),
    Entry("herd.ollama.prompt_eval_s", CLIENT, "seconds that the engine read the prompt"),
    Entry("herd.ollama.eval_s", CLIENT, "seconds that the engine wrote"),
)

EVERY: Final = "every line"
FINISHED: Final = "request_finished"
ATTEMPT_FAILED: Final = "attempt_failed"
STREAM_ERROR: Final = "Stream error …"
CONTEXT: Final = "Context protection: …"
FLEET: Final = "fleet changes"
MANAGED: Final = "management_request"
FINDING: Final = "finding_…"
LOG_FIELDS: Final = (
    Entry("timestamp", EVERY, "when, ISO 8601 in UTC"),
    Entry("level", EVERY, "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    Entry("logger", EVERY, "who says it"),
    Entry("event", EVERY, "what happened"),
    Entry("exception", EVERY, "traceback, where there is one"),
    Entry("stack", EVERY, "stack, where one was asked for"),
    Entry("received_at", FINISHED, "the row's `timestamp`, unix seconds"),
    Entry("…", FINISHED, "all other columns of the request's row but `id` and `decision`, under their own names"),
    *(Entry(name, ATTEMPT_FAILED, "of the attempt") for name in (
        "request_id", "trace_id", "span_id", "attempt", "node_id", "model", "http_status", "error_type",
        "error_message", "duration_ms", "will_retry")),
    *(Entry(name, STREAM_ERROR, "of the request") for name in (
        "request_id", "trace_id", "node_id", "model", "error_type", "error_message")),
    *(Entry(name, CONTEXT, "of the request") for name in (
        "request_id", "trace_id", "node_id", "model", "action", "num_ctx_asked", "num_ctx_loaded")),
    Entry("node_id", FLEET, "node, where the change has one"),
    Entry("model", FLEET, "model, where the change has one"),
    Entry("data", FLEET, "what else belongs to the change"),
    *(Entry(name, MANAGED, "of the request") for name in (
        "request_id", "trace_id", "span_id", "endpoint", "model", "node_id", "http_status", "latency_ms",
        "error_type", "error_message")),
    *(Entry(name, FINDING, "of the finding") for name in (
        "finding_id", "check_id", "severity", "node_id", "model", "title", "description")),
    Entry("note", FINDING, "what was said when it was acknowledged"),
    Entry("silenced_until", FINDING, "unix seconds, where it is silenced"),
    Entry("count", "log_lines_dropped", "lines that could not be written before this one"),
)  # fmt: skip
