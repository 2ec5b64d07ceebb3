"""What is read at a scrape rather than counted: the nodes as they are, and the counts that other threads keep.

Frozen views, made on the event loop and read in any thread; the catalog says which metric reads what of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from herd import wire
from herd.core.breaker import BreakerState
from herd.telemetry.counts import NO_LINES, NO_SPANS, LogStats, SpanStats


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """One node at a scrape: its last heartbeat as it came, and the router's word on it; `last_seen` in unix seconds.

    `ready`: it may get new requests. `breaker` is the worst of its models'.
    """

    beat: wire.Heartbeat
    up: bool
    ready: bool
    draining: bool
    last_seen: float
    in_flight: int
    breaker: str = BreakerState.CLOSED.value

    @property
    def vram(self) -> dict[str, int]:
        """Bytes of video memory by model in memory."""
        return {wire.canonical_name(model.name): model.vram_bytes for model in self.beat.engine.loaded}


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
    """Everything that a scrape reads, at one moment; `queue_depth` by model, `oldest_request_at` in unix seconds.

    `version` and `started_at` are the sink's own, which puts them in.
    """

    nodes: tuple[NodeSeen, ...] = ()
    queue_depth: Mapping[str, int] = field(default_factory=dict)
    oldest_request_at: float | None = None
    store: StoreCounts | None = None
    log: LogStats = NO_LINES
    spans: SpanStats = NO_SPANS
    sink_failures: int = 0
    health: HealthView | None = None
    tasks: int = 0
    version: str = ""
    started_at: float = 0.0
