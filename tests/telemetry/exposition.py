"""Expositions read back with Prometheus's own parsers, and a run of events that touches every metric."""

from dataclasses import dataclass, replace

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from herd.core.events import (
    Attempt,
    AttemptFailed,
    ContextAction,
    ContextProtected,
    Event,
    Finished,
    FleetChanged,
    Status,
    Usage,
)
from herd.telemetry.counts import LogStats, SpanStats
from herd.telemetry.metrics import OPENMETRICS, MetricsSink
from herd.telemetry.scrape import GpuView, HealthView, NodeView, ScrapeView
from tests.store import builders

MODEL = "llama3.2:3b"
OTHER = "qwen3:8b"


def text_families(sink: MetricsSink, view: ScrapeView | None = None) -> dict[str, Metric]:
    """The Prometheus text, parsed; counters by their name without `_total`, as the parser gives them."""
    body, _ = sink.render("", view)
    return {family.name: family for family in parse_text(body.decode())}


def open_families(sink: MetricsSink, view: ScrapeView | None = None) -> dict[str, Metric]:
    """The OpenMetrics exposition, parsed."""
    body, _ = sink.render(OPENMETRICS, view)
    return {family.name: family for family in parse_openmetrics(body.decode())}


def value(sink: MetricsSink, name: str, view: ScrapeView | None = None, **labels: str) -> float | None:
    """One sample's value; None where there is no such series."""
    found = [
        sample.value
        for family in text_families(sink, view).values()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    assert len(found) <= 1, f"{name} {labels} stands {len(found)} times"
    return found[0] if found else None


def total(sink: MetricsSink, name: str, **labels: str) -> float:
    """The sum of all series of a metric that have these labels, others left open."""
    return sum(
        sample.value
        for family in text_families(sink).values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def sink_with(*models: str, node: str = "ada", **options: int) -> MetricsSink:
    """A sink whose fleet is one node with these models."""
    sink = MetricsSink("1.2.3", started_at=builders.NOON, **options)
    sink.set_known({node: models})
    return sink


@dataclass(frozen=True, slots=True)
class Store:
    """What a trace store would tell."""

    written: int = 5
    dropped: int = 2
    failed: int = 1
    bytes: int = 4096
    up: bool = True


def node_view(node_id: str = "ada", **changes: object) -> NodeView:
    """A node with everything that a node can show."""
    usual = NodeView(
        node_id=node_id, up=True, draining=True, last_seen=builders.NOON, engine="ollama", in_flight=3, cpu=0.25,
        memory_total=32_000, memory_used=12_000, memory_available=20_000, pressure="warn", agent_version="1.2.3",
        engine_version="0.11.4", disk_free=500_000, gpus=(GpuView(0, 24_000, 8_000, 0.5),),
        models_loaded={MODEL: 3_000}, breaker="open", left=True, ready=True,
    )  # fmt: skip
    return replace(usual, **changes)  # type: ignore[arg-type]


def full_view() -> ScrapeView:
    """A view in which nothing is missing."""
    return ScrapeView(
        nodes=(node_view(),), queue_depth={MODEL: 4}, oldest_request_at=builders.NOON, store=Store(),
        log=LogStats({"INFO": 7, "ERROR": 1}, dropped=3), spans=SpanStats(11, 2), sink_failures=1,
        health=HealthView(70, {("node_offline", "critical"): 1, ("memory_pressure", "warning"): 1}), tasks=9,
    )  # fmt: skip


def retried() -> Finished:
    """A request that answered at its second node, after a cold load, having waited for a slot."""
    usage = Usage(20, 40, 8, 16, "reported", "stop", load_s=4.0, prompt_eval_s=0.2, eval_s=1.0)
    made = builders.finished(attempts=2, usage=usage, tags=("prod",), latency_s=6.0, ttft_s=4.5)
    return replace(made, queued_at=made.received_at + 0.1, admitted_at=made.received_at + 0.6)


def tried_again() -> Finished:
    """A request that its plan's first node failed, and its second answered."""
    made = retried()
    assert made.decision is not None
    first, second = made.decision.plan[:2]
    return replace(made, attempts=at_nodes(made, first.node_id, second.node_id), chosen=second)


def at_nodes(event: Finished, *node_ids: str) -> tuple[Attempt, ...]:
    """The event's attempts, at these nodes."""
    return tuple(replace(attempt, node_id=name) for attempt, name in zip(event.attempts, node_ids, strict=True))


def gave_up() -> Finished:
    """A request that failed on a node, with no other to try."""
    made = builders.failed()
    broken = replace(made.attempts[0], error_type="connect", error_message="refused", http_status=None)
    return replace(made, attempts=(broken,))


def script() -> list[Event]:
    """Events that between them touch every metric that events touch."""
    waited_too_long = replace(
        builders.refused(), status=Status.REJECTED, http_status=503, error_type="queue_timeout",
        queued_at=builders.NOON, finished_at=builders.NOON + 2,
    )  # fmt: skip
    action = ContextAction("stripped", "ada", MODEL, 32_768, 8192)
    return [
        builders.finished(),
        retried(),
        builders.finished(model="gone:1b", served=OTHER),
        builders.finished(usage=Usage()),
        builders.finished(seen=builders.fleet(builders.node("ada"), builders.node("off", status="offline"))),
        gave_up(),
        waited_too_long,
        ContextProtected("r1", "0" * 31 + "1", action),
        AttemptFailed("r1", "0" * 31 + "1", retried().attempts[0], will_retry=False, budget_spent=True),
        FleetChanged(1.0, "zombie_reaped", "ada", MODEL),
        FleetChanged(1.0, "breaker_changed", "ada", MODEL, {"to": "open"}),
    ]
