"""The log of receipts at one moment, for metrics and pages."""

from dataclasses import dataclass
from typing import Protocol

from agent.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class LogView:
    """What is told of the log.

    Attributes:
        records: Records in it, in all its life.
        inferences: Those that are no events.
        lost: Records that were made and found no room.
        checkpoints: Signed since the start of the agent.
        unsigned: Records that no checkpoint covers yet.
        bytes: What it takes on the disk.
        age_s: Seconds since the newest checkpoint; 0 before the first.
        trouble: Why the disk does not take it now, or nothing.
        aside: Damaged logs that were set aside, and were not removed since.
        gaps: Starts after which the last moments before them may be missing.
        not_kept: Inputs that were to be kept for audits since the start, and were not.
    """

    records: int
    inferences: int
    lost: int
    checkpoints: int
    unsigned: int
    bytes: int
    age_s: float
    trouble: Reason = Reason.NONE
    aside: int = 0
    gaps: int = 0
    not_kept: int = 0


class Told(Protocol):
    """What of it is said in a line: ``LogView``, and what a client read of one."""

    @property
    def records(self) -> int:
        """Records in it."""

    @property
    def lost(self) -> int:
        """Those that found no room."""

    @property
    def unsigned(self) -> int:
        """Those that no checkpoint covers."""

    @property
    def trouble(self) -> str:
        """Why the disk does not take it."""

    @property
    def aside(self) -> int:
        """Damaged logs beside it."""

    @property
    def gaps(self) -> int:
        """Starts after a loss of power."""


def say_log(view: Told) -> str:
    """Say how the log is, in one line.

    >>> say_log(LogView(8, 6, 0, 2, 1, 4096, 3.0))
    '8 records, 1 not signed yet'
    >>> say_log(LogView(8, 6, 2, 2, 0, 4096, 3.0, aside=1, gaps=1))
    '8 records, 2 lost, 1 damaged log set aside, 1 start after a loss of power'
    """
    said = [f"{view.records} records"]
    if view.unsigned:
        said.append(f"{view.unsigned} not signed yet")
    if view.lost:
        said.append(f"{view.lost} lost")
    if view.aside:
        said.append(f"{view.aside} damaged {_logs(view.aside)} set aside")
    if view.gaps:
        word = "start" if view.gaps == 1 else "starts"
        said.append(f"{view.gaps} {word} after a loss of power")
    if view.trouble:
        said.append(f"not written: {view.trouble}")
    return ", ".join(said)


def _logs(count: int) -> str:
    """Return the word for so many logs."""
    return "log" if count == 1 else "logs"
