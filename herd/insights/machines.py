"""A node as a place for models: how much memory they may take there, and how fast it reads them.

Reads `machines.toml`, once. The rules of thumb stand here, each with its reason.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from herd.core import learning
from herd.core.signals import GIB, KV_SHARE
from herd.wire import Heartbeat

FILE: Final = Path(__file__).with_name("machines.toml")
# What a process of the engine takes beside weights and context: compute buffers, and the driver's context on a GPU.
BUFFERS: Final = GIB // 2
# macOS lets the GPU wire two thirds of the memory of a machine of up to 36 GiB, three quarters of a larger one's.
UNIFIED_SMALL, UNIFIED_LARGE, UNIFIED_LARGE_FROM = 2 / 3, 3 / 4, 37 * GIB
# A card of its own: the desktop and the driver take some of it.
CARD_SHARE: Final = 0.95
# Without an accelerator the operating system and everything else live in the same memory.
SYSTEM_SHARE, SYSTEM_LEAST = 0.8, 2 * GIB
KINDS: Final[Mapping[str, str]] = {
    "NVIDIA": "nvidia",
    "Tesla": "nvidia",
    "AMD": "amd",
    "Radeon": "amd",
    "Apple": "apple",
}
_UNSAID: Final = frozenset({"nvidia", "geforce", "amd", "radeon", "apple"})
_MEMORY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)", re.IGNORECASE)
_NEAR: Final = 0.15  # a machine's reported memory is some percent under the one that it is sold with


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU: its name and kind as the agent reports them, and the bytes of its memory."""

    name: str
    kind: str
    memory: int


@dataclass(frozen=True, slots=True)
class Machine:
    """One node: its memory in bytes, the models on its disk and in its memory, with their bytes (0 where unknown)."""

    node_id: str
    memory: int
    accelerators: tuple[Accelerator, ...] = ()
    models: Mapping[str, int] = field(default_factory=dict)
    loaded: frozenset[str] = frozenset()
    status: str = "online"
    draining: bool = False
    engine: str = "ollama"

    @property
    def unified(self) -> bool:
        """Whether accelerator and processor share one memory."""
        return any(each.kind == "apple" or each.memory >= self.memory for each in self.accelerators)

    @property
    def capacity(self) -> int:
        """Bytes of the memory that models should live in."""
        own = sum(each.memory for each in self.accelerators)
        return own if own and not self.unified else self.memory

    @property
    def usable(self) -> int:
        """Bytes of it that models may take, context included."""
        if self.unified:
            return int(self.memory * (UNIFIED_LARGE if self.memory >= UNIFIED_LARGE_FROM else UNIFIED_SMALL))
        if self.accelerators:
            return int(self.capacity * CARD_SHARE)
        return max(0, min(int(self.memory * SYSTEM_SHARE), self.memory - SYSTEM_LEAST))


@dataclass(frozen=True, slots=True)
class Speed:
    """Bytes a second that a node reads of its models; `chip` is what was looked up, `assumed` what was guessed."""

    bandwidth: float
    chip: str
    assumed: str | None = None

    def tokens_per_s(self, size: int, active_share: float = 1.0) -> float | None:
        """Tokens that one request may expect in a second from a model of that size; None where the size is unknown."""
        return round(self.bandwidth * learning.EFFICIENCY / (size * active_share), 1) if size else None


def needed(size: int) -> int:
    """Bytes that a model takes in memory: its weights, the usual context, and buffers."""
    return int(size * (1 + KV_SHARE)) + BUFFERS


class Machines:
    """The table of memory bandwidths."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._ddr4, self._ddr5 = float(told["processor"]["ddr4_gb_s"]), float(told["processor"]["ddr5_gb_s"])
        self._names = tuple(dict.fromkeys(each["name"] for each in told["machines"]))
        self._known: dict[str, list[tuple[float | None, float]]] = {}
        for each in told["machines"]:
            entry = (each.get("memory_gb"), float(each["bandwidth_gb_s"]))
            self._known.setdefault(each["name"].casefold(), []).append(entry)

    def speed(self, machine: Machine) -> Speed | None:
        """How fast a node reads; None for an accelerator that is not in the table.

        With several accelerators a model is spread over them, and read from one after the other: the slowest counts.
        """
        if not machine.accelerators:
            assumed = f"two channels of DDR4-3200; DDR5-5600 would read {self._ddr5:g} GB/s"
            return Speed(self._ddr4 * 1e9, "processor", assumed)
        found = [self._bandwidth(each) for each in machine.accelerators]
        known = [bandwidth for bandwidth in found if bandwidth is not None]
        if len(known) < len(found):
            return None
        return Speed(min(known) * 1e9, ", ".join(sorted({each.name for each in machine.accelerators})))

    @property
    def names(self) -> tuple[str, ...]:
        """Every accelerator of the table, as its agent reports it."""
        return self._names

    def _bandwidth(self, accelerator: Accelerator) -> float | None:
        entries = self._known.get(accelerator.name.casefold(), [])
        exact = [speed for memory, speed in entries if memory and _about(accelerator.memory, memory)]
        return next(iter(exact), None) or next((speed for memory, speed in entries if memory is None), None)


def described(text: str) -> tuple[Machine, learning.Machine]:
    """A machine that may be bought, from words such as `RTX 3090, 24 GB` or `M3 Ultra, 96 GB`: what it is, on paper.

    ValueError where the table does not have it, or no memory is named.
    """
    asked, _, memory = text.partition(",")
    size = _MEMORY.fullmatch(memory.strip())
    if not size:
        raise ValueError(f"{text!r} names no memory: it should be like `RTX 3090, 24 GB`")
    short = {_short(name): name for name in MACHINES.names}
    name = short.get(_short(asked))
    if name is None:
        near = get_close_matches(_short(asked), short, 3, 0.5)
        instead = f"; there are {', '.join(near)}" if near else ""
        raise ValueError(f"{asked.strip()!r} is not in the catalogue of machines{instead}")
    kind = next((kind for maker, kind in KINDS.items() if maker in name), "other")
    bytes_of_it = round(float(size[1]) * GIB)
    accelerator = Accelerator(name, kind, bytes_of_it)
    node_id = _short(asked).replace(" ", "-")
    # A card's memory is its own; that of the machine around it is larger, and models do not live there.
    machine = Machine(node_id, bytes_of_it if kind == "apple" else 4 * bytes_of_it, (accelerator,))
    speed = MACHINES.speed(machine)
    return machine, learning.Machine(speed.bandwidth if speed else None, kind)


def on_paper(heartbeat: Heartbeat) -> learning.Machine:
    """What routing should expect of a node before it has seen it work."""
    accelerators = tuple(Accelerator(gpu.name, gpu.kind, gpu.memory_total_bytes) for gpu in heartbeat.gpus)
    speed = MACHINES.speed(Machine(heartbeat.node_id, heartbeat.memory.total_bytes, accelerators))
    kind = accelerators[0].kind if accelerators else ""
    return learning.Machine(speed.bandwidth if speed else None, kind)


def load(path: Path = FILE) -> Machines:
    """The table of a file. Raises KeyError, TypeError or ValueError where the file is not one."""
    return Machines(tomllib.loads(path.read_text(encoding="utf-8")))


def _short(name: str) -> str:
    """A machine's name as people say it: `NVIDIA GeForce RTX 3090` is the `rtx 3090`."""
    return " ".join(word for word in name.casefold().split() if word not in _UNSAID)


def _about(memory: int, gb: float) -> bool:
    return abs(memory / GIB - gb) <= gb * _NEAR


MACHINES: Final = load()
