"""Looks at this board for ``tinyward doctor``: reads and tries, changes nothing.

The rules this module keeps:
 * Runtimes are imported in a child: a wheel for another processor dies by a signal.
"""

import os
import platform
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import agent
from agent.cli.attachments import look_at_delegates, look_at_devices, look_at_programs
from agent.cli.findings import (
    Finding,
    judge_clock,
    judge_cpu,
    judge_engines,
    judge_layer,
    judge_memory,
)
from agent.cli.symptoms_board import look_at_board
from agent.cli.symptoms_service import examine_service
from agent.cli.symptoms_state import Subject, look_at_directory

IMPORT_S = 60.0  # a Pi Zero needs 20 s for numpy and a runtime from a cold card


def examine_board(subject: Subject) -> list[Finding]:
    """Return all findings, what stops us as well as what is fine."""
    return [
        Finding("agent", "green", f"tinyward {agent.__version__}, Python "
                f"{platform.python_version()}, {platform.machine()}, "
                f"Linux {platform.release()}"),
        *look_at_engines(),
        *look_at_machine(),
        *look_at_board(subject.state_dir),
        look_at_clock(time.time()),  # noqa: TID251 -- the clock itself is examined
        *subject.findings,
        look_at_directory(subject.state_dir, subject.user, serves=subject.serves),
        *examine_service(config=subject.config),
        *look_at_sandbox(),
        *look_at_delegates(subject.delegates),
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
