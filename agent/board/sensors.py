"""The sensors of a board, whichever it is: one Protocol, one choice.

The rules every implementation keeps, and ``tests/contracts/test_boards.py`` holds each
of them to, on the recorded tree of each board:
 * Nothing raises, whatever the files say: a sensor that vanishes or answers nonsense is
   left out, and comes back when it makes sense again.
 * Every number is NaN or plausible (``BoardReadings`` names the units).
 * ``read_fast`` is for the daemon's loop: it reads what has proved to be quick.
   ``read_slow`` is for a thread; it may take as long as the hardware does.
"""

from pathlib import Path
from typing import Protocol

from agent.board.identity import find_identity
from agent.board.jetson import Jetson
from agent.board.machine import Machine
from agent.board.raspberry_pi import RaspberryPi
from agent.core.readings import BoardIdentity, BoardReadings


class BoardSensors(Protocol):
    """What a board can be asked."""

    def identity(self) -> BoardIdentity:
        """Return what board this is; it never changes."""

    def read_fast(self, slow: BoardReadings) -> BoardReadings:
        """Return what changes from second to second, the rest as ``slow`` has it."""

    def read_slow(self) -> BoardReadings:
        """Return what changes within minutes, and may take long to read."""

    def throttled_before(self) -> tuple[tuple[str, int], ...]:
        """Return (kind, how often) of what slowed the board down and is remembered.

        Since boot, where the hardware counts; 1 for "it did" where it does not.
        """

    def look_again(self) -> None:
        """Look for sensors that came or went; may take as long as ``read_slow``."""


def find_sensors(disk: Path = Path("/"), root: Path = Path("/")) -> BoardSensors:
    """Return the sensors of this board.

    Args:
        disk: A path on the file system to report, usually the state directory.
        root: Where ``/proc``, ``/sys`` and ``/etc`` lie.
    """
    machine = Machine(find_identity(root), disk, root)
    match machine.identity().kind:
        case "raspberry_pi":
            return RaspberryPi(machine, root)
        case "jetson":
            return Jetson(machine, root)
        case _:
            return machine
