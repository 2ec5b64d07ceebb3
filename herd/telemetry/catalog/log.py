"""Every field of the log's lines, as a table."""

from typing import Final

from herd.telemetry.catalog.shapes import Entry

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
