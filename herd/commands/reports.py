"""`herd apps`, `herd usage`, `herd models`: who used what, as tables."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from herd.commands.moments import milliseconds
from herd.commands.output import show, show_json, table
from herd.commands.places import router_url
from herd.commands.router import ask

Row = Mapping[str, Any]
COLUMNS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "apps": (("TAG", "tag"), ("REQUESTS", "request_count"), ("ERRORS", "error_rate_pct"), ("LATENCY", "avg_latency_ms"),
             ("PROMPT TOKENS", "total_prompt_tokens"), ("COMPLETION TOKENS", "total_completion_tokens")),
    "usage": (("DAY", "day"), ("NODE", "node_id"), ("MODEL", "model"), ("REQUESTS", "request_count"),
              ("ERRORS", "error_rate_pct"), ("LATENCY", "avg_latency_ms"),
              ("PROMPT TOKENS", "total_prompt_tokens"), ("COMPLETION TOKENS", "total_completion_tokens")),
    "models": (("MODEL", "model"), ("REQUESTS", "request_count"), ("ERRORS", "error_rate_pct"),
               ("LATENCY", "avg_latency_ms"), ("PROMPT TOKENS", "total_prompt_tokens"),
               ("COMPLETION TOKENS", "total_completion_tokens")),
}  # fmt: skip
NAMES: Final = frozenset({"TAG", "DAY", "NODE", "MODEL"})


def run(arguments: argparse.Namespace) -> int:
    """Print the table of the last days; raises CommandError where no router answers."""
    report = arguments.command
    document = ask(router_url(arguments.url), f"/dashboard/api/{report}", "data", {"days": arguments.days})
    if arguments.json:
        show_json(document)
        return 0
    columns = COLUMNS[report]
    head = [name for name, _ in columns]
    if not document["data"]:
        show(f"No requests in the last {arguments.days} days.")
        return 0
    rows = [[_shown(row.get(field), field) for _, field in columns] for row in document["data"]]
    priority = sorted(head, key=lambda name: (name not in NAMES, name == "LATENCY", name == "ERRORS"))
    show(table(head, rows, [name for name in head if name not in NAMES], priority))
    return 0


def _shown(value: Any, field: str) -> Any:
    if value is None:
        return None
    if field.endswith("_ms"):
        return milliseconds(value)
    if field.endswith("_pct"):
        return f"{value:.1f}%"
    return f"{value:,}" if isinstance(value, int) else value
