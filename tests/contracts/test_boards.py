"""What every board's sensors keep to, on the recorded tree of every board."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import fields
from math import isnan
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.board.identity import find_identity
from agent.board.jetson import Jetson
from agent.board.machine import Machine
from agent.board.raspberry_pi import RaspberryPi
from agent.board.sensors import BoardSensors, find_sensors
from agent.core.readings import BoardIdentity, BoardReadings
from tests.fakes.board_trees import NAMES, TREES, lay, tree

KINDS = ("raspberry_pi", "jetson", "generic")
# What a reading may be, where it is a number at all.
BOUNDS = {
    "cpu_percent": (0, 100),
    "memory_percent": (0, 100),
    "disk_percent": (0, 100),
    "memory_stalled_percent": (0, 100),
    "load_1min": (0, 1e7),
    "cpu_frequency_hertz": (1, 2e10),
    "cpu_frequency_max_hertz": (1, 2e10),
    "memory_available_bytes": (0, 2**50),
    "memory_size_bytes": (0, 2**50),
    "disk_free_bytes": (0, 2**63),
    "disk_size_bytes": (0, 2**63),
    "received_bytes_per_s": (0, 1e30),
    "sent_bytes_per_s": (0, 1e30),
    "temperatures": (-60, 200),
    "pressure_seconds": (0, 3.2e9),
    "disk_wear": (0, 1),
    "disk_written_bytes": (0, 2**63),
    "cooling": (0, 1),
    "device_hertz": (1, 2e10),
}
MOST_ROWS = 16


def sensors_of(kind: str, root: Path) -> BoardSensors:
    """Return one kind of sensors on a tree, whichever board it is of."""
    machine = Machine(find_identity(root), root, root)
    if kind == "raspberry_pi":
        return RaspberryPi(machine, root)
    return Jetson(machine, root) if kind == "jetson" else machine


def read(sensors: BoardSensors) -> BoardReadings:
    """Read all there is, as the daemon does."""
    sensors.look_again()
    return sensors.read_fast(sensors.read_slow())


def check(readings: BoardReadings) -> None:
    """Check that all is plausible: numbers, labels, and how many there are."""
    for name, value in rows_of(readings):
        least, most = BOUNDS[name]
        assert isnan(value) or least <= value <= most, (name, value)
    for each in fields(BoardReadings):
        rows = getattr(readings, each.name)
        if isinstance(rows, tuple):
            labels = [tuple(x for x in row if isinstance(x, str)) for row in rows]
            assert len(labels) == len(set(labels)), "no series is there twice"
            assert len(labels) <= MOST_ROWS
            assert all(is_label(word) for row in labels for word in row)
    identity = readings.identity
    words = (identity.model, identity.kernel, identity.system, readings.governor)
    assert all(not word or is_label(word) for word in (*words, readings.power_mode))
    assert len(readings.vector()) == 8


def rows_of(readings: BoardReadings) -> Iterator[tuple[str, float]]:
    """Yield the name of each field with each number in it."""
    for each in fields(BoardReadings):
        value = getattr(readings, each.name)
        if isinstance(value, tuple):
            numbers = [row[-1] for row in value]
            yield from ((each.name, it) for it in numbers if isinstance(it, float))
        elif isinstance(value, float):
            yield each.name, value


def is_label(word: str) -> bool:
    """Return whether a word may be shown as it is."""
    return bool(word) and word.isprintable() and len(word) <= 150


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_reading_is_plausible_on_every_board(
    kind: str, name: str, tmp_path: Path
) -> None:
    """Also on boards that are not theirs, without sensors, and with nonsense."""
    sensors = sensors_of(kind, lay(tmp_path, TREES[name]))
    check(sensors.read_fast(BoardReadings()))
    check(read(sensors))
    check(read(sensors))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_sensors_may_vanish_and_come_back(kind: str, name: str, tmp_path: Path) -> None:
    """Unplugged, a sensor is left out at once; plugged in, it is there again."""
    sensors = sensors_of(kind, lay(tmp_path, tree(name)))
    first = read(sensors)
    shutil.rmtree(tmp_path / "sys")
    gone = sensors.read_fast(sensors.read_slow())
    assert (gone.temperatures, gone.cooling, gone.disk_written_bytes) == ((), (), ())
    assert isnan(gone.cpu_frequency_hertz)
    check(read(sensors))
    lay(tmp_path, tree(name))
    again = read(sensors)
    assert again.temperatures == first.temperatures
    assert again.disk_written_bytes == first.disk_written_bytes


@pytest.mark.parametrize("kind", KINDS)
def test_slow_readings_stay_as_they_are(kind: str, tmp_path: Path) -> None:
    """The quick round repeats what the slow one said, and asks none of it again."""
    sensors = sensors_of(kind, lay(tmp_path, tree("orin")))
    sensors.look_again()
    slow = sensors.read_slow()
    lay(tmp_path, {"sys/block/mmcblk0/device/life_time": "0x0a 0x0a\n"})
    lay(tmp_path, {"sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "new"})
    fast = sensors.read_fast(slow)
    assert (fast.disk_wear, fast.governor) == (slow.disk_wear, slow.governor)
    assert fast.disk_wear == (("mmcblk0", 0.3),)


@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("pi4", "raspberry_pi", "Raspberry Pi 4 Model B Rev 1.4"),
        ("pi5", "raspberry_pi", "Raspberry Pi 5 Model B Rev 1.0"),
        ("orin", "jetson", "NVIDIA Jetson Orin Nano Developer Kit"),
        ("x86", "generic", "Example Industrial Box N100"),
    ],
)
def test_each_board_is_known_for_what_it_is(
    name: str, kind: str, model: str, tmp_path: Path
) -> None:
    """By the device tree, else by the firmware's tables."""
    sensors = find_sensors(tmp_path, lay(tmp_path, tree(name)))
    identity = sensors.identity()
    assert (identity.kind, identity.model) == (kind, model)
    assert (
        type(sensors)
        is {
            "raspberry_pi": RaspberryPi,
            "jetson": Jetson,
            "generic": Machine,
        }[kind]
    )
    assert read(sensors).identity == identity


def test_a_board_that_says_nothing_is_generic(tmp_path: Path) -> None:
    """The running kernel's release is known in any case."""
    identity = find_identity(tmp_path)
    assert identity == BoardIdentity("generic", "", os.uname().release, "")


# One tree for all examples: each overwrites what the one before has written.
@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_bytes_in_any_file_never_raise(
    name: str, tmp_path: Path, data: st.DataObject
) -> None:
    """Only finite or NaN values in plausible bounds come out."""
    files = tree(name)
    spoiled = data.draw(
        st.dictionaries(st.sampled_from(sorted(files)), BYTES, min_size=1, max_size=12)
    )
    root = lay(tmp_path, {**files, **spoiled})
    sensors = find_sensors(root, root)
    sensors.look_again()
    for _ in range(2):
        check(sensors.read_fast(sensors.read_slow()))


BYTES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [b"", b"nan", b"inf", b"-1", b"1e400", b"9" * 40, b"0x" + b"f" * 30, b"\0"]
    ),
    st.integers(-(2**70), 2**70).map(lambda it: b"%d\n" % it),
    st.from_regex(rb"(some|full) avg10=[0-9]{1,4}\.[0-9]{2} total=[0-9]{1,30}\n"),
    st.from_regex(rb"Mem(Total|Available): +[0-9]{1,30} kB\n"),
    st.from_regex(rb"cpu( [0-9]{1,25}){7,10}\n"),
)
