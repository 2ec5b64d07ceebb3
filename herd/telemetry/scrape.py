"""What is read at a scrape rather than counted: the fleet's gauges, and the counts that other threads keep.

A frozen view goes in, metric families come out. The view is made on the event loop, the families in any thread.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from herd import wire
from herd.core.breaker import BreakerState
from herd.health.checks import CHECKS
from herd.telemetry.catalog import BY_NAME, LEVELS, UNKNOWN
from herd.telemetry.counts import NO_LINES, NO_SPANS, LogStats, SpanStats
from herd.telemetry.labels import Names, clean

Row = tuple[tuple[str, ...], float]
BREAKERS = (BreakerState.CLOSED.value, BreakerState.HALF_OPEN.value, BreakerState.OPEN.value)
PRESSURES = {"normal": 0.0, "warn": 1.0, "critical": 2.0}


@dataclass(frozen=True, slots=True)
class GpuView:
    """One accelerator: bytes, and utilisation 0..1 where it can be read."""

    index: int
    memory_total: int
    memory_used: int
    utilization: float | None = None


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as a scrape shows it: bytes, unix seconds, `cpu` 0..1, `models_loaded` with their bytes of VRAM."""

    node_id: str
    up: bool
    draining: bool
    last_seen: float
    engine: str
    in_flight: int
    cpu: float
    memory_total: int
    memory_used: int
    memory_available: int
    pressure: str = "normal"
    agent_version: str | None = None
    engine_version: str | None = None
    disk_free: int | None = None
    gpus: tuple[GpuView, ...] = ()
    models_loaded: Mapping[str, int] = field(default_factory=dict)
    breaker: str = BreakerState.CLOSED.value
    left: bool = False
    ready: bool = False


class StoreCounts(Protocol):
    """What the trace store tells of itself: rows by outcome, bytes on disk, whether it can write."""

    @property
    def written(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def up(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class HealthView:
    """The health score, and how many findings there are by check and severity, those that are not silenced."""

    score: int
    findings: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScrapeView:
    """Everything that a scrape reads, at one moment; `queue_depth` by model, `oldest_request_at` in unix seconds."""

    nodes: tuple[NodeView, ...] = ()
    queue_depth: Mapping[str, int] = field(default_factory=dict)
    oldest_request_at: float | None = None
    store: StoreCounts | None = None
    log: LogStats = NO_LINES
    spans: SpanStats = NO_SPANS
    sink_failures: int = 0
    health: HealthView | None = None
    tasks: int = 0


def node_view(
    beat: wire.Heartbeat, up: bool, ready: bool, draining: bool, last_seen: float, in_flight: int,
    breaker: str = BREAKERS[0],
) -> NodeView:  # fmt: skip
    """A node's view from its last heartbeat and from what the router knows of it; `ready`: it may get requests."""
    indices = [gpu.index for gpu in beat.gpus]
    if len(set(indices)) < len(indices):
        indices = list(range(len(indices)))  # an agent that gives every GPU the same index still has several
    return NodeView(
        node_id=beat.node_id,
        up=up,
        ready=ready,
        draining=draining,
        last_seen=last_seen,
        engine=beat.engine.kind,
        in_flight=in_flight,
        breaker=breaker,
        left=beat.leaving,
        cpu=beat.cpu.utilization,
        memory_total=beat.memory.total_bytes,
        memory_used=beat.memory.used_bytes,
        memory_available=beat.memory.available_bytes,
        pressure=beat.memory.pressure,
        agent_version=beat.agent_version,
        engine_version=beat.engine.version,
        disk_free=beat.disk.free_bytes if beat.disk else None,
        gpus=tuple(
            GpuView(index, gpu.memory_total_bytes, gpu.memory_used_bytes, gpu.utilization)
            for index, gpu in zip(indices, beat.gpus, strict=True)
        ),
        models_loaded={wire.canonical_name(model.name): model.vram_bytes for model in beat.engine.loaded},
    )


OF_NODE: Mapping[str, Callable[[NodeView], Iterable[Row]]] = {
    "herd_requests_in_flight": lambda node: [((), node.in_flight)],
    "herd_models_loaded": lambda node: [((), len(node.models_loaded))],
    "herd_node_up": lambda node: [((), node.up)],
    "herd_node_ready": lambda node: [((), node.ready)],
    "herd_node_last_seen_timestamp_seconds": lambda node: [((), node.last_seen)],
    "herd_node_left": lambda node: [((), node.left)],
    "herd_node_draining": lambda node: [((), node.draining)],
    "herd_breaker_state": lambda node: [((), BREAKERS.index(node.breaker))],
    "herd_node_cpu_ratio": lambda node: [((), node.cpu)],
    "herd_node_memory_bytes": lambda node: [
        (("total",), node.memory_total), (("used",), node.memory_used), (("available",), node.memory_available)],
    "herd_node_memory_pressure": lambda node: [((), PRESSURES.get(node.pressure, 0.0))],
    "herd_node_gpu_memory_bytes": lambda node: [
        row for gpu in node.gpus
        for row in (((str(gpu.index), "total"), gpu.memory_total), ((str(gpu.index), "used"), gpu.memory_used))],
    "herd_node_gpu_utilization_ratio": lambda node: [
        ((str(gpu.index),), gpu.utilization) for gpu in node.gpus if gpu.utilization is not None],
    "herd_node_disk_free_bytes": lambda node: [] if node.disk_free is None else [((), node.disk_free)],
    "herd_node_info": lambda node: [
        ((clean(node.agent_version or ""), clean(node.engine), clean(node.engine_version or "")), 1)],
}  # fmt: skip

OF_ROUTER: Mapping[str, Callable[[ScrapeView], Iterable[Row]]] = {
    "herd_oldest_request_timestamp_seconds": lambda view: (
        [] if view.oldest_request_at is None else [((), view.oldest_request_at)]),
    "herd_event_loop_tasks": lambda view: [((), view.tasks)],
    "herd_trace_rows_total": lambda view: [
        (("written",), view.store.written if view.store else 0),
        (("dropped",), view.store.dropped if view.store else 0),
        (("failed",), view.store.failed if view.store else 0)],
    "herd_trace_store_bytes": lambda view: [((), view.store.bytes)] if view.store else [],
    "herd_trace_store_up": lambda view: [((), bool(view.store and view.store.up))],
    "herd_spans_exported_total": lambda view: [((), view.spans.exported)],
    "herd_spans_dropped_total": lambda view: [((), view.spans.dropped)],
    "herd_log_lines_total": lambda view: [((level,), view.log.lines.get(level, 0)) for level in LEVELS],
    "herd_log_dropped_total": lambda view: [((), view.log.dropped)],
    "herd_sink_failures_total": lambda view: [((), view.sink_failures)],
    "herd_health_score": lambda view: [((), view.health.score)] if view.health else [],
    "herd_health_findings": lambda view: [] if view.health is None else [
        ((check.check_id, severity.value), view.health.findings.get((check.check_id, severity.value), 0))
        for check in CHECKS for severity in check.severities],
}  # fmt: skip


def families(view: ScrapeView, models: Names, nodes: Names) -> Iterator[Metric]:
    """The view as metric families; a node beyond the cap is left out, a model beyond it adds to `_unknown`."""
    labelled = [(nodes.peek(node.node_id), node) for node in view.nodes]
    shown = [(label, node) for label, node in labelled if label != UNKNOWN]
    for name, rows_of in OF_NODE.items():
        yield family(name, (((label, *rest), value) for label, node in shown for rest, value in rows_of(node)))
    for name, rows_of_router in OF_ROUTER.items():
        yield family(name, rows_of_router(view))
    depth = Tally(dict.fromkeys(models.known, 0))
    for model, waiting in view.queue_depth.items():
        depth[models.peek(model)] += waiting
    yield family("herd_queue_depth", (((model,), value) for model, value in depth.items()))
    vram: Tally[tuple[str, ...]] = Tally()
    for label, node in shown:
        for model, size in node.models_loaded.items():
            vram[label, models.peek(model)] += size
    yield family("herd_model_vram_bytes", vram.items())


def family(name: str, rows: Iterable[Row]) -> Metric:
    """One metric of the catalog with its samples."""
    metric = BY_NAME[name]
    labels = [label.name for label in metric.labels]
    if metric.kind == "info":
        info = InfoMetricFamily(name.removesuffix("_info"), metric.help, labels=())
        for values, _ in rows:
            info.add_metric((), dict(zip(labels, values, strict=True)))
        return info
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    made = kind(name, metric.help, labels=labels)
    for values, value in rows:
        made.add_metric(values, float(value))
    return made
