"""Board: what it is and what it allows, on trees laid out as real boards have them."""

import platform
from pathlib import Path

import pytest

from agent import __version__
from agent.board.clock import clock_battery, clock_synchronised
from agent.board.hardware import board_now, cpu_features, hardware_names
from agent.board.layers import LAYERS, sandbox_layers
from agent.board.limits import UNLIMITED, memory_left, read_limits
from tests.fakes.board_trees import lay, tree

GROUPS = "sys/fs/cgroup/system.slice"


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


def test_without_memory_groups_what_is_available_limits(tmp_path: Path) -> None:
    """Raspberry Pi OS boots so: no limit is found, and none is made up."""
    files = {**tree("pi4"), "proc/self/cgroup": "0::/system.slice/tinyward.service\n"}
    root = lay(tmp_path, files | {f"{GROUPS}/tinyward.service/pids.max": "64\n"})
    assert read_limits(root).memory_bytes == memory_left(root) == UNLIMITED
    board = board_now("", (), tmp_path, root)
    assert board.ram_bytes == 1510416 * 1024
    assert board.hardware[0] == "raspberrypi,4-model-b"


def test_a_group_limits_below_what_is_available(tmp_path: Path) -> None:
    """The smaller one holds; without /proc/meminfo the group alone."""
    files = {
        **tree("pi5"),
        "proc/self/cgroup": "0::/system.slice\n",
        f"{GROUPS}/memory.max": "400000000\n",
        f"{GROUPS}/memory.current": "100000000\n",
    }
    root = lay(tmp_path, files)
    assert board_now("", (), tmp_path, root).ram_bytes == 300_000_000
    (root / "proc/meminfo").unlink()
    assert board_now("", (), tmp_path, root).ram_bytes == 300_000_000
