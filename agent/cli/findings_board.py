"""Findings about the board: what it is, its heat, its supply, its clock and its disk.

The rules this module keeps:
 * A hot or throttled board is yellow: Tinyward runs, and slower.
"""

from collections.abc import Sequence
from pathlib import Path

from agent.cli.findings import MB, Finding
from agent.core.readings import BoardIdentity, BoardReadings

WARM_C = 80.0  # a Raspberry Pi slows down from here on, a Jetson from 95 on
WORN = 0.8  # of an eMMC's life: time to plan for another one
# Drivers whose "powersave" follows the load; with all others it is the lowest clock.
OWN_PACE = {"intel_pstate", "amd-pstate-epp", "amd_pstate_epp"}
SUPPLY = (
    "Use the board's own supply (a Pi 4 wants 3 A, a Pi 5 wants 5 A) and a short, "
    "thick cable; unplug what draws from it."
)
COOLER = "Give it a heat sink or a fan, or air; lower threads or the source's rate."
ADVICE = {
    "under_voltage": SUPPLY,
    "over_current": "Choose a lower power mode (sudo nvpmodel -q), or another supply.",
}


def judge_board(board: BoardIdentity, power_mode: str) -> Finding:
    """Say which board it is."""
    words = (board.model or "unknown board", board.system, f"Linux {board.kernel}")
    what = ", ".join(word for word in words if word)
    if power_mode:
        what += f", power mode {power_mode}"
    return Finding("board", "green", what)


def judge_heat(readings: BoardReadings, closed: Sequence[Path]) -> Finding:
    """Judge the temperatures.

    Args:
        readings: The board's.
        closed: Files of sensors that this user may not read.
    """
    sensors = ", ".join(f"{name} {it:.0f} C" for name, it in readings.temperatures)
    if closed:
        what = f"{closed[0]} is closed to this user"
        todo = "Run as root, or give the service's user read permission."
        return Finding("sensors", "yellow", what, todo)
    if not sensors:
        what = "no temperature: heat is not watched"
        kind = readings.identity.kind
        if kind == "generic":  # virtual machines have none, and need none
            return Finding("sensors", "green", what)
        todo = "See that /sys is mounted and open (ls /sys/class/thermal)."
        return Finding("sensors", "yellow", what, todo)
    if readings.temperature_celsius >= WARM_C:
        return Finding("sensors", "yellow", sensors, COOLER)
    return Finding("sensors", "green", sensors)


def judge_throttling(
    readings: BoardReadings, before: Sequence[tuple[str, int]]
) -> list[Finding]:
    """Judge what slows the board down now, and what has.

    Args:
        readings: The board's.
        before: (kind, how often) of what is remembered since boot.
    """
    now = [kind for kind, holds in readings.throttled if holds]
    found = [_slowed(kind, "now") for kind in now]
    found += [
        _slowed(kind, "since boot" if count == 1 else f"{count} times since boot")
        for kind, count in before
        if kind not in now
    ]
    if found or not readings.throttled:
        return found
    kinds = ", ".join(kind for kind, _ in readings.throttled)
    return [Finding("throttling", "green", f"none ({kinds.replace('_', ' ')})")]


def _slowed(kind: str, when: str) -> Finding:
    """Say what slows the board down."""
    what = f"{kind.replace('_', ' ')} {when}"
    return Finding("throttling", "yellow", what, ADVICE.get(kind, COOLER))


def judge_pace(readings: BoardReadings, drivers: set[str]) -> list[Finding]:
    """Judge the processor's clock; nothing where nothing scales it.

    Args:
        readings: The board's.
        drivers: What scales the clock.
    """
    if not readings.governor:
        return []
    fastest = f"{readings.cpu_frequency_max_hertz / 1e6:.0f} MHz"
    what = f"governor {readings.governor}, up to {fastest}"
    if readings.governor == "powersave" and not drivers & OWN_PACE:
        todo = (
            "It stays at the lowest clock: echo schedutil | sudo tee "
            "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
        )
        return [Finding("frequency", "yellow", what, todo)]
    return [Finding("frequency", "green", what)]


def judge_wear(readings: BoardReadings) -> list[Finding]:
    """Judge the disks that tell how worn they are."""
    found = []
    for disk, share in readings.disk_wear:
        what = f"{disk}: up to {share:.0%} of its life is used"
        if share >= WORN:
            todo = "Plan to replace it; keep logs and recordings off it."
            found.append(Finding("wear", "yellow", what, todo))
        else:
            found.append(Finding("wear", "green", what))
    return found


def judge_groups(*, there: bool, how: str) -> Finding:
    """Judge whether memory can be limited: ``how`` says what turns it on."""
    if there:
        return Finding("limits", "green", "control groups limit memory")
    what = "no memory control group: a worker is held by RLIMIT_DATA alone"
    return Finding("limits", "yellow", what, how)


def judge_pressure(readings: BoardReadings, *, there: bool, how: str) -> Finding:
    """Judge whether shortage of memory is told: ``how`` says what turns it on."""
    if there:
        share = f"{readings.memory_stalled_percent:.1f} % of the last 10 s"
        return Finding("pressure", "green", f"memory was waited for {share}")
    free = f"{readings.memory_available_bytes / MB:.0f} MB"
    what = f"no PSI: shortage is told by available memory alone ({free})"
    return Finding("pressure", "yellow", what, how)
