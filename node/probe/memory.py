"""Main memory and how hard it is pressed, as the operating system sees it; a container's limit counts as the machine's.

Linux's own measure is PSI: the share of the last 10 s in which some task waited for memory. From 10 % on work is slowed
(warn); from 40 % on the machine is busy with swapping or reading its own pages back, and a model crawls (critical).
"""

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from herd import wire

PSI_WARN, PSI_CRITICAL = 0.10, 0.40
AVAILABLE_WARN, AVAILABLE_CRITICAL = 0.10, 0.04  # for systems that measure no pressure
UNLIMITED = 2**60  # version 1 of cgroups writes "no limit" as a number near 2**63


@dataclass(frozen=True, slots=True)
class Limit:
    """A container's memory limit and what of it is in use beyond the file cache, in bytes."""

    total: int
    used: int


def read_memory(root: Path = Path("/")) -> wire.Memory:
    """Memory now, in bytes; within a limited container the limit and its use."""
    seen = psutil.virtual_memory()
    total, available = seen.total, seen.available
    if (limit := container_limit(root)) and limit.total < total:
        total, available = limit.total, min(available, max(0, limit.total - limit.used))
    return wire.Memory(
        total_bytes=total,
        used_bytes=max(0, total - available),  # what no model can have, so without caches that give way
        available_bytes=available,
        swap_used_bytes=_swap_used(),
        pressure=_pressure(root, total, available),
    )


def _swap_used() -> int:
    try:
        return psutil.swap_memory().used
    except (OSError, RuntimeError):
        return 0  # some systems refuse the question


def _pressure(root: Path, total: int, available: int) -> wire.Pressure:
    if platform.system() == "Darwin":
        return mac_pressure(_mac_pressure_level()) or available_pressure(total, available)
    for source in ("sys/fs/cgroup/memory.pressure", "proc/pressure/memory"):  # a container's own before the machine's
        share = psi_some(_text(root / source))
        if share is not None:
            return psi_pressure(share)
    return available_pressure(total, available)


def psi_some(text: str) -> float | None:
    """The `some avg10` share 0..1 of a PSI file; None where there is none (kernels without PSI, or with it off)."""
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        try:
            if kind == "some":
                return float(values["avg10"]) / 100
        except (KeyError, ValueError):
            return None
    return None


def psi_pressure(share: float) -> wire.Pressure:
    """Pressure from a PSI share."""
    return "critical" if share >= PSI_CRITICAL else "warn" if share >= PSI_WARN else "normal"


def available_pressure(total: int, available: int) -> wire.Pressure:
    """Pressure from the share of memory that is still to be had."""
    share = available / total if total else 1.0
    return "critical" if share < AVAILABLE_CRITICAL else "warn" if share < AVAILABLE_WARN else "normal"


def mac_pressure(text: str) -> wire.Pressure | None:
    """Pressure from macOS's own level: 1 is normal, 2 warn, 4 critical; None for anything else."""
    levels: dict[str, wire.Pressure] = {"1": "normal", "2": "warn", "4": "critical"}
    return levels.get(text.strip())


def _mac_pressure_level() -> str:
    question = ["/usr/sbin/sysctl", "-n", "kern.memorystatus_vm_pressure_level"]
    try:
        return subprocess.run(question, capture_output=True, text=True, timeout=2, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def container_limit(root: Path) -> Limit | None:
    """The limit of the control group at the root of what this process sees: the container's, None outside of one.

    The agent's own group further down is not asked: as a service of its own the agent may have a small limit that says
    nothing of the engine's.
    """
    for folder, most, current, cache in (
        ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        total, used = _number(root / folder / most), _number(root / folder / current)
        if total is not None and used is not None and 0 < total < UNLIMITED:
            return Limit(total, max(0, used - _stat(root / folder / "memory.stat", cache)))
    return None


def _stat(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
