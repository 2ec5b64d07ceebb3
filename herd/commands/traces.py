"""`herd traces`: the latest requests, newest first."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from herd.commands.moments import local, milliseconds
from herd.commands.output import cell, show, show_json, table
from herd.commands.records import first_that_knows, short
from herd.store.traces import TraceFilter

HEAD: Final = ("TIME", "REQUEST", "MODEL", "NODE", "STATUS", "TTFT", "LATENCY", "TOKENS", "RETRIES", "TAGS")
PRIORITY: Final = ("REQUEST", "STATUS", "MODEL", "LATENCY", "NODE", "TTFT", "TIME", "TOKENS", "TAGS", "RETRIES")
RIGHT: Final = ("TTFT", "LATENCY", "TOKENS", "RETRIES")
Trace = Mapping[str, Any]


def run(arguments: argparse.Namespace) -> int:
    """Print the newest requests that the filters let through."""
    which = TraceFilter(
        status=arguments.status, model=arguments.model, node_id=arguments.node, tag=arguments.tag,
        since=arguments.since, q=arguments.q, min_latency_ms=arguments.slower_than and arguments.slower_than * 1000,
        tried=arguments.tried, retried=arguments.retried or None,
    )  # fmt: skip
    found = first_that_knows(arguments, lambda records: records.page(which, arguments.limit))
    if arguments.json:
        show_json({"traces": found})
    elif found:
        show(table(HEAD, [_row(trace) for trace in found], RIGHT, PRIORITY))
    else:
        show("No requests yet." if which == TraceFilter() else "No matching requests.")
    return 0


def _row(trace: Trace) -> tuple[object, ...]:
    return (
        local(trace["timestamp"]),
        short(trace["request_id"]),
        _model(trace),
        trace["node_id"],
        _status(trace),
        milliseconds(trace["time_to_first_token_ms"]),
        milliseconds(trace["latency_ms"]),
        _tokens(trace),
        trace["retry_count"],
        ", ".join(trace["tags"] or ()) or None,
    )


def _model(trace: Trace) -> str | None:
    asked, served = trace["original_model"], trace["model"]
    return f"{asked} → {served}" if trace["fallback_used"] else served


def _status(trace: Trace) -> Text:
    told = cell(trace["status"])
    return told.append_text(cell(f" {trace['error_type']}", "")) if trace["error_type"] else told


def _tokens(trace: Trace) -> str | None:
    counts = (trace["prompt_tokens"], trace["completion_tokens"])
    return None if counts == (None, None) else "+".join("?" if count is None else str(count) for count in counts)
