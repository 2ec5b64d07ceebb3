"""NVIDIA accelerators through NVML, the driver's own library. A machine without one is the usual case, and silent."""

from collections.abc import Callable
from typing import Any

import pynvml

from herd import wire

# Names of NVML's constants differ between releases of its binding; the bits are the driver's and stay.
SOFTWARE_THERMAL, HARDWARE_THERMAL = 0x20, 0x40


class NvidiaMeter:
    """Reads all NVIDIA devices; the library stays open between readings, since opening it can take a second."""

    def __init__(self) -> None:
        self._open = False

    def read(self, memory: wire.Memory) -> list[wire.Gpu]:
        """The devices now, none without a driver. `memory` is the machine's: some devices have none of their own."""
        try:
            if not self._open:
                pynvml.nvmlInit()
                self._open = True
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:
            self._close()
            return []
        found = (_gpu(handle, memory) for handle in handles)
        return [gpu for gpu in found if gpu]

    def _close(self) -> None:
        if self._open:
            self._open = False
            _asked(pynvml.nvmlShutdown)


def _gpu(handle: Any, memory: wire.Memory) -> wire.Gpu | None:
    try:
        own = pynvml.nvmlDeviceGetMemoryInfo(handle)
        total, used = int(own.total), int(own.used)
    except pynvml.NVMLError_NotSupported:  # unified memory: the device lives in the machine's
        total, used = memory.total_bytes, memory.used_bytes
    except pynvml.NVMLError:  # fallen off the bus, or being reset
        return None
    rates = _asked(pynvml.nvmlDeviceGetUtilizationRates, handle)
    reasons = _asked(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
    return wire.Gpu(
        name=str(_asked(pynvml.nvmlDeviceGetName, handle) or "NVIDIA")[:200],
        kind="nvidia",
        memory_total_bytes=total,
        memory_used_bytes=used,
        utilization=min(rates.gpu, 100) / 100 if rates else None,
        temperature_c=_asked(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        throttled=bool(reasons & (SOFTWARE_THERMAL | HARDWARE_THERMAL)),
    )


def _asked(question: Callable[..., Any], *about: Any) -> Any:
    """NVML's answer, None where this device or driver has none; each question fails on some device."""
    try:
        return question(*about)
    except pynvml.NVMLError:
        return None
