"""Reports that a person could write down: a healthy fleet of two, and what a test changes about it."""

from dataclasses import replace
from typing import Any

from herd.core.finding import Finding
from herd.core.health.checks import evaluate
from herd.core.health.report import (
    WINDOWS_S,
    Drift,
    HealthReport,
    History,
    LoadedFacts,
    NodeFacts,
    Served,
    Telemetry,
    Trouble,
)
from herd.settings.table import NUMBERS

GIB = 1024**3
DAY_S = 86_400.0
LLAMA = "llama3.2:3b"


def node(node_id: str = "ada", **changes: Any) -> NodeFacts:
    """A machine of 64 GiB, half used, with one model in memory."""
    usual = NodeFacts(
        node_id=node_id, agent_version="1.0", engine_version="0.17", memory_total=64 * GIB, memory_available=32 * GIB,
        disk_total=1000 * GIB, disk_free=500 * GIB, models=frozenset({LLAMA}), known_s=2 * DAY_S,
        loaded=(LoadedFacts(LLAMA, 3 * GIB, 2 * GIB, 8192),),
    )  # fmt: skip
    return replace(usual, **changes)


def served(requests: int = 100, node_id: str | None = "ada", status: str = "completed", **changes: Any) -> Served:
    """Requests for one model, all received within the last five minutes."""
    usual = Served(node_id, LLAMA, status, requests, largest_tokens=4000, recent=dict.fromkeys(WINDOWS_S, requests))
    return replace(usual, **changes)


def trouble(
    requests: int,
    status: str = "failed",
    error_type: str | None = "connect",
    node_id: str | None = "ada",
    **changes: Any,
) -> Trouble:
    """Requests that were not completed, all within the last five minutes."""
    usual = Trouble(status, error_type, node_id, LLAMA, requests, dict.fromkeys(WINDOWS_S, requests))
    return replace(usual, **changes)


def drift(factor: float = 3.0, lately: float = 3.0, streams: int = 50, **changes: Any) -> Drift:
    """A node whose middle first token came in so many times the second that was predicted for it."""
    return replace(Drift("ada", streams, 10, factor, lately, 1.0, factor), **changes)


def history(**changes: Any) -> History:
    """A day on which each of two nodes completed a hundred requests."""
    return replace(History(served=(served(), served(node_id="bob"))), **changes)


def report(*nodes: NodeFacts, past: History | None = None, limits: dict[str, float] | None = None, **changes: Any):
    """Two healthy nodes unless others are given; `limits` are thresholds that differ from the defaults."""
    usual = HealthReport(at=1000.0, router_version="1.0", thresholds=NUMBERS, nodes=nodes or (node(), node("bob")),
                         history=past or history(), telemetry=Telemetry())  # fmt: skip
    return replace(usual, thresholds={**usual.thresholds, **(limits or {})}, **changes)


def found(check_id: str, seen: HealthReport) -> list[Finding]:
    """What one check says."""
    return [finding for finding in evaluate(seen) if finding.check_id == check_id]


def severities(check_id: str, seen: HealthReport) -> list[str]:
    """How bad that is."""
    return [finding.severity.value for finding in found(check_id, seen)]


def one(check_id: str, seen: HealthReport) -> Finding:
    """The only thing that one check says."""
    (finding,) = found(check_id, seen)
    return finding
