"""An alarm outlives the daemon that raised it, however that ended."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import MakeBoard
from tests.fakes.daemon_process import NAME, DaemonProcess, Json
from tests.fakes.fleet import STREAM, Fleet, packed

SIDE = 8
BRIGHTEST = 16
# Digits as they were profiled, unless the file says `negative`; with `slow` so few that
# no life of a test sees enough of them to find anything again.
CAMERA = f"""
import itertools, pathlib, sys, time
frames, word = pathlib.Path(sys.argv[1]).read_bytes(), pathlib.Path(sys.argv[2])
size = {SIDE * SIDE}
levels = bytes(range({BRIGHTEST + 1}))
negative = bytes.maketrans(levels, levels[::-1])
for start in itertools.cycle(range(0, len(frames), size)):
    frame, shown = frames[start:start + size], word.read_text()
    sys.stdout.buffer.write(frame.translate(negative) if shown == "negative" else frame)
    sys.stdout.buffer.flush()
    time.sleep(0.2 if shown == "slow" else 0.002)
"""


@pytest.fixture
def word(tmp_path: Path) -> Path:
    """Give the file that says what the camera shows."""
    path = tmp_path / "word"
    path.write_text("negative")
    return path


@pytest.fixture
def board(make_board: MakeBoard, fleet: Fleet, word: Path) -> Iterator[DaemonProcess]:
    """Give a board whose input is not what its model was profiled with."""
    with np.load(STREAM, allow_pickle=False) as stream:
        frames = word.with_name("frames")
        frames.write_bytes(stream["images"].tobytes())
    command = [sys.executable, "-c", CAMERA, str(frames), str(word)]
    source = {"kind": "command", "command": command, "format": "gray8"}
    board = make_board(
        source={**source, "width": SIDE, "height": SIDE},
        tables={"monitor": {"cpu_share": 0.5}},
    )
    fleet.publish(2, packed(2))
    with board:
        board.wait_version(2)
        yield board


def alarms(board: DaemonProcess) -> dict[str, Json]:
    """Return the alarms that are active, by scope."""
    watch = board.pipeline()["watch"]
    found = watch[0]["alarms"] if watch else []
    return {it["scope"]: it for it in found if it["active"]}


def test_an_alarm_outlives_kill_9(board: DaemonProcess, word: Path) -> None:
    """It is active from the first moment of the next life, is no news there, and goes
    with a line that says so; then nothing of it is left on the disk."""
    kept = board.state_dir / "anchors" / f"{NAME}.alarms"
    board.wait_for(lambda: bool(alarms(board)), "an alarm")
    board.wait_for(kept.exists, "its file")
    before = {it["scope"] for it in json.loads(kept.read_bytes())["alarms"]}
    word.write_text("slow")
    board.kill()
    board.start()
    board.wait_version(2)
    board.wait_for(lambda: bool(board.pipeline()["watch"]), "a monitor")
    after = alarms(board)
    assert before <= after.keys()
    assert {it["at"] for it in after.values()} != {0.0}
    series = board.metrics()
    active = [it for name, it in series.items() if "tinyward_drift_active{" in name]
    assert max(active) == 1
    assert "drift.alarm" not in board.words()
    word.write_text("")
    board.wait_said("drift.cleared")
    board.wait_for(lambda: not alarms(board), "quiet")
    board.wait_for(lambda: not kept.exists(), "no file")
