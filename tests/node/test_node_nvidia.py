"""NVIDIA devices through the driver's library: a small one, compiled here, that answers as the driver's does."""

import json
import os
import shutil
import subprocess
import sys

import pytest

LIBRARY = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } rates_t;
static long devices[4] = {0, 1, 2, 3};
int nvmlInitWithFlags(unsigned int flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 4; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) { *device = &devices[index]; return 0; }
int nvmlDeviceGetName(long *device, char *name, unsigned int length) { strcpy(name, "RTX 4090"); return 0; }
int nvmlDeviceGetMemoryInfo(long *device, memory_t *memory) {
    if (*device == 1) return 3;  /* NOT_SUPPORTED: unified memory */
    if (*device == 2) return 15; /* GPU_IS_LOST */
    memory->total = 24000; memory->used = 6000; memory->free = 18000; return 0;
}
int nvmlDeviceGetUtilizationRates(long *device, rates_t *rates) {
    if (*device == 3) return 3;
    rates->gpu = 42; rates->memory = 7; return 0;
}
int nvmlDeviceGetTemperature(long *device, int sensor, unsigned int *degrees) { *degrees = 71; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(long *device, unsigned long long *reasons) {
    *reasons = *device == 0 ? 0x40 : 0x04; return 0; /* heat; a power cap is no heat */
}
"""
READER = """
import json
from herd import wire
from node.probe.nvidia import NvidiaMeter
meter, memory = NvidiaMeter(), wire.Memory(total_bytes=100, used_bytes=30, available_bytes=70)
meter.read(memory)
print(json.dumps([gpu.model_dump() for gpu in meter.read(memory)]))
"""


def read_gpus(**environment):
    """What a process of its own reads, since the library is loaded once a process."""
    clean = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", READER],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env={**clean, **environment},
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def gpus(tmp_path_factory):
    """The devices of the compiled library."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvml.c").write_text(LIBRARY)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "nvml.c"], check=True, timeout=60)
    return read_gpus(LD_LIBRARY_PATH=str(folder))


def test_a_device_tells_its_memory_use_and_heat(gpus):
    """VRAM decides what fits; heat what is fast."""
    assert gpus[0] == {
        "index": 0, "name": "RTX 4090", "kind": "nvidia", "memory_total_bytes": 24000, "memory_used_bytes": 6000,
        "utilization": 0.42, "temperature_c": 71.0, "throttled": True,
    }  # fmt: skip


def test_a_device_without_memory_of_its_own_has_the_machines(gpus):
    """Unified-memory devices answer "not supported", which is not "no memory"."""
    assert (gpus[1]["memory_total_bytes"], gpus[1]["memory_used_bytes"], gpus[1]["throttled"]) == (100, 30, False)


def test_a_lost_device_is_left_out_and_a_silent_question_is_none(gpus):
    """A card that fell off the bus must not look like one with the machine's memory."""
    assert len(gpus) == 3
    assert (gpus[2]["memory_total_bytes"], gpus[2]["utilization"]) == (24000, None)


def test_a_machine_without_the_driver_has_none_and_says_nothing():
    """The usual case must leave no line in anyone's log."""
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has the driver")
    assert read_gpus() == []
