"""Node metrics, read at scrape time from a node's last heartbeat and the router's state for it.

A new measurement of a machine is taken in the agent's `probe`, declared in `wire.Heartbeat`, and read here.
"""

from collections.abc import Iterator
from typing import Final

from herd import wire
from herd.core.breaker import BreakerState
from herd.core.events import FleetChanged
from herd.telemetry.catalog.labels import (
    BREAKER_TO,
    ENGINE,
    ENGINE_VERSION,
    GPU,
    GPU_KIND,
    MEMORY_KIND,
    MODEL,
    NODE,
    VERSION,
)
from herd.telemetry.catalog.shapes import Metric, Of
from herd.telemetry.scrape import NodeSeen

BREAKERS: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
PRESSURES: Final = {"normal": 0, "warn": 1, "critical": 2}


def gpus(node: NodeSeen) -> Iterator[tuple[str, wire.Gpu]]:
    """The node's GPUs, each with a distinct index even if the agent reports the same index for all."""
    told = [gpu.index for gpu in node.beat.gpus]
    distinct = len(set(told)) == len(told)
    for place, gpu in enumerate(node.beat.gpus):
        yield str(gpu.index if distinct else place), gpu


METRICS: Final = (
    Metric("herd_requests_in_flight", "gauge", "Requests in progress on a node.", (NODE,),
           reads=Of(NodeSeen, lambda node: [((), node.in_flight)])),
    Metric("herd_node_up", "gauge", "1 while the node sends heartbeats and has not shut down.", (NODE,),
           reads=Of(NodeSeen, lambda node: [((), node.up)])),
    Metric("herd_node_ready", "gauge",
           "1 while the node accepts requests: up, engine reachable, not draining, memory pressure not critical.",
           (NODE,), reads=Of(NodeSeen, lambda node: [((), node.ready)])),
    Metric("herd_node_left", "gauge", "1 after the node has shut down cleanly; it does not count as lost.", (NODE,),
           reads=Of(NodeSeen, lambda node: [((), node.beat.leaving)])),
    Metric("herd_node_draining", "gauge", "1 while the node is draining and gets no new requests.", (NODE,),
           reads=Of(NodeSeen, lambda node: [((), node.draining)])),
    Metric("herd_node_last_seen_timestamp_seconds", "gauge", "Time of the last heartbeat.", (NODE,),
           reads=Of(NodeSeen, lambda node: [((), node.last_seen)])),
    Metric("herd_node_info", "info", "Versions of a node's software.", (NODE, VERSION, ENGINE, ENGINE_VERSION),
           reads=Of(NodeSeen, lambda node: [
               ((node.beat.agent_version, node.beat.engine.kind, node.beat.engine.version), 1)])),
    Metric("herd_breaker_state", "gauge", "Worst circuit breaker of a node's models: 0 closed, 1 half-open, 2 open.",
           (NODE,),
           reads=Of(NodeSeen, lambda node: [((), BREAKERS[BreakerState(node.breaker)])])),
    Metric("herd_breaker_transitions_total", "counter", "Circuit breaker transitions to open or closed.",
           (NODE, BREAKER_TO),
           counts=Of(FleetChanged, lambda change: [
               ((change.node_id, change.data["to"]), 1)] if change.kind == "breaker_changed" else [])),
    Metric("herd_models_loaded", "gauge", "Models loaded in memory.", (NODE,),
           reads=Of(NodeSeen, lambda node: [((), len(node.vram))])),
    Metric("herd_model_vram_bytes", "gauge", "VRAM used by a loaded model.", (NODE, MODEL),
           reads=Of(NodeSeen, lambda node: [((model,), size) for model, size in node.vram.items()])),
    Metric("herd_node_cpu_ratio", "gauge", "CPU utilisation, 0 to 1.", (NODE,),
           reads=Of(NodeSeen, lambda node: [((), node.beat.cpu.utilization)])),
    Metric("herd_node_memory_bytes", "gauge", "Main memory.", (NODE, MEMORY_KIND),
           reads=Of(NodeSeen, lambda node: [
               (("total",), node.beat.memory.total_bytes), (("used",), node.beat.memory.used_bytes),
               (("available",), node.beat.memory.available_bytes)])),
    Metric("herd_node_memory_pressure", "gauge",
           "Memory pressure reported by the operating system: 0 normal, 1 warn, 2 critical.", (NODE,),
           reads=Of(NodeSeen, lambda node: [((), PRESSURES[node.beat.memory.pressure])])),
    Metric("herd_node_disk_free_bytes", "gauge", "Free space on the disk that holds the models.", (NODE,),
           reads=Of(NodeSeen, lambda node: [((), node.beat.disk.free_bytes)] if node.beat.disk else [])),
    Metric("herd_node_gpu_memory_bytes", "gauge", "GPU memory.", (NODE, GPU, GPU_KIND),
           reads=Of(NodeSeen, lambda node: [
               sample for index, gpu in gpus(node) for sample in (
                   ((index, "total"), gpu.memory_total_bytes), ((index, "used"), gpu.memory_used_bytes))])),
    Metric("herd_node_gpu_utilization_ratio", "gauge", "GPU utilisation, 0 to 1, if available.",
           (NODE, GPU), reads=Of(NodeSeen, lambda node: [((index,), gpu.utilization) for index, gpu in gpus(node)])),
)  # fmt: skip
