"""The loop's speed inside the unit and outside it, one side after the other."""

import signal
import time
from collections.abc import Callable

from tests.service.board import PROGRAM, SERVICE, STATE, ServiceBoard

OUTSIDE = "/srv/outside"
SECONDS = 1.5
SETTLE_S = 1.0  # the first look at the repository, and what a start imports late


def inside_and_outside(
    board: ServiceBoard, settings: Callable[[str], str], seconds: float = SECONDS
) -> tuple[float, float]:
    """Return seconds per sample at full load: in the unit, and in no unit at all.

    Both are the same daemon with the same model; only one runs at a time.

    Args:
        board: The board.
        settings: Returns settings at full load for a state directory.
        seconds: How long each side is measured.
    """
    board.write_settings(settings(f"{STATE}/loop"))
    board.start_anew()
    board.wait_answers()
    inside_s = _per_sample_s(board, seconds)
    board.systemctl("stop", SERVICE)
    outer = board.machine.root / OUTSIDE.lstrip("/")
    outer.mkdir(exist_ok=True)
    text = settings(f"{OUTSIDE}/state")
    (outer / "agent.toml").write_text(text, encoding="utf-8")
    line = f"echo $$ > {OUTSIDE}/pid; exec {PROGRAM} run -c {OUTSIDE}/agent.toml"
    outside = board.machine.spawn("/bin/sh", "-c", line)
    try:
        board.wait_answers()
        return inside_s, _per_sample_s(board, seconds)
    finally:
        board.signal(int((outer / "pid").read_text()), signal.SIGTERM)
        outside.wait()


def _per_sample_s(board: ServiceBoard, seconds: float) -> float:
    """Return how long the loop takes for one sample, once the start is over."""
    time.sleep(SETTLE_S)
    before, began = board.samples()["ok"], time.monotonic()
    time.sleep(seconds)
    answered = board.samples()["ok"] - before
    return (time.monotonic() - began) / answered
