"""The real daemon on a board that is short of memory: it does less, says so, recovers.

Every machine is short of memory if a terabyte is asked for: no sensor has to be faked.
"""

import signal

from click.testing import CliRunner

from agent.cli import cli
from tests.e2e.conftest import FULL_LOAD, MakeBoard
from tests.fakes.daemon_process import DaemonProcess
from tests.fakes.fleet import Fleet

RATE = {**FULL_LOAD, "rate": 200.0}
SCARCE = {"low_memory_mb": 1e6, "patience_s": 2.0, "calm_s": 2.0}
# The other signals are the machine's that runs the tests, which may be busy.
QUIET = {"stalled_percent": 100.0, "missed_share": 1.0, "hot_c": 150.0}
AMPLE = {"low_memory_mb": 0.0, "very_hot_c": 150.0}
STEPS = {"degrade": {"degraded": ["half_rate"], "safe": ["abstain"]}}
LEVEL = 'tinyward_degradation_level{pipeline="digits"}'
CAME = "tinyward_degradation_transitions_total"


def level(board: DaemonProcess) -> str:
    """Return where the pipeline stands."""
    return str(board.pipeline()["ladder"]["level"])


def steps(board: DaemonProcess) -> list[tuple[str, str, str]]:
    """Return the transitions as events tell them."""
    told = [it["fields"] for it in board.ask("/v1/events")["events"]
            if it["name"] == "degradation.changed"]  # fmt: skip
    return [(it["from"], it["to"], it["reason"]) for it in told]


def test_a_board_short_of_memory_does_less_and_recovers(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Half of the samples, then none, and all again once the settings allow it."""
    fleet.publish(1)
    degrade = {**SCARCE, **QUIET, "very_hot_c": 150.0}
    board = make_board(source=RATE, pipeline=STEPS, tables={"degrade": degrade})
    with board:
        board.wait_for(lambda: board.samples()["reasons"].get("shed"), "half rate")
        board.wait_for(lambda: level(board) == "safe", "safe")
        board.wait_for(lambda: board.readiness() == (503, "abstained"), "not ready")
        assert board.metrics()[LEVEL] == 3.0
        status = CliRunner().invoke(cli, ["status", "--socket", str(board.socket)])
        assert "SAFE  digits: " in status.stdout
        assert "every other sample, no answers" in " ".join(status.stdout.split())
        board.write_settings(degrade={**degrade, **AMPLE})
        board.signal(signal.SIGHUP)
        board.wait_for(lambda: level(board) == "normal", "normal")
        board.wait_for(lambda: board.readiness() == (200, ""), "ready")
        assert steps(board) == [
            ("normal", "degraded", "memory_pressure"),
            ("degraded", "safe", "memory_pressure"),
            ("safe", "degraded", "calm"),
            ("degraded", "suspect", "calm"),
            ("suspect", "normal", "calm"),
        ]
        counted = {k: v for k, v in board.metrics().items() if k.startswith(CAME)}
        assert sum(counted.values()) == 5.0
        sums = board.samples()
        assert sums["in"] - sums["ok"] - sums["failed"] - sums["dropped"] in (0, 1)
        assert set(sums["reasons"]) == {"shed", "abstained"}
        assert board.pipeline()["restarts"] == {}
