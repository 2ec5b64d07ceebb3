"""Every metric of the agent, declared once, as a table; docs/observability.md has it from here.

It has the shape of the router's catalog, which the agent cannot import. Prometheus adds the label `node`, from the file
that the router writes.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Label:
    """A label, and its closed list of values; None where the machine says which there are."""

    name: str
    values: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric; `buckets` are upper bounds in the metric's unit, `spare` says that no dashboard or alert needs it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    spare: bool = False


# A heartbeat was taken; was refused (422); got no answer of a router; or there was no router to send it to.
HEARTBEATS: Final = ("accepted", "refused", "failed", "no_router")
LOOKS: Final = ("answered", "away")
VERSION: Final = Label("version")
HEARTBEAT: Final = Label("outcome", HEARTBEATS)
LOOK: Final = Label("outcome", LOOKS)
MEMORY: Final = Label("kind", ("total", "used", "available"))
GPU: Final = Label("gpu")
GPU_MEMORY: Final = Label("kind", ("total", "used"))
# Seconds; ten is the longest wait for one answer.
LOOK_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

METRICS: Final = (
    Metric("herd_agent_build_info", "info", "Version of the agent.", (VERSION,), spare=True),
    Metric("herd_agent_heartbeats_total", "counter", "Heartbeats, by what became of them.", (HEARTBEAT,)),
    Metric("herd_agent_last_accepted_heartbeat_timestamp_seconds", "gauge",
           "When the router last took a heartbeat; no sample before the first.", spare=True),
    Metric("herd_agent_engine_look_duration_seconds", "histogram",
           "Looks at the engine, about one a second: how long each took, and whether the engine answered.",
           (LOOK,), LOOK_S),
    Metric("herd_agent_engine_reachable", "gauge", "1 while the engine answers the agent.", spare=True),
    Metric("herd_agent_models_loaded", "gauge", "Models in the engine's memory.", spare=True),
    Metric("herd_agent_slots", "gauge", "Requests that the engine works on at once, for each model.", spare=True),
    Metric("herd_agent_cpu_ratio", "gauge", "Processor utilisation, 0 to 1.", spare=True),
    Metric("herd_agent_memory_bytes", "gauge", "Main memory.", (MEMORY,), spare=True),
    Metric("herd_agent_disk_free_bytes", "gauge", "Free on the disk that holds the models.", spare=True),
    Metric("herd_agent_gpu_memory_bytes", "gauge", "Accelerator memory.", (GPU, GPU_MEMORY), spare=True),
    Metric("herd_agent_gpu_utilization_ratio", "gauge", "Accelerator utilisation, 0 to 1, where it can be read.",
           (GPU,), spare=True),
)  # fmt: skip
BY_NAME: Final = {metric.name: metric for metric in METRICS}
