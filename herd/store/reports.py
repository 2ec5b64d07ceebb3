"""Sums over the traces: by tag, by tag and day, by node, model and day.

Days are UTC days, windows the last so many times 24 hours. Latency is that of completed requests, since others end when
they please; time to first token is that of every stream that came so far.
"""

import sqlite3
from typing import Any, Final

Document = dict[str, Any]

_DAY: Final = "date(timestamp, 'unixepoch')"
_BY_STATUS: Final = """
    COUNT(*) AS request_count,
    SUM(status = 'completed') AS completed_count,
    SUM(status = 'failed') AS failed_count,
    SUM(status = 'incomplete') AS incomplete_count,
    SUM(status = 'client_disconnected') AS client_disconnected_count,
    SUM(status = 'rejected') AS rejected_count,
    ROUND(100.0 * SUM(status = 'failed') / COUNT(*), 2) AS error_rate_pct,
    ROUND(AVG(CASE WHEN status = 'completed' THEN latency_ms END), 3) AS avg_latency_ms,
    ROUND(AVG(time_to_first_token_ms), 3) AS avg_ttft_ms,
    SUM(COALESCE(prompt_tokens, 0)) AS total_prompt_tokens,
    SUM(COALESCE(completion_tokens, 0)) AS total_completion_tokens"""
# The narrow index by name: the planner would take the one by day, and look every row up in the table.
_RECENT: Final = "request_traces INDEXED BY traces_by_time"
_TAGGED: Final = f"""
    SELECT {_DAY} AS day, value AS tag, timestamp, status, latency_ms, time_to_first_token_ms, prompt_tokens,
        completion_tokens
    FROM {_RECENT}, json_each(tags) WHERE timestamp >= :since AND tags IS NOT NULL"""


def apps(connection: sqlite3.Connection, since: float) -> list[Document]:
    """What each tag's requests came to, the busiest tag first; a request with two tags counts under both."""
    return _by_tag(connection, since, ("tag",), "request_count DESC, tag")


def apps_daily(connection: sqlite3.Connection, since: float) -> list[Document]:
    """The same by day, the latest day first."""
    return _by_tag(connection, since, ("day", "tag"), "day DESC, request_count DESC, tag")


def usage(connection: sqlite3.Connection, since: float) -> list[Document]:
    """What each node did with each model on each day; None where no node or no model came into it."""
    query = f"""
        SELECT {_DAY} AS day, node_id, model, {_BY_STATUS},
            SUM(retry_count) AS retry_count, SUM(fallback_used) AS fallback_count
        FROM {_RECENT} WHERE timestamp >= :since
        GROUP BY day, node_id, model ORDER BY day DESC, request_count DESC, node_id, model
    """
    return [dict(row) for row in connection.execute(query, {"since": since})]


def _by_tag(connection: sqlite3.Connection, since: float, group: tuple[str, ...], order: str) -> list[Document]:
    key = ", ".join(group)
    found = connection.execute(
        f"""WITH tagged AS ({_TAGGED})
            SELECT {key}, {_BY_STATUS}, MIN(timestamp) AS first_seen, MAX(timestamp) AS last_seen
            FROM tagged GROUP BY {key} ORDER BY {order}""",
        {"since": since},
    )
    slow = _p95(connection, since, group)
    return [{**dict(row), "p95_latency_ms": slow.get(tuple(row[name] for name in group))} for row in found]


def _p95(connection: sqlite3.Connection, since: float, group: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    """The least latency that 95 of 100 completed requests did not exceed, by group."""
    key = ", ".join(group)
    found = connection.execute(
        f"""WITH done AS (SELECT {key}, latency_ms FROM ({_TAGGED}) WHERE status = 'completed'),
            wanted AS (SELECT {key}, (95 * COUNT(*) + 99) / 100 AS place FROM done GROUP BY {key}),
            ranked AS (
                SELECT {key}, latency_ms, ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY latency_ms) AS place FROM done
            )
            SELECT {key}, latency_ms FROM ranked JOIN wanted USING ({key}, place)""",
        {"since": since},
    )
    return {tuple(row[name] for name in group): row["latency_ms"] for row in found}
