"""What the router knows of its nodes at one moment, as frozen values.

Made by the roster, read by `decide`. Nothing here changes after it is made; whoever wants a newer
truth takes a new Fleet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

NodeStatus = Literal["online", "degraded", "offline"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model on a node's disk; size in bytes, 0 where the engine does not say."""

    name: str
    size_bytes: int = 0
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in a node's memory; bytes, and tokens of context."""

    name: str
    size_bytes: int = 0
    vram_bytes: int = 0
    context_length: int | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one node's recent work on one model looks like.

    `in_flight` and `waiting` count requests of this model, `in_flight_node` those of all models on the node.
    Times are seconds, moving averages of what was seen there, None before the first; `hold_s` is how long a slot is
    held.
    """

    in_flight: int = 0
    in_flight_node: int = 0
    waiting: int = 0
    slots: int | None = None
    ttft_s: float | None = None
    load_s: float | None = None
    hold_s: float | None = None
    unloaded_at: float | None = None
    breaker_open: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """One machine and its engine, as of its last heartbeat.

    Memory in bytes; `vram_total` is 0 without a GPU of its own memory. `uptime` is the share of the last day that it
    was there, `losses` how often it went silent in the last hour, `busy_usually` its usual use of slots at this hour
    of the week. `same_as` leads from a model on disk to the loaded one of which it is another name.
    """

    node_id: str
    url: str
    status: NodeStatus = "online"
    engine: str = "ollama"
    engine_reachable: bool = True
    endpoints: frozenset[str] = frozenset()
    slots: int = 4
    draining: bool = False
    throttled: bool = False
    pressure: str = "normal"
    memory_total: int = 0
    memory_available: int = 0
    vram_total: int = 0
    vram_free: int = 0
    disk_free: int = 0
    models: Mapping[str, Model] = field(default_factory=dict)
    loaded: Mapping[str, Loaded] = field(default_factory=dict)
    same_as: Mapping[str, str] = field(default_factory=dict)
    uptime: float = 1.0
    losses: int = 0
    busy_usually: float = 0.0

    def holds(self, model: str) -> bool:
        """Whether the model is on disk or in memory here."""
        return model in self.models or model in self.loaded

    def about(self, models: tuple[str, ...]) -> "Node":
        """The same node without what its listings say of other models."""
        return replace(
            self,
            models={name: self.models[name] for name in models if name in self.models},
            same_as={name: self.same_as[name] for name in models if name in self.same_as},
        )

    def in_memory(self, model: str) -> Loaded | None:
        """The loaded model that would answer for this one without a load, under whichever of its names it is there."""
        return self.loaded.get(model) or self.loaded.get(self.same_as.get(model, ""))

    def size_of(self, model: str) -> int:
        """Bytes that the model's weights take, 0 if unknown."""
        known = self.models.get(model) or self.loaded.get(model)
        return known.size_bytes if known else 0

    @property
    def capacity(self) -> int:
        """Bytes of the memory that models should live in: the GPU's where there is one."""
        return self.vram_total or self.memory_total

    @property
    def free(self) -> int:
        """Bytes free in that memory."""
        return self.vram_free if self.vram_total else self.memory_available


NO_TRAFFIC = Traffic()


@dataclass(frozen=True, slots=True)
class Fleet:
    """All nodes at one moment (`at`, unix seconds), with the traffic of the models that were asked about.

    `prefix_node` is the node that last answered a request with the same beginning, so probably holds its cache.
    """

    at: float
    nodes: tuple[Node, ...] = ()
    traffic: Mapping[str, Mapping[str, Traffic]] = field(default_factory=dict)
    prefix_node: str | None = None

    def traffic_of(self, node_id: str, model: str) -> Traffic:
        """What is known of a node's recent work on a model."""
        return self.traffic.get(node_id, {}).get(model, NO_TRAFFIC)

    def about(self, models: tuple[str, ...]) -> "Fleet":
        """The same fleet without the listings of other models: what a stored decision needs, and no more."""
        return replace(self, nodes=tuple(node.about(models) for node in self.nodes))
