"""Expositions read back with Prometheus's own parsers, and a run of events that touches every metric."""

from dataclasses import dataclass, replace

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from herd import wire
from herd.core.events import (
    AccessRefused,
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
from herd.telemetry.scrape import HealthView, NodeSeen, ScrapeView
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


def heartbeat(node_id: str = "ada", **changes: object) -> wire.Heartbeat:
    """What an agent sends of a machine with everything that a machine can show."""
    loaded = [wire.LoadedModel(name=MODEL, vram_bytes=3_000)]
    usual = wire.Heartbeat(
        node_id=node_id, agent_version="1.2.3", sent_at=builders.NOON, leaving=True,
        cpu=wire.Cpu(cores=8, utilization=0.25),
        memory=wire.Memory(total_bytes=32_000, used_bytes=12_000, available_bytes=20_000, pressure="warn"),
        disk=wire.Disk(total_bytes=900_000, free_bytes=500_000), gpus=[accelerator()],
        engine=engine(loaded),
    )  # fmt: skip
    return usual.model_copy(update=changes)


def engine(loaded: list[wire.LoadedModel]) -> wire.Engine:
    """An engine with these models in memory."""
    return wire.Engine(
        kind="ollama", url="http://ada:11434", reachable=True, version="0.11.4", endpoints=[], loaded=loaded
    )


def accelerator(index: int = 0, utilization: float | None = 0.5) -> wire.Gpu:
    """An accelerator, a third of its memory in use."""
    return wire.Gpu(index=index, memory_total_bytes=24_000, memory_used_bytes=8_000, utilization=utilization)


def node_seen(beat: wire.Heartbeat | None = None, **changes: object) -> NodeSeen:
    """A node with everything that a node can show, or with this heartbeat."""
    usual = NodeSeen(
        beat or heartbeat(), up=True, ready=True, draining=True, last_seen=builders.NOON, in_flight=3, breaker="open"
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def full_view() -> ScrapeView:
    """A view in which nothing is missing."""
    return ScrapeView(
        nodes=(node_seen(),), queue_depth={MODEL: 4}, oldest_request_at=builders.NOON, store=Store(),
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
        AccessRefused("host", "not_allowed"),
        FleetChanged(1.0, "zombie_reaped", "ada", MODEL),
        FleetChanged(1.0, "breaker_changed", "ada", MODEL, {"to": "open"}),
    ]
