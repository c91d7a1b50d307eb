"""Board: what sysfs and procfs say, on trees laid out as real boards have them."""

import asyncio
import platform
from contextlib import suppress
from math import isnan
from pathlib import Path

import pytest

from agent import __version__
from agent.board.clock import clock_battery, clock_synchronised
from agent.board.hardware import board_now, cpu_features, hardware_names
from agent.board.layers import LAYERS, sandbox_layers
from agent.board.limits import UNLIMITED, memory_left, read_limits
from agent.board.readings import (
    THROTTLE_KINDS,
    BoardReader,
    BoardWatch,
    read_board,
    read_disk_percent,
    read_frequency,
    read_temperatures,
    read_throttled,
)


def lay(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a root as the kernel would show them."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


THERMAL = "sys/class/thermal/thermal_zone"
GROUPS = "sys/fs/cgroup/system.slice"


def test_temperatures_of_a_raspberry_pi(tmp_path: Path) -> None:
    """One zone, thousandths of a degree, with a newline."""
    lay(tmp_path, {f"{THERMAL}0/type": "cpu-thermal\n", f"{THERMAL}0/temp": "48686\n"})
    assert read_temperatures(tmp_path) == (("cpu-thermal", 48.686),)


def test_temperatures_of_one_name_are_numbered(tmp_path: Path) -> None:
    """Two series of one name would void a scrape."""
    files: dict[str, str | bytes] = {}
    for zone in range(3):
        files |= {f"{THERMAL}{zone}/type": "cpu", f"{THERMAL}{zone}/temp": f"{zone}000"}
    assert read_temperatures(lay(tmp_path, files)) == (
        ("cpu", 0.0),
        ("cpu-1", 1.0),
        ("cpu-2", 2.0),
    )


@pytest.mark.parametrize("temp", ["", "n/a", "-274000", "2147483647", "nan"])
def test_broken_sensors_are_left_out(temp: str, tmp_path: Path) -> None:
    """A Jetson's unpowered zone says -256; nonsense is no temperature."""
    lay(tmp_path, {f"{THERMAL}0/type": "gpu", f"{THERMAL}0/temp": temp})
    assert read_temperatures(tmp_path) == ()


def test_a_zone_without_a_file_is_left_out(tmp_path: Path) -> None:
    """A zone whose temperature cannot be read is not there."""
    lay(tmp_path, {f"{THERMAL}0/type": "gpu"})
    assert read_temperatures(tmp_path) == ()


def test_hwmon_serves_where_there_are_no_zones(tmp_path: Path) -> None:
    """A PC has chips instead of zones."""
    chip = "sys/class/hwmon/hwmon1"
    lay(tmp_path, {f"{chip}/name": "coretemp", f"{chip}/temp1_input": "51000"})
    assert read_temperatures(tmp_path) == (("coretemp", 51.0),)


def test_frequency_is_the_mean_over_clusters(tmp_path: Path) -> None:
    """Big and little cores have a policy each, in kHz."""
    cpufreq = "sys/devices/system/cpu/cpufreq/policy"
    assert isnan(read_frequency(tmp_path))
    lay(
        tmp_path,
        {
            f"{cpufreq}0/scaling_cur_freq": "1000000\n",
            f"{cpufreq}4/scaling_cur_freq": "2000000\n",
        },
    )
    assert read_frequency(tmp_path) == 1.5e9


@pytest.mark.parametrize(
    ("told", "holding"),
    [
        ("0\n", []),
        ("1\n", ["under_voltage"]),
        ("50005\n", ["under_voltage", "throttled"]),
        ("8", ["soft_temperature_limit"]),
        ("e0000", []),
    ],
)
def test_a_raspberry_pi_says_what_slows_it_down(
    told: str, holding: list[str], tmp_path: Path
) -> None:
    """The low bits hold now; what was since boot is no state of the board."""
    lay(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": told})
    rows = BoardReader(root=tmp_path).read().throttled
    assert [kind for kind, _ in rows] == list(THROTTLE_KINDS)
    assert [kind for kind, holds in rows if holds] == holding


@pytest.mark.parametrize("told", [None, "", "n/a"])
def test_other_boards_say_nothing_of_throttling(
    told: str | None, tmp_path: Path
) -> None:
    """No file, or nonsense in it: no such series."""
    if told is not None:
        lay(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": told})
    assert read_throttled(tmp_path) == ()


def test_hardware_goes_from_the_board_to_the_machine(tmp_path: Path) -> None:
    """The device tree's list, NUL after each, then what Python calls the machine."""
    lay(
        tmp_path,
        {"proc/device-tree/compatible": b"raspberrypi,4-model-b\0brcm,bcm2711\0"},
    )
    machine = platform.machine()
    expected = ("raspberrypi,4-model-b", "brcm,bcm2711", machine)
    assert hardware_names(tmp_path) == expected
    assert hardware_names(tmp_path / "elsewhere") == (machine,)


def test_processor_features_are_those_that_matter(tmp_path: Path) -> None:
    """Of all flags only those that fast kernels ask for, in their order."""
    if platform.machine() != "x86_64":
        pytest.skip("the list of flags belongs to x86-64")
    lay(tmp_path, {"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu avx2 fma avx x\n"})
    assert cpu_features(tmp_path) == ("avx", "fma", "avx2")


def test_a_hidden_processor_is_known_as_such(tmp_path: Path) -> None:
    """Without /proc/cpuinfo nothing is guessed: models would run 50 times slower."""
    assert cpu_features(tmp_path) is None


def test_the_tightest_group_limits(tmp_path: Path) -> None:
    """Every group on the way up counts, whichever is tightest."""
    lay(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/tinyward.service\n",
            f"{GROUPS}/memory.max": "400000000\n",
            f"{GROUPS}/pids.max": "max\n",
            f"{GROUPS}/tinyward.service/memory.max": "500000000\n",
            f"{GROUPS}/tinyward.service/pids.max": "64\n",
            f"{GROUPS}/tinyward.service/cpu.max": "150000 100000\n",
            f"{GROUPS}/memory.current": "390000000\n",
            f"{GROUPS}/tinyward.service/memory.current": "100000000\n",
        },
    )
    limits = read_limits(tmp_path)
    assert (limits.memory_bytes, limits.tasks, limits.cpus) == (400_000_000, 64, 1.5)
    assert memory_left(tmp_path) == 10_000_000


def test_an_overdrawn_group_leaves_nothing(tmp_path: Path) -> None:
    """Above its limit for a moment, a group allows 0 bytes more, not less than 0."""
    lay(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "100",
            "sys/fs/cgroup/memory.current": "200",
        },
    )
    assert memory_left(tmp_path) == 0


@pytest.mark.parametrize("groups", ["", "12:memory:/x\n", "0::/gone\n"])
def test_no_group_is_no_limit(groups: str, tmp_path: Path) -> None:
    """Version 1, an unmounted tree and none at all leave everything open."""
    limits = read_limits(lay(tmp_path, {"proc/self/cgroup": groups}))
    assert (limits.memory_bytes, limits.tasks) == (UNLIMITED, UNLIMITED)
    assert limits.cpus == float("inf")


def test_the_clock_is_synchronised_if_timesyncd_says_so(tmp_path: Path) -> None:
    """systemd's own mark is believed before the kernel is asked."""
    lay(tmp_path, {"run/systemd/timesync/synchronized": ""})
    assert clock_synchronised(tmp_path) is True
    assert clock_synchronised(tmp_path / "none") in {True, False, None}


def test_a_clock_battery_is_a_device(tmp_path: Path) -> None:
    """A Pi 4 has none, a Pi 5 has."""
    assert clock_battery(tmp_path) is False
    assert clock_battery(lay(tmp_path, {"dev/rtc0": ""})) is True


def test_every_layer_is_there_or_says_why() -> None:
    """Each probe answers with a text and raises nothing, on any kernel."""
    layers = sandbox_layers()
    assert set(layers) == set(LAYERS)
    assert layers["no_new_privs"] == ""
    assert all(isinstance(why, str) for why in layers.values())


def test_this_board_can_be_read() -> None:
    """On the machine that runs the tests all readings are numbers in their range."""
    readings = read_board()
    assert 0 <= readings.cpu_percent <= 100
    assert 0 < readings.memory_percent <= 100
    assert 0 <= readings.disk_percent <= 100
    assert readings.load_1min >= 0
    assert len(readings.vector()) == 8


def test_a_disk_that_is_gone_has_no_share(tmp_path: Path) -> None:
    """An unplugged stick costs a reading, not the daemon."""
    assert isnan(read_disk_percent(tmp_path / "gone"))


def test_rates_are_per_second_of_the_clock() -> None:
    """Without time between two readings there is no rate, rather than infinity."""
    ticks = iter([100.0, 100.0, 102.0])
    reader = BoardReader(clock=lambda: next(ticks))
    assert isnan(reader.read().received_bytes_per_s)
    assert reader.read().received_bytes_per_s >= 0


def test_the_watch_keeps_the_newest_reading() -> None:
    """Taking a reading reads nothing; the watch reads in its own time."""
    watch = BoardWatch(BoardReader(), period_s=0.001)

    async def story() -> None:
        first = watch.readings
        assert watch.readings is first
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watch.run())
            while watch.readings is first:  # noqa: ASYNC110 -- plain state
                await asyncio.sleep(0.001)
            task.cancel()

    with suppress(asyncio.CancelledError):
        asyncio.run(story())
    assert isinstance(watch.readings.load_1min, float)


def test_admission_gets_what_the_board_is(tmp_path: Path) -> None:
    """The settings' names win over what the board reports; space and memory are now."""
    named = board_now("cam-7", ("jetson",), tmp_path)
    assert (named.id, named.hardware, named.agent) == (
        "cam-7",
        ("jetson",),
        __version__,
    )
    assert named.free_bytes > 0
    assert named.ram_bytes > 0
    assert board_now("", (), tmp_path).hardware == hardware_names()
