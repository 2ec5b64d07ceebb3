"""The processor: cores, utilisation since the last reading, temperature, and whether heat slows it down."""

import platform
import subprocess
from pathlib import Path

import psutil

from herd import wire

SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "acpitz")  # the first that exists is taken
THROTTLE_COUNTS = "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"


class CpuMeter:
    """Reads the processor; utilisation and throttling are what happened since the reading before."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._times = _busy_and_total()
        self._throttles = throttle_count(root)

    def read(self) -> wire.Cpu:
        """The processor now; utilisation is 0 where no time has passed since the last reading."""
        before, self._times = self._times, _busy_and_total()
        seen, self._throttles = self._throttles, throttle_count(self._root)
        return wire.Cpu(
            cores=psutil.cpu_count() or 1,
            utilization=utilization(before, self._times),
            temperature_c=_temperature(),
            throttled=self._throttles > seen or _mac_throttled(),
        )


def utilization(before: tuple[float, float], after: tuple[float, float]) -> float:
    """The busy share 0..1 of the time between two (busy, total) readings."""
    total = after[1] - before[1]
    return min(1.0, max(0.0, (after[0] - before[0]) / total)) if total > 0 else 0.0


def _busy_and_total() -> tuple[float, float]:
    # psutil.cpu_percent remembers its last reading per thread, and readings come from any thread of the pool
    times = psutil.cpu_times()
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice already
    total = sum(times) - guests
    return total - times.idle - getattr(times, "iowait", 0.0), total


def throttle_count(root: Path) -> int:
    """How often the kernel saw a core or package slowed by heat since it started (Intel; 0 elsewhere)."""
    total = 0
    for counter in root.glob(THROTTLE_COUNTS):
        try:
            total += int(counter.read_text())
        except (OSError, ValueError):
            continue
    return total


def _temperature() -> float | None:
    read = getattr(psutil, "sensors_temperatures", None)  # psutil has it on Linux and FreeBSD only
    try:
        sensors = read() if read else {}
    except (OSError, ValueError, RuntimeError):
        return None  # some boards' sensors answer nonsense
    for name in SENSORS:
        if temperatures := [sensor.current for sensor in sensors.get(name, []) if -50 < sensor.current < 150]:
            return float(max(temperatures))
    return None


def _mac_throttled() -> bool:
    if platform.system() != "Darwin":
        return False
    try:
        told = subprocess.run(["/usr/bin/pmset", "-g", "therm"], capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return mac_speed_limited(told.stdout)


def mac_speed_limited(text: str) -> bool:
    """Whether `pmset -g therm` says that the processor may not run at its full speed."""
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "CPU_Speed_Limit" and value.strip().isdigit():
            return int(value) < 100
    return False
