"""What the agent measures of the machine, from real folders laid out as kernels lay them out."""

import pytest

from herd import wire
from node.probe import Machine, read_disk
from node.probe.cpu import CpuMeter, mac_speed_limited, utilization
from node.probe.gpu import amd_gpus, apple_gpus
from node.probe.memory import (
    Limit,
    available_pressure,
    container_limit,
    mac_pressure,
    psi_pressure,
    psi_some,
    read_memory,
)

GIB = 1024**3
PSI = "some avg10={} avg60=0.00 avg300=0.00 total=1\nfull avg10=90.00 avg60=0.00 avg300=0.00 total=0\n"


@pytest.fixture
def write(tmp_path):
    """Lays out a kernel's tree of files, path to text, and gives its root."""

    def lay_out(tree):
        for path, text in tree.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(text))
        return tmp_path

    return lay_out


def card(number, total_gib=16, used_gib=4, busy=37):
    """The files of one AMD card."""
    device = f"sys/class/drm/card{number}/device"
    return {
        f"{device}/mem_info_vram_total": f"{int(total_gib * GIB)}\n",
        f"{device}/mem_info_vram_used": f"{used_gib * GIB}\n",
        f"{device}/gpu_busy_percent": f"{busy}\n",
        f"{device}/device": "0x744c\n",
        f"{device}/hwmon/hwmon3/temp1_input": "54000\n",
    }


def test_the_real_machine_is_measured_within_its_bounds():
    """Whatever machine this runs on, its heartbeat must be valid."""
    state = Machine().read(lambda: None)
    memory = state.memory
    assert memory.total_bytes == memory.used_bytes + memory.available_bytes
    assert state.disk.total_bytes >= state.disk.free_bytes > 0
    assert state.cpu.cores >= 1


@pytest.mark.parametrize(
    ("avg10", "pressure"),
    [("0.00", "normal"), ("9.99", "normal"), ("10.00", "warn"), ("39.99", "warn"), ("40.00", "critical")],
)
def test_pressure_is_the_kernels_own_measure_of_waiting(avg10, pressure):
    """`some`, not `full`: one task that crawls is the model."""
    assert psi_pressure(psi_some(PSI.format(avg10))) == pressure


@pytest.mark.parametrize("text", ["", "full avg10=50.00", "some avg60=1.0", "some avg10=lots", "nonsense\n"])
def test_a_kernel_without_the_measure_gives_none(text):
    """Absent is not calm: the share of available memory decides then."""
    assert psi_some(text) is None


def test_a_containers_pressure_comes_before_the_machines(write):
    """Another container's thrashing is not this one's."""
    tree = {"proc/pressure/memory": PSI.format("50.0"), "sys/fs/cgroup/memory.pressure": PSI.format("12.0")}
    assert read_memory(write(tree)).pressure == "warn"


def test_the_machines_pressure_counts_without_a_container(write):
    """The usual case."""
    assert read_memory(write({"proc/pressure/memory": PSI.format("50.0")})).pressure == "critical"


@pytest.mark.parametrize(("available", "pressure"), [(50, "normal"), (10, "normal"), (9, "warn"), (3, "critical")])
def test_without_any_measure_the_available_share_decides(available, pressure):
    """An old kernel or another system still must not be driven into swap."""
    assert available_pressure(100, available) == pressure


def test_macos_levels_are_its_own():
    """1, 2 and 4, and nothing is read into anything else."""
    levels = [mac_pressure(text) for text in ("1\n", "2", "4", "3", "", "unknown oid")]
    assert levels == ["normal", "warn", "critical", None, None, None]


def test_a_containers_limit_is_the_machine_as_far_as_models_go(write):
    """A model that fits the host and not the container is killed when it loads."""
    tree = {
        "sys/fs/cgroup/memory.max": GIB,
        "sys/fs/cgroup/memory.current": GIB // 2,
        "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {GIB // 4}\n",
    }
    memory = read_memory(write(tree))
    assert (memory.total_bytes, memory.used_bytes) == (GIB, GIB // 4)


def test_the_older_kind_of_limit_counts_as_well(write):
    """Version 1 of control groups is still on long-lived servers."""
    folder = "sys/fs/cgroup/memory"
    tree = {f"{folder}/memory.limit_in_bytes": 100, f"{folder}/memory.usage_in_bytes": 60}
    assert container_limit(write(tree)) == Limit(100, 60)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "", "0"])
def test_no_limit_in_any_spelling_is_none(write, limit):
    """An unlimited container has the machine's memory, not 8 exbibytes."""
    root = write({"sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/memory.current": "5"})
    assert container_limit(root) is None


def test_amd_cards_are_read_from_the_drivers_files(write):
    """No tool of the maker's needs to be installed."""
    root = write({**card(1), **card(10, total_gib=8, busy=100), **card(2, used_gib=0)})
    gpus = amd_gpus(root)
    assert [gpu.memory_total_bytes // GIB for gpu in gpus] == [16, 16, 8]
    assert gpus[0] == wire.Gpu(
        name="AMD 0x744c", kind="amd", memory_total_bytes=16 * GIB, memory_used_bytes=4 * GIB,
        utilization=0.37, temperature_c=54.0,
    )  # fmt: skip


def test_outputs_and_other_makers_cards_are_no_amd_cards(write):
    """The folder also lists monitors, and cards whose driver says nothing of memory."""
    monitor = {"sys/class/drm/card0-DP-1/device/mem_info_vram_total": 16 * GIB}
    assert amd_gpus(write({**monitor, "sys/class/drm/card1/device/vendor": "0x8086"})) == []


def test_a_processors_small_carve_out_is_no_accelerator(write):
    """512 MiB for the display would make every model too large for the node."""
    assert amd_gpus(write(card(0, total_gib=0.5, used_gib=0))) == []


def test_a_card_that_is_half_readable_is_still_a_card(write):
    """Drivers differ in what they offer; memory is what routing needs."""
    gpu = amd_gpus(write({"sys/class/drm/card0/device/mem_info_vram_total": 16 * GIB}))[0]
    assert (gpu.memory_used_bytes, gpu.utilization, gpu.temperature_c) == (0, None, None)


def test_a_machine_without_cards_has_none(tmp_path):
    """Most machines."""
    assert amd_gpus(tmp_path) == []


def test_apples_accelerator_has_the_machines_memory():
    """Unified memory: the GPU may use what the machine has."""
    memory = wire.Memory(total_bytes=64, used_bytes=24, available_bytes=40)
    (gpu,) = apple_gpus(memory, "Darwin", "arm64")
    assert (gpu.kind, gpu.memory_total_bytes, gpu.memory_used_bytes) == ("apple", 64, 24)
    assert apple_gpus(memory, "Darwin", "x86_64") == apple_gpus(memory, "Linux", "arm64") == []


def test_several_gpus_are_numbered_through(write):
    """Index is how an operator tells two equal cards apart."""
    root = write({**card(0), **card(1)})
    assert [gpu.index for gpu in Machine(root).read(lambda: None).gpus][-2:] == [0, 1]


def test_utilisation_is_the_share_since_the_last_look():
    """Not since the machine started; and clocks that stand still or go back divide nothing by zero."""
    assert utilization((100.0, 200.0), (125.0, 250.0)) == 0.5
    assert utilization((100.0, 200.0), (100.0, 200.0)) == 0.0
    assert utilization((100.0, 200.0), (90.0, 150.0)) == 0.0


def test_a_processor_is_throttled_while_the_kernels_count_rises(write):
    """A hot machine is slower than its signals say; one that was hot last week is not."""
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    meter = CpuMeter(write({counter: 5}))
    calm = meter.read().throttled
    write({counter: 6})
    assert (calm, meter.read().throttled, meter.read().throttled) == (False, True, False)


def test_macos_speed_limits_are_read_from_its_own_report():
    """Laptops on a lap."""
    assert mac_speed_limited("Note: ...\n\tCPU_Scheduler_Limit \t= 100\n\tCPU_Speed_Limit \t= 72\n")
    assert not mac_speed_limited("CPU_Speed_Limit = 100")
    assert not mac_speed_limited("Note: No thermal warning level has been recorded")


def test_the_disk_of_a_folder_yet_to_be_made_is_that_of_its_parent(tmp_path):
    """Before the first pull there is no models folder."""
    assert read_disk(tmp_path / "not" / "there").total_bytes == read_disk(tmp_path).total_bytes
