"""What a simulated node is: its machine, its models, its speed. Values only; nothing here runs."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from herd.wire import canonical_name

GB = 10**9  # models are sized in these, as Ollama lists them
GIB = 2**30  # memory is sized in these
EngineKind = Literal["ollama", "llamacpp"]
ENGINE_VERSIONS = {"ollama": "0.17.4", "llamacpp": "b1-0c1e570"}


@dataclass(frozen=True, slots=True)
class SimModel:
    """One model on disk: `size_gb` in 10^9 bytes, contexts in tokens.

    `context_length` is the model's own limit, `loaded_context` what it is loaded with unless a request asks otherwise.
    `capabilities` are Ollama's words: completion, tools, thinking, vision, embedding. `tokens_per_s` and
    `prefill_tokens_per_s` take the node's place where given. `manifest` and `weights` name the models of which it is
    another name or another make; its own where empty.
    """

    name: str
    size_gb: float = 2.0
    context_length: int = 131_072
    loaded_context: int = 4096
    family: str = "llama"
    parameter_size: str = "3.2B"
    quantization: str = "Q4_K_M"
    capabilities: tuple[str, ...] = ("completion", "tools")
    embedding_length: int = 768
    tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    manifest: str = ""
    weights: str = ""

    @property
    def key(self) -> str:
        """The canonical name that it is listed under."""
        return canonical_name(self.name)

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights."""
        return int(self.size_gb * GB)

    @property
    def digest(self) -> str:
        """64 hexadecimal digits, the same for the same manifest."""
        return hashlib.sha256((self.manifest or self.key).encode()).hexdigest()

    @property
    def layer(self) -> str:
        """The digest of its one layer of weights."""
        return hashlib.sha256(f"weights {self.weights or self.key}".encode()).hexdigest()

    def can(self, capability: str) -> bool:
        """Whether it has the capability."""
        return capability in self.capabilities

    def loaded_bytes(self, context: int, slots: int) -> int:
        """Bytes that it takes in memory: weights and the key-value cache of every slot."""
        per_token = 90_000 * self.size_gb**0.36  # a 3b takes some 115 kB a token, a 70b some 330 kB
        return self.size_bytes + int(per_token * context * slots)


DEFAULT_MODELS = (SimModel("llama3.2:3b"),)


@dataclass(frozen=True, slots=True)
class SimConfig:
    """One simulated node. Speeds are per second of the node's own time; `speed` runs that time faster than the wall's.

    `tokens_per_s=0` is no delay at all; `prefill_tokens_per_s`, `load_bytes_per_s` and `pull_bytes_per_s` follow it
    unless given (0: no delay of that kind). `vram_gb=0` is a machine without a GPU of its own memory; `unified` one
    whose GPU shares the memory; `gpu_name` is what its driver calls it. `slots` requests of one model run at once,
    `max_queue` may wait for a load.
    `frozen_time` makes times, durations and ids a function of the request, so that equal requests get equal bytes.
    `router_home` is the data directory of a router on this machine, whose local code lets its heartbeats in.
    `host` is where it listens, `advertised_url` what it tells the router (None: that).
    """

    node_id: str = "sim"
    host: str = "127.0.0.1"
    port: int = 0
    advertised_url: str | None = None
    memory_gb: float = 64.0
    vram_gb: float = 0.0
    unified: bool = False
    gpu_name: str = ""
    cores: int = 8
    tokens_per_s: float = 0.0
    prefill_tokens_per_s: float | None = None
    load_bytes_per_s: float | None = None
    pull_bytes_per_s: float | None = None
    speed: float = 1.0
    models: tuple[SimModel, ...] = DEFAULT_MODELS
    library: tuple[SimModel, ...] = ()
    slots: int = 4
    max_loaded: int = 3
    max_queue: int = 512
    keep_alive_s: float = 300.0
    seed: int = 0
    engine: EngineKind = "ollama"
    version: str | None = None
    frozen_time: bool = False
    router_url: str | None = None
    interval_s: float = 5.0
    router_home: Path | None = None
    agent_version: str | None = None
    preload: tuple[str, ...] = field(default=())

    @property
    def engine_version(self) -> str:
        """The version that the engine reports."""
        return self.version or ENGINE_VERSIONS[self.engine]

    def seconds(self, amount: float, rate: float | None, usual: float) -> float:
        """Wall seconds that `amount` takes at `rate` (None: the usual one, or none if the node has no delays)."""
        if rate is None:
            rate = usual if self.tokens_per_s else 0.0
        return amount / rate / self.speed if rate else 0.0

    def token_s(self, model: SimModel) -> float:
        """Wall seconds from one output token to the next."""
        rate = self.tokens_per_s if model.tokens_per_s is None else model.tokens_per_s
        return 1.0 / rate / self.speed if rate and self.tokens_per_s else 0.0

    def prefill_s(self, model: SimModel, tokens: int) -> float:
        """Wall seconds to read a prompt."""
        rate = self.prefill_tokens_per_s if model.prefill_tokens_per_s is None else model.prefill_tokens_per_s
        return self.seconds(tokens, rate, 20 * (model.tokens_per_s or self.tokens_per_s))

    def load_s(self, model: SimModel) -> float:
        """Wall seconds to load a model's weights."""
        return self.seconds(model.size_bytes, self.load_bytes_per_s, 1 * GIB)

    def pull_s(self, model: SimModel) -> float:
        """Wall seconds to download a model."""
        return self.seconds(model.size_bytes, self.pull_bytes_per_s, 100e6)
