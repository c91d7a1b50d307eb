"""The log of receipts at one moment, for metrics and pages."""

from dataclasses import dataclass

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
    """

    records: int
    inferences: int
    lost: int
    checkpoints: int
    unsigned: int
    bytes: int
    age_s: float
    trouble: Reason = Reason.NONE
