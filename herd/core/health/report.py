"""The input of the health checks, as frozen values. Nothing here does I/O or decides.

Units: bytes, seconds and unix seconds. Counts cover the last 24 hours unless the name says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

HOUR_S, DAY_S = 3600.0, 86_400.0
WINDOWS_S: Final = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "2h": 7200.0, "6h": 21_600.0, "1d": 86_400.0}

DRIFT_H: Final = 6.0  # what a node learns in passing is over by then


@dataclass(frozen=True, slots=True)
class LoadedFacts:
    """A loaded model: its size in memory, the size of its weights (0: unknown), its context.

    `spilled` bytes are in main memory although the node has a GPU with memory of its own.
    """

    model: str
    size: int
    weights: int = 0
    context: int | None = None
    spilled: int = 0


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node now. `vram_total` is 0 without a discrete GPU; `known_s` is the time since it was first seen.

    `awaited`: no heartbeat since the router started, too recently to call the node lost.
    `breakers` holds the models whose breaker is not closed, with its state. Unmeasured values are None.
    """

    node_id: str
    status: str = "online"
    left: bool = False
    awaited: bool = False
    draining: bool = False
    reachable: bool = True
    engine_error: str | None = None
    silent_s: float = 0.0
    agent_version: str | None = None
    engine_version: str | None = None
    clock_skew_s: float = 0.0
    pressure: str = "normal"
    memory_total: int = 0
    memory_available: int = 0
    vram_total: int = 0
    vram_used: int = 0
    disk_total: int | None = None
    disk_free: int | None = None
    models: frozenset[str] = frozenset()
    loaded: tuple[LoadedFacts, ...] = ()
    in_flight: int = 0
    breakers: Mapping[str, str] = field(default_factory=dict)
    known_s: float = 0.0

    @property
    def here(self) -> bool:
        """Whether the node's report is current."""
        return self.status != "offline"

    @property
    def ready(self) -> bool:
        """Whether the node can accept a new request."""
        return self.here and self.reachable and not self.draining and self.pressure != "critical"

    @property
    def capacity(self) -> int:
        """Bytes of memory for models: VRAM if there is any, else RAM."""
        return self.vram_total or self.memory_total


@dataclass(frozen=True, slots=True)
class Served:
    """Requests of one node, model and final status; node or model is None if there was none.

    `largest_tokens` counts prompt and answer of the largest request together. `recent` counts the requests received
    within each of `WINDOWS_S`.
    """

    node_id: str | None
    model: str | None
    status: str
    requests: int
    retries: int = 0
    largest_tokens: int = 0
    recent: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Requests that were not completed, by cause; `recent` as in Served."""

    status: str
    error_type: str | None
    node_id: str | None
    model: str | None
    requests: int
    recent: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Requests for one model that another model answered."""

    from_model: str
    to_model: str
    reason: str
    requests: int


@dataclass(frozen=True, slots=True)
class ContextActions:
    """What context protection did for one model; `most_asked` and `least_loaded` in tokens."""

    model: str
    action: str
    count: int
    most_asked: int = 0
    least_loaded: int = 0


@dataclass(frozen=True, slots=True)
class Turnover:
    """Loads and unloads of one model on one node in the last hour."""

    node_id: str
    model: str
    loads: int
    unloads: int
    context_changes: int = 0


@dataclass(frozen=True, slots=True)
class Tries:
    """Attempts at one node in the last hour, how many failed through its fault, how many ran out of memory."""

    node_id: str
    attempts: int
    failed: int
    out_of_memory: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """The usual duration of a model's completed requests, and how many exceeded the limit.

    `p95_s` is over all stored requests; `slow` counts those of the last day that took longer than `limit_s`.
    """

    model: str
    p95_s: float
    limit_s: float
    slow: int = 0


@dataclass(frozen=True, slots=True)
class Drift:
    """One node's streams of the last hours against what was predicted for them, and those of the last hour.

    The factors are how many times as long as predicted the middle first token took, `predicted_s` and `seen_s` the
    medians; `part` is where most of the difference is: queue, load or prefill.
    """

    node_id: str
    streams: int
    lately: int
    factor: float
    factor_lately: float
    predicted_s: float
    seen_s: float
    part: str = "prefill"


@dataclass(frozen=True, slots=True)
class History:
    """The trace store's view of the last day; `first_seen` is when each node was first seen (unix s)."""

    served: tuple[Served, ...] = ()
    trouble: tuple[Trouble, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    context: tuple[ContextActions, ...] = ()
    turnover: tuple[Turnover, ...] = ()
    tries: tuple[Tries, ...] = ()
    paces: tuple[Pace, ...] = ()
    drifts: tuple[Drift, ...] = ()
    zombies: Mapping[str | None, int] = field(default_factory=dict)
    first_seen: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """State of the records themselves; losses are those of the last hour."""

    store_up: bool = True
    readable: bool = True
    store_error: str | None = None
    store_waiting: int = 0
    rows_lost: int = 0
    log_lines_lost: int = 0
    spans_lost: int = 0
    sink_failures: int = 0
    disk_total: int | None = None
    disk_free: int | None = None


@dataclass(frozen=True, slots=True)
class HealthReport:
    """Everything a check may read. `history` is None if the store could not be read."""

    at: float = 0.0
    router_version: str = ""
    nodes: tuple[NodeFacts, ...] = ()
    history: History | None = field(default_factory=History)
    telemetry: Telemetry = Telemetry()
    waiting: int = 0
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def threshold(self, name: str) -> float:
        """A threshold by setting name."""
        return self.thresholds[name]

    @property
    def past(self) -> History:
        """The store's history; empty if it could not be read."""
        return self.history or History()
