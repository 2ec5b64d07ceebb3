"""The agent's metrics: counted and noted on its loop, rendered in the threads of the server from what was noted last.

The catalog says what each metric means.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from herd import wire

from ..probe import MachineState
from .catalog import BY_NAME, HEARTBEATS, LOOKS

Row = tuple[tuple[str, ...], float]

OF_ENGINE: Mapping[str, Callable[[wire.Engine], Iterable[Row]]] = {
    "herd_agent_engine_reachable": lambda engine: [((), engine.reachable)],
    "herd_agent_models_loaded": lambda engine: [((), len(engine.loaded))],
    "herd_agent_slots": lambda engine: [((), engine.slots)],
}
OF_MACHINE: Mapping[str, Callable[[MachineState], Iterable[Row]]] = {
    "herd_agent_cpu_ratio": lambda machine: [((), machine.cpu.utilization)],
    "herd_agent_memory_bytes": lambda machine: [
        (("total",), machine.memory.total_bytes), (("used",), machine.memory.used_bytes),
        (("available",), machine.memory.available_bytes)],
    "herd_agent_disk_free_bytes": lambda machine: [((), machine.disk.free_bytes)] if machine.disk else [],
    "herd_agent_gpu_memory_bytes": lambda machine: [
        row for gpu in machine.gpus
        for row in (((str(gpu.index), "total"), gpu.memory_total_bytes),
                    ((str(gpu.index), "used"), gpu.memory_used_bytes))],
    "herd_agent_gpu_utilization_ratio": lambda machine: [
        ((str(gpu.index),), gpu.utilization) for gpu in machine.gpus if gpu.utilization is not None],
}  # fmt: skip


class AgentMetrics(Collector):
    """Counts what happens, and remembers the engine and the machine as they were seen last."""

    def __init__(self, version: str | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._version = version or ""
        self._accepted_at: float | None = None
        self._engine: wire.Engine | None = None
        self._machine: MachineState | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        beats, looks = BY_NAME["herd_agent_heartbeats_total"], BY_NAME["herd_agent_engine_look_duration_seconds"]
        self._beats = Counter(beats.name, beats.help, ("outcome",), registry=self._registry)
        self._looks = Histogram(looks.name, looks.help, ("outcome",), registry=self._registry, buckets=looks.buckets)
        for outcome in HEARTBEATS:
            self._beats.labels(outcome)  # at zero from the start: a counter that begins at 1 has lost its first step
        for outcome in LOOKS:
            self._looks.labels(outcome)
        self._registry.register(self)

    def beat(self, outcome: str) -> None:
        """Count a heartbeat by what became of it."""
        self._beats.labels(outcome).inc()
        if outcome == "accepted":
            self._accepted_at = time.time()

    def looked(self, engine: wire.Engine, seconds: float) -> None:
        """Note a look at the engine, and how long it took."""
        self._engine = engine
        self._looks.labels("answered" if engine.reachable else "away").observe(seconds)

    def measured(self, machine: MachineState) -> None:
        """Note a measurement of the machine."""
        self._machine = machine

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, as OpenMetrics or Prometheus text. May be called in any thread."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """What is read at a scrape rather than counted."""
        info = BY_NAME["herd_agent_build_info"]
        yield InfoMetricFamily(info.name.removesuffix("_info"), info.help, {"version": self._version})
        accepted_at, engine, machine = self._accepted_at, self._engine, self._machine
        accepted: list[Row] = [] if accepted_at is None else [((), accepted_at)]
        yield _gauge("herd_agent_last_accepted_heartbeat_timestamp_seconds", accepted)
        for name, rows_of_engine in OF_ENGINE.items():
            yield _gauge(name, rows_of_engine(engine) if engine else ())
        for name, rows_of_machine in OF_MACHINE.items():
            yield _gauge(name, rows_of_machine(machine) if machine else ())


def _gauge(name: str, rows: Iterable[Row]) -> Metric:
    metric = BY_NAME[name]
    made = GaugeMetricFamily(name, metric.help, labels=[label.name for label in metric.labels])
    for values, value in rows:
        made.add_metric(values, float(value))
    return made
