"""Readings of the board: right numbers from recorded trees, and who reads them when."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest

from agent.board.kernel import read_pressure, read_traffic
from agent.board.network import Traffic
from agent.board.probes import QUICK_S, SLOW_S, STRIKES, Probes, Scale
from agent.board.raspberry_pi import THROTTLE_KINDS
from agent.board.readings import (
    SLOW_PERIOD_S,
    STUCK_S,
    BoardWatch,
    SlowRound,
    read_board,
)
from agent.board.sensors import find_sensors
from agent.board.storage import read_space
from agent.board.sysfs import MOST_CHARS
from agent.board.temperatures import MOST_SENSORS, find_temperatures
from agent.core.readings import BoardIdentity, BoardReadings
from tests.fakes.board_trees import Files, lay, throttled_pi4, tree

THERMAL = "sys/class/thermal/thermal_zone"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
ALARM = "sys/class/hwmon/hwmon1/in0_lcrit_alarm"
PLAIN = Scale(1.0, 0.0, 1000.0)
Kinds = list[str]


def read(root: Path, files: Files) -> BoardReadings:
    """Read a board whose files these are."""
    return read_board(root, lay(root, files))


def held(readings: BoardReadings) -> Kinds:
    """Return what slows the board down now."""
    return [kind for kind, holds in readings.throttled if holds]


def test_a_raspberry_pi_4_is_read(tmp_path: Path) -> None:
    """Without PSI, without wear, with everything else."""
    found = read(tmp_path, tree("pi4"))
    assert found.temperatures == (("cpu-thermal", 48.686),)
    assert {kind for kind, _ in found.throttled} == set(THROTTLE_KINDS)
    assert held(found) == []
    assert (found.cpu_frequency_hertz, found.cpu_frequency_max_hertz) == (1.5e9, 1.8e9)
    assert found.governor == "ondemand"
    assert found.memory_available_bytes == 1510416 * 1024
    assert found.memory_percent == pytest.approx(20.26, abs=0.01)
    assert isnan(found.memory_stalled_percent)
    assert not found.pressure_seconds
    assert found.disk_written_bytes == (("mmcblk0", 152344 * 512.0),)
    assert not found.disk_wear
    assert found.cooling == (("cpufreq-cpu0", 0.0),)
    assert found.load_1min == 0.35
    assert found.clock_synchronised is True


def test_a_raspberry_pi_5_is_read(tmp_path: Path) -> None:
    """Its firmware lies elsewhere, its fan is a cooling device, PSI is on."""
    found = read(tmp_path, tree("pi5"))
    assert found.temperatures == (("cpu-thermal", 52.35),)
    assert {kind for kind, _ in found.throttled} == set(THROTTLE_KINDS)
    assert found.cooling == (("pwm-fan", 0.25),)
    assert found.memory_stalled_percent == 0.45
    assert ("memory", "stalled", 0.234567) in found.pressure_seconds
    assert ("cpu", "waiting", 81.234567) in found.pressure_seconds
    assert found.disk_written_bytes == (("nvme0n1", 7352344 * 512),)


def test_a_jetson_is_read(tmp_path: Path) -> None:
    """Zones without the rail that is off, its GPU's clock, its power mode, its eMMC."""
    found = read(tmp_path, tree("orin"))
    assert [name for name, _ in found.temperatures] == [
        "cpu-thermal",
        "gpu-thermal",
        "soc0-thermal",
        "tj-thermal",
        "soc1-thermal",
    ]
    assert dict(found.device_hertz) == {"gpu": 306e6, "vic": 115.2e6}
    assert found.cpu_frequency_hertz == (729.6e6 + 1510.4e6) / 2
    assert found.power_mode == "25W"
    assert found.disk_wear == (("mmcblk0", 0.3),)
    assert [device for device, _ in found.disk_written_bytes] == ["mmcblk0"]
    assert dict(found.throttled) == {"frequency_capped": False, "over_current": False}


def test_a_pc_is_read(tmp_path: Path) -> None:
    """ACPI's zone is not enough: the chip's sensors are read, by their labels."""
    found = read(tmp_path, tree("x86"))
    assert dict(found.temperatures) == {
        "acpitz": 27.8,
        "coretemp Package id 0": 43.0,
        "coretemp Core 0": 42.0,
        "coretemp Core 8": 41.0,
    }
    assert found.cooling == (("Processor", 0.0),)
    assert dict(found.throttled) == {"frequency_capped": False, "throttled": False}


def test_a_thin_cable_and_the_sun_are_told_at_once(tmp_path: Path) -> None:
    """The firmware is asked in the quick round."""
    root = lay(tmp_path, tree("pi4"))
    sensors = find_sensors(root, root)
    sensors.look_again()
    slow = sensors.read_slow()
    assert held(sensors.read_fast(slow)) == []
    lay(root, throttled_pi4())
    assert held(sensors.read_fast(slow)) == ["under_voltage", "throttled"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("0\n", []),
        ("1\n", ["under_voltage"]),
        ("0x50005\n", ["under_voltage", "throttled"]),
        ("8", ["soft_temperature_limit"]),
        ("e0000", []),
        ("n/a", []),
    ],
)
def test_a_raspberry_pi_says_what_slows_it_down(
    told: str, expected: Kinds, tmp_path: Path
) -> None:
    """The low bits hold now; what was since boot is no state of the board."""
    assert sorted(held(read(tmp_path, {**tree("pi4"), FIRMWARE: told}))) == sorted(
        expected
    )


@pytest.mark.parametrize("missing", [FIRMWARE, ALARM])
def test_one_of_two_places_is_enough_for_the_voltage(
    missing: str, tmp_path: Path
) -> None:
    """Debian's own kernel has the alarm only, an old one only the bits."""
    files = {path: it for path, it in throttled_pi4().items() if path != missing}
    assert "under_voltage" in held(read(tmp_path, files))


def test_a_dip_that_is_over_is_told(tmp_path: Path) -> None:
    """The alarm keeps for 2 s what the bit shows for a moment."""
    files = {**tree("pi4"), ALARM: "1\n"}
    assert held(read(tmp_path, files)) == ["under_voltage"]


def test_a_processor_that_is_slowed_to_cool_it_is_capped(tmp_path: Path) -> None:
    """Upstream kernels tell it by the cooling device alone; a fan is no such thing."""
    hot = "sys/class/thermal/cooling_device1/cur_state"
    fan = "sys/class/thermal/cooling_device0/cur_state"
    assert held(read(tmp_path, {**tree("orin"), fan: "3\n"})) == []
    found = read(tmp_path, {**tree("orin"), hot: "19\n"})
    assert held(found) == ["frequency_capped"]
    assert dict(found.cooling)["cpufreq-cpu0"] == 1.0


def test_a_cap_that_the_firmware_does_not_tell_holds_all_the_same(
    tmp_path: Path,
) -> None:
    """The kernel's own cooling is none of the firmware's business."""
    slowed = {"sys/class/thermal/cooling_device0/cur_state": "3\n"}
    assert held(read(tmp_path, {**tree("pi4"), **slowed})) == ["frequency_capped"]


def test_the_most_of_one_kind_of_cooling_counts(tmp_path: Path) -> None:
    """One core of many that is slowed down is not hidden by the last one."""
    slowed = {"sys/class/thermal/cooling_device0/cur_state": "3\n"}
    found = read(tmp_path, {**tree("x86"), **slowed})
    assert found.cooling == (("Processor", 1.0),)


def test_labels_stay_short_and_say_nothing_twice(tmp_path: Path) -> None:
    """Governors of many clusters, and a maker that names its product after itself."""
    cpufreq = "sys/devices/system/cpu/cpufreq/policy"
    names = {f"{cpufreq}{k}/scaling_governor": f"{k}" * 50 for k in range(3)}
    dmi = "sys/class/dmi/id"
    same = {f"{dmi}/sys_vendor": "QEMU\n", f"{dmi}/product_name": "QEMU\n"}
    found = read(tmp_path, names | same)
    assert (len(found.governor), found.identity.model) == (MOST_CHARS, "QEMU")


@pytest.mark.parametrize(
    ("board", "counter", "kind"),
    [
        ("orin", "sys/class/hwmon/hwmon1/oc2_event_cnt", "over_current"),
        (
            "x86",
            "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count",
            "throttled",
        ),
    ],
)
def test_a_count_that_rises_holds_now(
    board: str, counter: str, kind: str, tmp_path: Path
) -> None:
    """What was counted before is remembered, and is not now."""
    root = lay(tmp_path, tree(board))
    sensors = find_sensors(root, root)
    sensors.look_again()
    assert held(sensors.read_slow()) == []
    lay(root, {counter: "9\n"})
    assert held(sensors.read_slow()) == [kind]
    assert held(sensors.read_slow()) == []
    assert dict(sensors.throttled_before()) == {kind: 9}


def test_a_pi_remembers_what_slowed_it_down(tmp_path: Path) -> None:
    """Bits 16 to 19."""
    root = lay(tmp_path, {**tree("pi4"), FIRMWARE: "50000\n"})
    sensors = find_sensors(root, root)
    sensors.look_again()
    before = (("under_voltage", 1), ("throttled", 1))
    assert sensors.throttled_before() == before


def test_temperatures_of_one_name_are_numbered(tmp_path: Path) -> None:
    """Two series of one name would void a scrape; there are never too many."""
    files: dict[str, str | bytes] = {}
    for zone in range(20):
        files |= {f"{THERMAL}{zone}/type": "cpu", f"{THERMAL}{zone}/temp": f"{zone}000"}
    found = find_temperatures(lay(tmp_path, files))
    assert list(found)[:3] == ["cpu", "cpu-1", "cpu-2"]
    assert (found["cpu-10"].split("/")[-2], len(found)) == (
        "thermal_zone10",
        MOST_SENSORS,
    )


@pytest.mark.parametrize("temp", ["", "n/a", "-274000", "2147483647", "nan", "4_2000"])
def test_broken_sensors_are_left_out(temp: str, tmp_path: Path) -> None:
    """A Jetson's unpowered zone says -256; nonsense is no temperature."""
    files = {f"{THERMAL}0/type": "gpu", f"{THERMAL}0/temp": temp}
    assert read(tmp_path, files).temperatures == ()


def test_a_pipe_in_place_of_a_sensor_holds_nobody_up(tmp_path: Path) -> None:
    """Opened like a file, it would wait for a writer for ever."""
    lay(tmp_path, {f"{THERMAL}0/type": "gpu"})
    os.mkfifo(tmp_path / f"{THERMAL}0/temp")
    assert read_board(tmp_path, tmp_path).temperatures == ()


@pytest.mark.parametrize(
    ("life", "spares", "expected"),
    [
        ("0x01 0x01\n", "0x01\n", 0.1),
        ("0x0b 0x01\n", "0x01\n", 1.0),
        ("0x01 0x02\n", "0x03\n", 0.9),
        ("0x00 0x04\n", "0x00\n", 0.4),
        ("0x00 0x00\n", "0x00\n", None),
        ("worn\n", "", None),
    ],
)
def test_wear_is_the_worst_of_cells_and_spares(
    life: str, spares: str, expected: float | None, tmp_path: Path
) -> None:
    """0x00 is not defined, 0x0b beyond its life; few spares count as much."""
    disk = "sys/block/mmcblk0/device"
    files = {f"{disk}/life_time": life, f"{disk}/pre_eol_info": spares}
    found = dict(read(tmp_path, {**tree("orin"), **files}).disk_wear)
    assert found.get("mmcblk0") == expected


def test_a_power_mode_without_a_name_is_a_number(tmp_path: Path) -> None:
    """Settings that do not name it leave what nvpmodel keeps."""
    files = {**tree("orin"), "etc/nvpmodel.conf": "< POWER_MODEL ID=12 NAME=X >\n"}
    assert read(tmp_path, files).power_mode == "1"


def test_pressure_above_all_time_is_none(tmp_path: Path) -> None:
    """Nobody waits in more than 100 % of the time; what was counted may still be so."""
    said = "some avg10=100.01 avg60=0.00 avg300=0.00 total=2000000\n"
    root = lay(tmp_path, {"proc/pressure/memory": said})
    found = read_pressure(str(root), "memory")
    assert (isnan(found.percent), dict(found.seconds)) == (True, {"waiting": 2.0})


def test_pressure_is_absent_where_it_is_off(tmp_path: Path) -> None:
    """No file is no number."""
    found = read_pressure(str(tmp_path), "memory")
    assert (isnan(found.percent), dict(found.seconds)) == (True, {})


def test_loopback_is_no_traffic(tmp_path: Path) -> None:
    """All other interfaces are added up."""
    assert read_traffic(str(lay(tmp_path, tree("pi4")))) == (1_500_000, 250_000)


def test_rates_are_per_second_of_the_clock(tmp_path: Path) -> None:
    """No time gives no rate; an interface that goes away no negative one."""
    root = lay(tmp_path, tree("pi4"))
    ticks = iter([100.0, 100.0, 102.0, 104.0])
    traffic = Traffic(str(root), lambda: next(ticks))
    assert isnan(traffic.rates()[0])
    lay(
        root,
        {"proc/net/dev": "a\nb\n eth0: 1500400 1 0 0 0 0 0 0 250000 1 0 0 0 0 0 0"},
    )
    assert traffic.rates() == (200.0, 0.0)
    (root / "proc/net/dev").unlink()
    assert traffic.rates() == (0.0, 0.0)


def test_the_processor_is_busy_between_two_readings(tmp_path: Path) -> None:
    """Idle time and time that waits for a disk are not busy; guests count once."""
    root = lay(tmp_path, tree("pi4"))
    sensors = find_sensors(root, root)
    assert isnan(sensors.read_fast(BoardReadings()).cpu_percent)
    lay(root, {"proc/stat": "cpu  4755 150 1120 16300 570 30 45 0 99 0\n"})
    assert sensors.read_fast(BoardReadings()).cpu_percent == pytest.approx(100 / 3)


def test_a_disk_that_is_gone_has_no_room(tmp_path: Path) -> None:
    """An unplugged stick costs a reading, not the daemon."""
    assert all(isnan(value) for value in read_space(tmp_path / "gone"))


def test_this_board_can_be_read() -> None:
    """On the machine that runs the tests all readings are numbers in their range."""
    readings = read_board()
    assert 0 < readings.memory_percent <= 100
    assert 0 <= readings.disk_percent <= 100
    assert 0 < readings.disk_free_bytes <= readings.disk_size_bytes
    assert readings.load_1min >= 0
    assert readings.identity.kernel == os.uname().release


class Timed:
    """A clock whose every second call is later by what the next read takes."""

    def __init__(self, *took_s: float) -> None:
        self._took = list(took_s)
        self._now = 0.0
        self._begins = True

    def __call__(self) -> float:
        """Return the time; the last duration holds for ever."""
        if not self._begins:
            self._now += self._took.pop(0) if len(self._took) > 1 else self._took[0]
        self._begins = not self._begins
        return self._now


def probes(root: Path, *took_s: float) -> Probes:
    """Return a probe of one file, which takes so long to read."""
    found = Probes(PLAIN, Timed(*took_s))
    found.look_for({"x": str(lay(root, {"x": "7\n"}) / "x")})
    return found


def test_a_file_proves_itself_on_the_thread_first(tmp_path: Path) -> None:
    """The loop reads nothing that it does not know."""
    found = probes(tmp_path, QUICK_S / 2)
    assert found.read_fast() == ()
    found.read_slow()
    lay(tmp_path, {"x": "8\n"})
    assert found.read_fast() == (("x", 8.0),)


def test_a_slow_file_stays_on_the_thread(tmp_path: Path) -> None:
    """The loop shows what the thread has read, and does not read it."""
    found = probes(tmp_path, SLOW_S * 10)
    found.read_slow()
    lay(tmp_path, {"x": "8\n"})
    assert found.read_fast() == (("x", 7.0),)
    found.read_slow()
    assert found.read_fast() == (("x", 8.0),)


def test_a_file_that_is_known_stays_quick(tmp_path: Path) -> None:
    """To look for sensors again forgets neither speeds nor readings."""
    found = probes(tmp_path, QUICK_S / 2)
    found.read_slow()
    found.look_for({"renamed": str(tmp_path / "x"), "new": str(tmp_path / "y")})
    lay(tmp_path, {"x": "8\n", "y": "9\n"})
    assert found.read_fast() == (("renamed", 8.0),)


def test_a_file_that_becomes_slow_leaves_the_loop_for_good(tmp_path: Path) -> None:
    """Three times, since once is the scheduler's; quick again is a driver's cache."""
    took_s = (QUICK_S / 2, *[SLOW_S * 10] * STRIKES, QUICK_S / 2)
    found = probes(tmp_path, *took_s)
    found.read_slow()
    for number in range(STRIKES):
        lay(tmp_path, {"x": f"{number}\n"})
        assert found.read_fast() == (("x", float(number)),)
    found.read_slow()
    lay(tmp_path, {"x": "99\n"})
    assert found.read_fast() == (("x", float(STRIKES - 1)),)


class Scripted:
    """Sensors that count how often they are asked, and may hang."""

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self._wait = wait
        self.looked = self.slow = 0

    def identity(self) -> BoardIdentity:
        """Return nothing in particular."""
        return BoardIdentity()

    def look_again(self) -> None:
        """Count it."""
        self.looked += 1

    def read_slow(self) -> BoardReadings:
        """Count it, and take as long as the script says."""
        self.slow += 1
        self._wait()
        return BoardReadings(governor=f"round {self.slow}")

    def read_fast(self, slow: BoardReadings) -> BoardReadings:
        """Return what is slow, and a load."""
        return replace(slow, load_1min=1.0)

    def throttled_before(self) -> tuple[tuple[str, int], ...]:
        """Return nothing."""
        return ()


def end(name: str = "board") -> None:
    """Wait for the thread of a round."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(10)


def test_slow_rounds_come_when_they_are_due() -> None:
    """Each 15 s, on a thread; now and then it looks for new sensors."""
    sensors, now = Scripted(), [0.0]
    slow = SlowRound(sensors, lambda: now[0])
    for number in range(1, 6):
        slow.readings()
        end()
        now[0] += SLOW_PERIOD_S - 1
        assert slow.readings().governor == f"round {number}"
        now[0] += 1
    assert (sensors.slow, sensors.looked) == (5, 2)


def test_a_sensor_that_hangs_is_told_once_and_its_readings_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No second thread is started beside it; when it comes back all is well."""
    gate = threading.Event()
    gate.set()
    sensors, now = Scripted(lambda: gate.wait(10)), [0.0]
    slow = SlowRound(sensors, lambda: now[0])
    slow.readings()
    end()
    gate.clear()
    now[0] = SLOW_PERIOD_S
    assert slow.readings().governor == "round 1"
    for _ in range(3):
        now[0] += STUCK_S + 1
        assert slow.readings().governor == ""
    assert [record.message for record in caplog.records] == ["board.sensors_stuck"]
    assert sensors.slow == 2
    gate.set()
    end()
    assert slow.readings().governor in {"round 2", "round 3"}  # it begins another
    end()


def test_the_watch_keeps_the_newest_reading() -> None:
    """Taking a reading reads nothing; the watch reads in its own time."""
    watch = BoardWatch(Scripted(), period_s=0.001)

    async def story() -> None:
        first = watch.readings
        assert watch.readings is first
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watch.run())
            while watch.readings.governor != "round 1":  # noqa: ASYNC110 -- plain state
                await asyncio.sleep(0.001)
            task.cancel()

    with suppress(asyncio.CancelledError):
        asyncio.run(story())
    assert watch.readings.load_1min == 1.0


@pytest.mark.parametrize("said", ["-1", "1001", "nan", "1000.5", ""])
def test_a_scale_keeps_its_bounds(said: str, tmp_path: Path) -> None:
    """What is outside, or no whole number, is no reading."""
    assert isnan(PLAIN.read(str(lay(tmp_path, {"x": said}) / "x")))
