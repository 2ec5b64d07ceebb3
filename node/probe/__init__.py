"""The machine, measured: one blocking `read` that puts processor, memory, disk and accelerators together."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from herd import wire

from .cpu import CpuMeter
from .gpu import amd_gpus, apple_gpus
from .memory import read_memory
from .nvidia import NvidiaMeter


@dataclass(frozen=True, slots=True)
class MachineState:
    """One machine at one moment, in the heartbeat's own parts."""

    cpu: wire.Cpu
    memory: wire.Memory
    disk: wire.Disk | None
    gpus: tuple[wire.Gpu, ...]


class Machine:
    """Measures this machine; `root` is where /proc and /sys are looked for. Not for two threads at once."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._cpu = CpuMeter(root)
        self._nvidia = NvidiaMeter()

    def read(self, models_folder: Callable[[], Path | None]) -> MachineState:
        """Measure everything; files and drivers are asked, so this may block. What cannot be read is left out."""
        memory = read_memory(self._root)
        found = [*self._nvidia.read(memory), *amd_gpus(self._root), *apple_gpus(memory)]
        gpus = tuple(gpu.model_copy(update={"index": index}) for index, gpu in enumerate(found[:64]))
        return MachineState(self._cpu.read(), memory, read_disk(models_folder()), gpus)


def read_disk(folder: Path | None) -> wire.Disk | None:
    """The disk that a folder is on, or would be on once made; None (no folder known) means the home folder's."""
    place = folder or Path.home()
    for existing in (place, *place.parents):
        try:
            usage = psutil.disk_usage(str(existing))
        except OSError:
            continue
        return wire.Disk(total_bytes=usage.total, free_bytes=usage.free)
    return None
