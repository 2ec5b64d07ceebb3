"""The dashboard Rows: single requests, read from herd's own database by Grafana's SQLite data source if it is there.

What metrics cannot show: one request, its id, its error's words, its tags. Every query stays within the time shown and
reads what an index gives; the test runs each against a real database that is opened for reading only.
"""

from typing import Final

from grafana.panels import Panel, Row, Target

SHOWN: Final = "timestamp >= $__from / 1000.0 AND timestamp < $__to / 1000.0"
AT: Final = "at >= $__from / 1000.0 AND at < $__to / 1000.0"


def _table(title: str, description: str, query: str, runbook: str, width: int = 24, height: int = 9) -> Panel:
    return Panel(title, description, "none", (Target(query, shape="sql"),), runbook, "table", width, height)


REQUESTS: Final = Row("Requests", (
    _table("Latest requests", "The newest 200; `herd explain` tells the rest of any id.",
           "SELECT timestamp AS time, request_id, model, node_id, status, http_status, error_type, latency_ms, "
           "time_to_first_token_ms AS ttft_ms, prompt_tokens, completion_tokens, retry_count, tags, trace_id "
           f"FROM request_traces WHERE {SHOWN} ORDER BY timestamp DESC LIMIT 200", "errorbudgetburn"),
    _table("Slowest requests", "The 50 that took longest, with what of it was waiting, loading and herd's own.",
           "SELECT timestamp AS time, request_id, model, node_id, latency_ms, queue_ms, load_ms, "
           "time_to_first_token_ms AS ttft_ms, overhead_ms, completion_tokens "
           f"FROM request_traces WHERE {SHOWN} ORDER BY latency_ms DESC LIMIT 50", "ttftbudgetburn"),
))  # fmt: skip

WRONG: Final = Row("What went wrong", (
    _table("Errors by node", "How often, when last, and in whose words.",
           "SELECT error_type, node_id, model, COUNT(*) AS requests, MAX(timestamp) AS time, error_message "
           f"FROM request_traces WHERE {SHOWN} AND error_type IS NOT NULL "
           "GROUP BY error_type, node_id, model ORDER BY requests DESC", "errorbudgetburn"),
    _table("Attempts that failed", "Those too that a retry made good, which no request's status shows.",
           "SELECT started_at AS time, request_id, number, node_id, model, http_status, error_type, error_message "
           "FROM request_attempts WHERE error_type IS NOT NULL AND request_id IN "
           f"(SELECT request_id FROM request_traces WHERE {SHOWN} AND (retry_count > 0 OR error_type IS NOT NULL)) "
           "ORDER BY started_at DESC LIMIT 200", "errorbudgetburn"),
))  # fmt: skip

WHO: Final = Row("Who asked, and what the fleet did", (
    _table("By tag", "A request with two tags counts for both.",
           "SELECT tag.value AS tag, COUNT(*) AS requests, SUM(status = 'failed') AS failed, "
           "ROUND(AVG(latency_ms)) AS mean_ms, SUM(prompt_tokens) AS input_tokens, "
           "SUM(completion_tokens) AS output_tokens "
           f"FROM request_traces, json_each(request_traces.tags) AS tag WHERE {SHOWN} "
           "GROUP BY tag.value ORDER BY requests DESC", "errorbudgetburn", 12),
    _table("Fleet events", "Joins, losses, loads, fallbacks, breakers, settings: the newest 200.",
           "SELECT at AS time, kind, node_id, model, data "
           f"FROM fleet_events WHERE {AT} ORDER BY at DESC LIMIT 200", "nodeflapping", 12),
))  # fmt: skip

ROWS: Final = (REQUESTS, WRONG, WHO)
