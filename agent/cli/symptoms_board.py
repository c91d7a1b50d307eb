"""Looks at the board itself for ``tinyward doctor``; reads, changes nothing."""

import os
from pathlib import Path

from agent.cli.findings import Finding
from agent.cli.findings_board import (
    judge_board,
    judge_groups,
    judge_heat,
    judge_pace,
    judge_pressure,
    judge_throttling,
    judge_wear,
)

NO_GROUPS = (
    "In a container its host decides; else start a kernel that has the memory "
    "controller (CONFIG_MEMCG), without cgroup_disable=memory."
)


def look_at_board(state_dir: Path, root: Path = Path("/")) -> list[Finding]:
    """Look at everything its sensors, its kernel and its disks say.

    Args:
        state_dir: Whose file system is meant.
        root: Where ``/proc``, ``/sys``, ``/boot`` and ``/etc`` lie.
    """
    from agent.board.frequencies import find_drivers, find_policies
    from agent.board.sensors import find_sensors
    from agent.board.temperatures import find_temperatures

    sensors = find_sensors(state_dir, root)
    sensors.look_again()
    readings = sensors.read_fast(sensors.read_slow())
    closed = [
        path
        for path in map(Path, find_temperatures(root).values())
        if path.exists() and not os.access(path, os.R_OK)
    ]
    drivers = find_drivers(list(find_policies(root).values()))
    return [
        judge_board(readings.identity, readings.power_mode),
        judge_heat(readings, closed),
        *judge_throttling(readings, sensors.throttled_before()),
        *judge_pace(readings, drivers),
        *judge_wear(readings),
        *look_at_kernel(root),
    ]


def look_at_kernel(root: Path = Path("/")) -> list[Finding]:
    """Look at what the kernel was started with: limits of memory, and its shortage."""
    from agent.board.boot_words import (
        MEMORY_WORDS,
        has_memory_groups,
        has_pressure,
        missing_words,
        say_how,
    )
    from agent.board.identity import find_identity
    from agent.board.kernel import read_memory, read_pressure
    from agent.core.readings import BoardReadings

    at = str(root).rstrip("/")
    readings = BoardReadings(
        memory_available_bytes=read_memory(at).available,
        memory_stalled_percent=read_pressure(at, "memory").percent,
    )
    groups, pressure = has_memory_groups(root), has_pressure(root)
    # Whoever lacks both edits the line once, with the words for both.
    missing = missing_words(root)
    pi = find_identity(root).kind == "raspberry_pi"
    # Only a Pi's kernel waits for these words; elsewhere they would be in vain.
    elsewhere = not pi and missing[: len(MEMORY_WORDS)] == MEMORY_WORDS
    if elsewhere:
        missing = missing[len(MEMORY_WORDS) :]
    how = say_how(missing, root) if missing else ""
    return [
        judge_groups(there=groups, how=NO_GROUPS if elsewhere else how),
        judge_pressure(readings, there=pressure, how=how),
    ]
