"""Made fleets of machines as people have them, and how fast models are on them, from bandwidth and compute.

Prefill is bound by compute: two operations a parameter and token; an answer by memory bandwidth, since each token
reads the weights once; a load by the disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from herd.core.learning import EFFICIENCY
from herd.core.signals import KV_SHARE
from herd.planning.engine import Machine, Speed


@dataclass(frozen=True, slots=True)
class Kind:
    """A machine: memory for models in GB, GB/s of memory and disk, usable TFLOPS, and how requests share it."""

    memory: float
    bandwidth: float
    tflops: float
    disk: float
    prefill_fall: float
    decode_fall: float
    accelerator: str = "nvidia"


KINDS: Mapping[str, Kind] = {
    "RTX 4090": Kind(23, 1008, 80, 1.8, 0.5, 0.12),
    "RTX 3090": Kind(23, 936, 40, 1.2, 0.5, 0.15),
    "RTX 4070": Kind(11.5, 504, 30, 1.0, 0.5, 0.18),
    "M3 Ultra": Kind(96, 819, 28, 2.5, 0.6, 0.2, "apple"),
    "M2 Pro": Kind(21, 200, 6, 2.0, 0.6, 0.3, "apple"),
}
FLEETS: Mapping[int, tuple[str, ...]] = {
    3: ("RTX 4090", "RTX 4070", "M3 Ultra"),
    5: ("RTX 4090", "RTX 3090", "RTX 4070", "M3 Ultra", "M2 Pro"),
    10: ("RTX 4090", "RTX 4090", "RTX 3090", "RTX 3090", "RTX 4070", "RTX 4070", "M3 Ultra", "M3 Ultra", "M2 Pro",
         "M2 Pro"),
}  # fmt: skip
# By popularity: GB of weights, and billions of parameters.
MODELS: Mapping[str, tuple[float, float]] = {
    "llama3.1:8b": (4.9, 8.0),
    "qwen3:14b": (9.3, 14.8),
    "llama3.2:3b": (2.0, 3.2),
    "qwen3:32b": (20.0, 32.8),
    "llama3.3:70b": (43.0, 70.6),
}


def machine(node_id: str, kind: str, models: Mapping[str, tuple[float, float]] = MODELS, slots: int = 4) -> Machine:
    """A machine with all models on its disk that its memory can hold."""
    facts = KINDS[kind]
    speeds = {name: speed(facts, size, params) for name, (size, params) in models.items()}
    held = {name: found for name, found in speeds.items() if found.size <= facts.memory}
    return Machine(node_id, facts.memory, held, slots, facts.prefill_fall, facts.decode_fall,
                   facts.accelerator, facts.bandwidth)  # fmt: skip


def speed(kind: Kind, size: float, params: float) -> Speed:
    """How fast a model of `size` GB and `params` billion parameters is on a machine."""
    return Speed(
        size=size * (1 + KV_SHARE),
        load_s=1.0 + size / kind.disk,
        prefill=kind.tflops * 1e12 / (2 * params * 1e9),
        decode=kind.bandwidth * EFFICIENCY / size,
    )


def fleet(count: int) -> Sequence[Machine]:
    """The made fleet of 3, 5 or 10 machines."""
    return [machine(f"{kind.lower().replace(' ', '-')}-{place}", kind) for place, kind in enumerate(FLEETS[count])]
