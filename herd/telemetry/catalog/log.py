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
    Entry("timestamp", EVERY, "time, ISO 8601 in UTC"),
    Entry("level", EVERY, "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    Entry("logger", EVERY, "component that logged it"),
    Entry("event", EVERY, "what happened"),
    Entry("exception", EVERY, "traceback, if any"),
    Entry("stack", EVERY, "stack, if requested"),
    Entry("received_at", FINISHED, "the row's `timestamp`, unix seconds"),
    Entry("…", FINISHED, "all other columns of the request's row except `id` and `decision`"),
    *(Entry(name, ATTEMPT_FAILED, "attempt's field") for name in (
        "request_id", "trace_id", "span_id", "attempt", "node_id", "model", "http_status", "error_type",
        "error_message", "duration_ms", "will_retry")),
    *(Entry(name, STREAM_ERROR, "request's field") for name in (
        "request_id", "trace_id", "node_id", "model", "error_type", "error_message")),
    *(Entry(name, CONTEXT, "request's field") for name in (
        "request_id", "trace_id", "node_id", "model", "action", "num_ctx_asked", "num_ctx_loaded")),
    Entry("node_id", FLEET, "node, if any"),
    Entry("model", FLEET, "model, if any"),
    Entry("data", FLEET, "further details of the change"),
    *(Entry(name, MANAGED, "request's field") for name in (
        "request_id", "trace_id", "span_id", "endpoint", "model", "node_id", "http_status", "latency_ms",
        "error_type", "error_message")),
    *(Entry(name, FINDING, "finding's field") for name in (
        "finding_id", "check_id", "severity", "node_id", "model", "title", "description")),
    Entry("note", FINDING, "operator's note on acknowledging it"),
    Entry("silenced_until", FINDING, "end of the silence in unix seconds, if silenced"),
    Entry("count", "log_lines_dropped", "lines lost before this one"),
)  # fmt: skip
