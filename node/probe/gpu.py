"""AMD accelerators through the kernel's files, and Apple's, which share the machine's memory."""

import platform
import re
import subprocess
from pathlib import Path

from herd import wire

AMD_LEAST_BYTES = 1024**3  # a smaller one is the carve-out of a processor's graphics, where no model lives


def amd_gpus(root: Path = Path("/")) -> list[wire.Gpu]:
    """AMD cards by the amdgpu driver's files below /sys/class/drm, in the order of their numbers."""
    cards = [path for path in (root / "sys/class/drm").glob("card*") if re.fullmatch(r"card\d+", path.name)]
    found = (_amd_gpu(card / "device") for card in sorted(cards, key=lambda card: int(card.name[4:])))
    return [gpu for gpu in found if gpu]


def _amd_gpu(device: Path) -> wire.Gpu | None:
    total = _number(device / "mem_info_vram_total")
    if total is None or total < AMD_LEAST_BYTES:
        return None
    busy = _number(device / "gpu_busy_percent")
    return wire.Gpu(
        name=_text(device / "product_name") or f"AMD {_text(device / 'device')}".strip(),
        kind="amd",
        memory_total_bytes=total,
        memory_used_bytes=_number(device / "mem_info_vram_used") or 0,
        utilization=None if busy is None else min(busy, 100) / 100,
        temperature_c=_temperature(device),
    )


def _temperature(device: Path) -> float | None:
    for sensor in sorted(device.glob("hwmon/hwmon*/temp1_input")):
        if (thousandths := _number(sensor)) is not None:
            return thousandths / 1000
    return None


def apple_gpus(
    memory: wire.Memory, system: str = platform.system(), machine: str = platform.machine()
) -> list[wire.Gpu]:
    """The one accelerator of a Mac with Apple's processor; its memory is the machine's."""
    if (system, machine) != ("Darwin", "arm64"):
        return []
    return [
        wire.Gpu(
            name=_apple_name(),
            kind="apple",
            memory_total_bytes=memory.total_bytes,
            memory_used_bytes=memory.used_bytes,
        )
    ]


def _apple_name() -> str:
    question = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        told = subprocess.run(question, capture_output=True, text=True, timeout=2, check=False).stdout
        return told.strip()[:200] or "Apple"
    except (OSError, subprocess.TimeoutExpired):
        return "Apple"


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isascii() and text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()[:200]
    except OSError:
        return ""
