"""What the router knows of its nodes at one moment, as frozen values.

Made by the roster, read by `decide`. Nothing here changes after it is made; whoever wants a newer
truth takes a new Fleet.
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
    """A model on a node's disk; size in bytes, 0 where the engine does not say."""

    name: str
    size_bytes: int = 0
    context_length: int | None = None


@value
class Loaded:
    """A model in a node's memory; bytes, and tokens of context."""

    name: str
    size_bytes: int = 0
    vram_bytes: int = 0
    context_length: int | None = None
    expires_at: float | None = None


@value
class Traffic:
    """What is known of one node's work on one model, besides what is under way.

    `slots` where the engine takes another number of this model's requests at once than of others'; `pace` its speeds,
    None where nothing was measured and the machine is unknown; `unloaded_at` when the model last left its memory;
    `usual_context` the tokens of context that the engine gives it where a request names none.
    """

    slots: int | None = None
    pace: Pace | None = None
    unloaded_at: float | None = None
    breaker_open: bool = False
    usual_context: int | None = None


@value
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
        if model in self.models:
            return True
        # Ollama goes on listing a model in memory that was deleted from disk, and answers 404 for it.
        return self.engine != "ollama" and model in self.loaded

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


@value
class Fleet:
    """All nodes at one moment (`at`, unix seconds), and what is known of their work.

    `traffic` is by node and model, `work` what each node has to do, those who wait for it included. Of the request that
    is decided about: `cached` tokens of its prompt by node, and `answer_tokens` to expect by model. `demand` is how
    many requests a second lately asked for each model that is in memory or at work somewhere.
    """

    at: float
    nodes: tuple[Node, ...] = ()
    traffic: Mapping[str, Mapping[str, Traffic]] = field(default_factory=dict)
    work: Mapping[str, Work] = field(default_factory=dict)
    cached: Mapping[str, int] = field(default_factory=dict)
    answer_tokens: Mapping[str, float] = field(default_factory=dict)
    demand: Mapping[str, float] = field(default_factory=dict)

    def traffic_of(self, node_id: str, model: str) -> Traffic:
        """What is known of a node's work on a model."""
        return self.traffic.get(node_id, NOTHING).get(model, NO_TRAFFIC)

    def work_of(self, node_id: str) -> Work:
        """What a node has to do."""
        return self.work.get(node_id, IDLE)

    def needed(self, node: Node, models: tuple[str, ...]) -> tuple[str, ...]:
        """Whose listings at a node a decision about these models sees.

        What is loaded may have to make room, and what is being loaded takes some.
        """
        work = self.work_of(node.node_id)
        coming = () if work.steady else [job.model for job in work.jobs if job.load_s > 0]
        return tuple(dict.fromkeys((*models, *node.loaded, *coming)))


NOTHING: Mapping[str, Traffic] = MappingProxyType({})
