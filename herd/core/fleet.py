"""The router's view of its nodes at one moment, as frozen values.

Built by the fleet's cell, read by `decide`. A Fleet never changes; for newer state, take a new snapshot.
"""

from collections.abc import Mapping
from dataclasses import field, replace
from types import MappingProxyType
from typing import Literal

from herd.core.prediction import Pace
from herd.core.value import value
from herd.core.work import IDLE, Work

NodeStatus = Literal["online", "degraded", "offline"]


@value
class Model:
    """A model on a node's disk; size in bytes, 0 if the engine does not report it."""

    name: str
    size_bytes: int = 0
    context_length: int | None = None


@value
class Loaded:
    """A loaded model; sizes in bytes, context in tokens."""

    name: str
    size_bytes: int = 0
    vram_bytes: int = 0
    context_length: int | None = None
    expires_at: float | None = None


@value
class Traffic:
    """What is known about one model on one node, apart from requests in progress.

    `slots` if the engine has a different number of slots for this model; `pace` its speeds,
    None if nothing was measured and the machine is unknown; `unloaded_at` when the model was last unloaded.
    """

    slots: int | None = None
    pace: Pace | None = None
    unloaded_at: float | None = None
    breaker_open: bool = False


@value
class Node:
    """One machine and its engine, as of its last heartbeat.

    Memory in bytes; `vram_total` is 0 without a discrete GPU. `uptime` is the share of the last day that it
    was online, `losses` how often it was lost in the last hour. `same_as` maps a model on disk to the loaded
    one with the same weights.
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

    def holds(self, model: str) -> bool:
        """Whether the node has the model, on disk or loaded."""
        if model in self.models:
            return True
        # Ollama keeps listing a loaded model that was deleted from disk, and answers 404 for it.
        return self.engine != "ollama" and model in self.loaded

    def about(self, models: tuple[str, ...]) -> "Node":
        """The same node without its listings of other models."""
        return replace(
            self,
            models={name: self.models[name] for name in models if name in self.models},
            same_as={name: self.same_as[name] for name in models if name in self.same_as},
        )

    def in_memory(self, model: str) -> Loaded | None:
        """The loaded model that would serve this one without a load, under any of its names."""
        return self.loaded.get(model) or self.loaded.get(self.same_as.get(model, ""))

    def size_of(self, model: str) -> int:
        """Size of the model's weights in bytes, 0 if unknown."""
        known = self.models.get(model) or self.loaded.get(model)
        return known.size_bytes if known else 0

    @property
    def capacity(self) -> int:
        """Bytes of memory for models: VRAM if there is any, else RAM."""
        return self.vram_total or self.memory_total

    @property
    def free(self) -> int:
        """Bytes free in that memory."""
        return self.vram_free if self.vram_total else self.memory_available


NO_TRAFFIC = Traffic()


@value
class Fleet:
    """All nodes at one moment (`at`, unix seconds), with their work.

    `traffic` is by node and model, `work` is each node's, waiting requests included. For the request
    being decided: `cached` prompt tokens by node, and expected `answer_tokens` by model. `demand` is
    the recent rate (requests per second) of each model that is loaded or in use.
    """

    at: float
    nodes: tuple[Node, ...] = ()
    traffic: Mapping[str, Mapping[str, Traffic]] = field(default_factory=dict)
    work: Mapping[str, Work] = field(default_factory=dict)
    cached: Mapping[str, int] = field(default_factory=dict)
    answer_tokens: Mapping[str, float] = field(default_factory=dict)
    demand: Mapping[str, float] = field(default_factory=dict)

    def traffic_of(self, node_id: str, model: str) -> Traffic:
        """The traffic of a model on a node."""
        return self.traffic.get(node_id, NOTHING).get(model, NO_TRAFFIC)

    def work_of(self, node_id: str) -> Work:
        """The work of a node."""
        return self.work.get(node_id, IDLE)

    def needed(self, node: Node, models: tuple[str, ...]) -> tuple[str, ...]:
        """The models whose listings at a node matter to a decision about these models.

        Loaded models may have to be evicted, and models being loaded take memory.
        """
        work = self.work_of(node.node_id)
        coming = () if work.steady else [job.model for job in work.jobs if job.load_s > 0]
        return tuple(dict.fromkeys((*models, *node.loaded, *coming)))


NOTHING: Mapping[str, Traffic] = MappingProxyType({})
