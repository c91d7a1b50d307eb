"""``tinyward doctor`` about the board: what recorded boards are told, and to do."""

from pathlib import Path

import pytest

from agent.board.boot_words import missing_words, say_how
from agent.cli.findings import Finding
from agent.cli.findings_board import judge_heat, judge_pace
from agent.cli.symptoms_board import look_at_board
from agent.core.readings import BoardIdentity, BoardReadings
from tests.fakes.board_trees import Files, lay, throttled_pi4, tree, without

WORDS = "cgroup_enable=memory cgroup_memory=1 psi=1"
CMDLINE = "boot/firmware/cmdline.txt"


def look(root: Path, files: Files) -> dict[str, list[Finding]]:
    """Return what is found on a board, by topic."""
    found: dict[str, list[Finding]] = {}
    for finding in look_at_board(root, lay(root, files)):
        found.setdefault(finding.topic, []).append(finding)
    return found


@pytest.mark.parametrize(
    ("board", "yellow"),
    [
        ("pi4", {"limits", "pressure"}),
        ("pi5", set()),
        ("orin", {"throttling"}),  # it was over its current four times
        ("x86", {"throttling"}),
    ],
)
def test_recorded_boards(board: str, yellow: set[str], tmp_path: Path) -> None:
    """A board as it comes: what is not green says what to do; nothing is red."""
    found = [it for each in look(tmp_path, tree(board)).values() for it in each]
    assert {it.topic for it in found if it.mark == "yellow"} == yellow
    assert not [it for it in found if it.mark == "red"]
    assert all(bool(it.todo) is (it.mark != "green") for it in found)


def test_raspberry_pi_os_is_told_its_words(tmp_path: Path) -> None:
    """One line for both, with the file that Raspberry Pi OS has."""
    found = look(tmp_path, tree("pi4"))
    expected = f"Append to the one line of /{CMDLINE}: {WORDS}; then: sudo reboot"
    assert found["limits"][0].todo == found["pressure"][0].todo == expected
    assert "RLIMIT_DATA" in found["limits"][0].what
    assert "1547 MB" in found["pressure"][0].what


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("boot/cmdline.txt", "the one line of /boot/cmdline.txt"),
        ("boot/extlinux/extlinux.conf", "the APPEND line of"),
        ("boot/armbianEnv.txt", "the extraargs= line of"),
        ("etc/default/grub", "sudo update-grub"),
    ],
)
def test_each_boot_loader_has_its_place(file: str, said: str, tmp_path: Path) -> None:
    """Bullseye, a Jetson, Armbian and a PC."""
    files = {p: c for p, c in tree("pi4").items() if p != CMDLINE}
    todo = look(tmp_path, {**files, file: "x\n"})["limits"][0].todo
    assert said in todo
    assert WORDS in todo


def test_an_unknown_boot_loader_gets_the_words(tmp_path: Path) -> None:
    """Whoever built it knows where they go."""
    assert say_how(("psi=1",), tmp_path) == (
        "Add to the kernel's command line, and reboot: psi=1"
    )


def test_words_that_are_there_are_not_asked_for_again(tmp_path: Path) -> None:
    """Only the missing one; a kernel that did not heed them is to be updated."""
    begun = {**tree("pi4"), "proc/cmdline": "cgroup_enable=memory cgroup_memory=1\n"}
    root = lay(tmp_path, begun)
    assert missing_words(root) == tuple(WORDS.split())
    assert ": psi=1; then" in say_how(missing_words(root), root)
    lay(root, {"proc/cmdline": f"{WORDS} cgroup_disable=memory\n"})
    assert "did not heed it" in say_how(missing_words(root), root)


def test_one_of_the_two_may_be_on(tmp_path: Path) -> None:
    """PSI alone is missing: nothing is said of control groups."""
    files = without("pi5", "proc/pressure", "proc/cmdline")
    found = look(tmp_path, files)
    assert found["limits"][0].mark == "green"
    assert ": psi=1; then" in found["pressure"][0].todo


def test_control_groups_of_version_1_have_another_word(tmp_path: Path) -> None:
    """Words for the memory controller would not help there."""
    root = lay(tmp_path, without("x86", "sys/fs/cgroup"))
    assert missing_words(root) == ("systemd.unified_cgroup_hierarchy=1",)


def test_a_thin_cable_and_heat_are_told_apart(tmp_path: Path) -> None:
    """A better supply for the one, a cooler for the other."""
    found = look(tmp_path, throttled_pi4())
    voltage, heat = found["throttling"]
    assert (voltage.what, heat.what) == ("under voltage now", "throttled now")
    assert "supply" in voltage.todo
    assert "fan" in heat.todo
    assert found["sensors"][0].mark == "yellow"


def test_what_was_before_is_told_as_such(tmp_path: Path) -> None:
    """Counts since boot, or that it happened."""
    files = {"sys/devices/platform/soc/soc:firmware/get_throttled": "10000\n"}
    (once,) = look(tmp_path / "pi", {**tree("pi4"), **files})["throttling"]
    assert once.what == "under voltage since boot"
    (often,) = look(tmp_path / "orin", tree("orin"))["throttling"]
    assert often.what == "over current 4 times since boot"


def test_a_worn_disk_is_told_in_time(tmp_path: Path) -> None:
    """From 80 % on there is something to do."""
    files = {"sys/block/mmcblk0/device/life_time": "0x09 0x02\n"}
    (worn,) = look(tmp_path, {**tree("orin"), **files})["wear"]
    assert (worn.mark, worn.what) == (
        "yellow",
        "mmcblk0: up to 90% of its life is used",
    )


@pytest.mark.parametrize(
    ("governor", "driver", "marks"),
    [
        ("powersave", "cpufreq-dt", ["yellow"]),
        ("powersave", "intel_pstate", ["green"]),
        ("ondemand", "cpufreq-dt", ["green"]),
        ("", "", []),
    ],
)
def test_powersave_means_another_thing_with_each_driver(
    governor: str, driver: str, marks: list[str]
) -> None:
    """With most it is the lowest clock for ever; where nothing scales, nothing is."""
    readings = BoardReadings(governor=governor, cpu_frequency_max_hertz=1.8e9)
    assert [it.mark for it in judge_pace(readings, {driver})] == marks


def test_a_board_without_sensors_is_asked_about(tmp_path: Path) -> None:
    """A virtual machine has none, a Raspberry Pi always has."""
    virtual = BoardReadings(identity=BoardIdentity("generic"))
    pi = BoardReadings(identity=BoardIdentity("raspberry_pi"))
    assert judge_heat(virtual, []).mark == "green"
    assert judge_heat(pi, []).mark == "yellow"
    assert "closed to this user" in judge_heat(virtual, [tmp_path]).what


def test_the_board_is_named_first(tmp_path: Path) -> None:
    """Model, system, kernel; a Jetson's power mode."""
    (found,) = look(tmp_path, tree("orin"))["board"]
    assert found.what == (
        "NVIDIA Jetson Orin Nano Developer Kit, Ubuntu 22.04.5 LTS, "
        "Linux 5.15.148-tegra, power mode 25W"
    )


def test_words_for_a_pi_are_not_for_other_boards(tmp_path: Path) -> None:
    """Neither for a PC nor for a container; what they may do is said instead."""
    files = {
        **without("x86", "sys/fs/cgroup", "proc/pressure"),
        "sys/fs/cgroup/cgroup.controllers": "cpu io\n",
    }
    found = look(tmp_path, files)
    assert "cgroup_enable" not in found["limits"][0].todo
    assert "container" in found["limits"][0].todo
    assert "cgroup_enable" not in found["pressure"][0].todo
    assert "psi=1" in found["pressure"][0].todo
