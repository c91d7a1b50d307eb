"""Looks at this board for ``tinyward doctor``: reads and tries, changes nothing.

The rules this module keeps:
 * Runtimes are imported in a child: a wheel for another processor dies by a signal.
 * The state directory is not created here; where it would be is looked at instead.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import agent
from agent.cli.attachments import look_at_delegates, look_at_devices, look_at_programs
from agent.cli.findings import (
    MB,
    Finding,
    judge_clock,
    judge_cpu,
    judge_engines,
    judge_layer,
    judge_memory,
)
from agent.cli.symptoms_board import look_at_board
from agent.cli.symptoms_service import examine_service
from agent.core.executors import DelegateFile

IMPORT_S = 60.0  # a Pi Zero needs 20 s for numpy and a runtime from a cold card


def examine_board(
    state_dir: Path, delegates: Sequence[DelegateFile] = ()
) -> list[Finding]:
    """Return all findings, what stops us as well as what is fine.

    Args:
        state_dir: Where the daemon would keep its state.
        delegates: The libraries that the settings allow.
    """
    return [
        Finding("agent", "green", f"tinyward {agent.__version__}, Python "
                f"{platform.python_version()}, {platform.machine()}, "
                f"Linux {platform.release()}"),
        *look_at_engines(),
        *look_at_machine(),
        *look_at_board(state_dir),
        look_at_clock(time.time()),  # noqa: TID251 -- the clock itself is examined
        look_at_directory(state_dir),
        *examine_service(),
        *look_at_sandbox(),
        *look_at_delegates(delegates),
        look_at_images(),
        *look_at_programs(),
        *look_at_devices(),
    ]  # fmt: skip


def look_at_engines() -> list[Finding]:
    """Import every installed runtime in a child."""
    from agent.worker.runtimes import PACKAGES, available_engines, installed_version

    working: dict[str, str] = {}
    broken: dict[str, str] = {}
    available = available_engines()
    for name, package in PACKAGES.items():
        version = installed_version(package)
        if not version:
            continue
        why = "needs numpy < 2" if name not in available else try_import(package)
        if why:
            broken[f"{name} {version}"] = why
        else:
            working[name] = version
    return judge_engines(working, broken)


def try_import(package: str) -> str:
    """Import a runtime's interpreter in a child; "" if it works, else why not."""
    statement = f"import {package}.interpreter"
    try:
        child = subprocess.run(
            [sys.executable, "-c", statement],
            capture_output=True,
            timeout=IMPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the import took more than {IMPORT_S:.0f} s"
    if child.returncode < 0:
        return f"the import died by signal {-child.returncode}"
    last_words = child.stderr.decode(errors="replace").strip().splitlines()
    return (last_words or ["the import failed"])[-1] if child.returncode else ""


def look_at_machine() -> list[Finding]:
    """Look at the names, the processor and the memory."""
    import psutil

    from agent.board.hardware import cpu_features, hardware_names
    from agent.board.limits import memory_left, read_limits

    memory = psutil.virtual_memory()
    limits = read_limits()
    cores = min(float(os.cpu_count() or 1), limits.cpus)
    return [
        Finding("hardware", "green", f"{', '.join(hardware_names())}; {cores:g} cores"),
        judge_cpu(cpu_features()),
        judge_memory(memory.available, memory.total, memory_left()),
    ]


def look_at_clock(now: float) -> Finding:
    """Look at who keeps the clock."""
    from agent.board.clock import clock_battery, clock_synchronised

    return judge_clock(
        now=now,
        built=Path(agent.__file__).stat().st_mtime,
        synchronised=clock_synchronised(),
        battery=clock_battery(),
    )


def look_at_directory(state_dir: Path) -> Finding:
    """Look at the state directory, or at where it will be made."""
    place = state_dir
    while not _is_there(place) and place != place.parent:
        place = place.parent
    note = "" if place == state_dir else " (will be made)"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        todo = "Choose another state_dir, correct its owner, or remount it read-write."
        return Finding("state", "red", f"{place} cannot be written", todo)
    owner = place.stat().st_uid
    if place == state_dir and owner != os.geteuid():
        todo = "Run as its owner, or correct the owner."
        return Finding("state", "red", f"{place} belongs to user {owner}", todo)
    free = shutil.disk_usage(place).free // MB
    what = f"{state_dir}{note}, {free} MB free"
    if free < 50:
        return Finding("state", "yellow", what, "Free some space for updates.")
    return Finding("state", "green", what)


def _is_there(path: Path) -> bool:
    """Whether a path exists; what we may not look at does not, for us."""
    try:
        return path.exists()
    except PermissionError:
        return False


def look_at_sandbox() -> list[Finding]:
    """Look at each layer a worker would lock itself in with."""
    from agent.board.layers import sandbox_layers

    return [judge_layer(name, why) for name, why in sandbox_layers().items()]


def look_at_images() -> Finding:
    """Look at what sources of image files need."""
    if find_spec("PIL") is not None:
        return Finding("images", "green", "Pillow")
    todo = "pip install 'tinyward[image]'"
    return Finding("images", "yellow", "Pillow is missing: no image files", todo)
