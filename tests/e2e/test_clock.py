"""A board without a clock battery wakes up in 1970, and is not fooled."""

import subprocess
import time

from tests.conftest import find_tool
from tests.e2e.conftest import MakeBoard
from tests.fakes.fleet import Fleet

BIRTH = "1970-01-02 00:00:00"
DAY_S = 86_400.0


def in_1970() -> tuple[str, ...]:
    """Return a wrapper that sets a process back, but for its monotonic clock."""
    program = find_tool("faketime")
    told = subprocess.run(
        [program, BIRTH, "env"], check=True, capture_output=True, text=True
    )
    # The program itself forks; what it sets is all that is needed of it.
    needed = ("LD_PRELOAD=", "FAKETIME=")
    lines = [line for line in told.stdout.splitlines() if line.startswith(needed)]
    return (str(find_tool("env")), *lines, "FAKETIME_DONT_FAKE_MONOTONIC=1")


def test_in_1970_the_committed_model_runs_and_old_metadata_is_refused(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """The floor learned from verified metadata judges expiry, not the clock."""
    now = time.time()  # noqa: TID251 - the clock that the real daemon reads
    fleet.publish(1)
    board = make_board()
    with board:
        board.wait_version(1)
    fleet.publish(2)
    fleet.spoiled.expire("timestamp", now - DAY_S / 24)
    board.wrapper = in_1970()
    with board:
        board.wait_version(1)
        lag = "tinyward_clock_floor_lag_seconds"
        board.wait_for(lambda: "reason=expired" in board.words(), "expired")
        assert board.metrics()[lag] > 50 * 365 * DAY_S
        assert board.version() == 1
        assert board.readiness() == (200, "")
        assert board.words().splitlines()[1].startswith("1970-")
        fleet.publish(3)
        board.wait_version(3)


def test_a_new_board_in_1970_believes_what_is_fresh(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """The build date is the first floor: no lockout, and an update happens."""
    fleet.publish(1)
    board = make_board()
    board.wrapper = in_1970()
    with board:
        board.wait_version(1)
