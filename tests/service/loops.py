"""The loop's speed inside the unit and outside it, one side after the other."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.service.board import PROGRAM, SERVICE, STATE, ServiceBoard

OUTSIDE = "/srv/outside"
SECONDS = 1.5
SETTLE_S = 1.0  # the first look at the repository, and what a start imports late


class Pace(NamedTuple):
    """What one sample takes: seconds that pass, and seconds of a processor.

    Others on the machine change the first; what a sandbox costs changes both.
    """

    wall_s: float
    cpu_s: float


def inside_and_outside(
    board: ServiceBoard, settings: Callable[[str], str], seconds: float = SECONDS
) -> tuple[Pace, Pace]:
    """Return the pace at full load: in the unit, and in no unit at all.

    Both are the same daemon with the same model; only one runs at a time.

    Args:
        board: The board.
        settings: Returns settings at full load for a state directory.
        seconds: How long each side is measured.
    """
    board.write_settings(settings(f"{STATE}/loop"))
    board.start_anew()
    board.wait_answers()
    inside = _pace(board, seconds)
    board.systemctl("stop", SERVICE)
    outer = board.machine.root / OUTSIDE.lstrip("/")
    outer.mkdir(exist_ok=True)
    text = settings(f"{OUTSIDE}/state")
    (outer / "agent.toml").write_text(text, encoding="utf-8")
    line = f"echo $$ > {OUTSIDE}/pid; exec {PROGRAM} run -c {OUTSIDE}/agent.toml"
    outside = board.machine.spawn("/bin/sh", "-c", line)
    try:
        board.wait_answers()
        return inside, _pace(board, seconds)
    finally:
        board.signal(int((outer / "pid").read_text()), signal.SIGTERM)
        outside.wait()


def _pace(board: ServiceBoard, seconds: float) -> Pace:
    """Return how long the loop takes for one sample, once the start is over."""
    time.sleep(SETTLE_S)
    tasks = Path(f"/proc/{board.machine.host_pid(board.worker_pid())}/task")
    before, cpu_s, began = board.samples()["ok"], _cpu_s(tasks), time.monotonic()
    time.sleep(seconds)
    answered = board.samples()["ok"] - before
    wall_s = time.monotonic() - began
    return Pace(wall_s / answered, (_cpu_s(tasks) - cpu_s) / answered)


def _cpu_s(tasks: Path) -> float:
    """Return the processor time of all threads: the scheduler's own nanoseconds."""
    stats = [path.read_text(encoding="ascii") for path in tasks.glob("*/schedstat")]
    return sum(int(text.split()[0]) for text in stats) / 1e9
