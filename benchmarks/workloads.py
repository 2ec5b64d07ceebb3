"""The table of workloads, and the figures of one round of one contender. It knows no process."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Workload:
    """So many clients that ask without a pause; `paced`: streams whose tokens come one by one, in a machine's time."""

    name: str
    title: str
    clients: int
    stream: bool = False
    paced: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """What one round gave: latencies and a token's way in ms, CPU in µs a request (or, paced, a token)."""

    requests_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    delay_p50_ms: float = 0.0
    delay_p99_ms: float = 0.0


WORKLOADS: Final = (
    Workload("plain-1", "1 client", 1),
    Workload("plain-32", "32 clients", 32),
    Workload("plain-256", "256 clients", 256),
    Workload("stream-1", "1 client, streams", 1, stream=True),
    Workload("stream-32", "32 clients, streams", 32, stream=True),
    Workload("stream-256", "256 clients, streams", 256, stream=True),
    Workload("paced-200", "200 streams of 50 tokens/s", 200, stream=True, paced=True),
)
TITLES: Final = {
    "direct": "direct",
    "nginx": "nginx",
    "bare": "bare proxy",
    "herd": "herd",
    "herd-otlp": "herd, OTLP",
}
