"""Where receipts go: into the log, and past the meter.

The rules this module keeps:
 * What the log has taken is spent: billing counts what can be proven. What the log
   lost was answered all the same, and is spent, too.
 * The smaller allowance decides, and its reason is told.
"""

from typing import Protocol

from agent.audit.log import UNLIMITED, AuditLog
from agent.core.reasons import Reason
from agent.errors import DeviceError


class Meter(Protocol):
    """Counts what is paid for."""

    def take(self, pipeline: str, records: memoryview) -> None:
        """Count inferences that were made, by their receipts."""

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Return how many more may be made now, and why not more."""


class NoMeter:
    """A board whose inferences nobody counts; satisfies ``Meter``."""

    def take(self, pipeline: str, records: memoryview) -> None:
        """Count nothing."""

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Return that there is no limit."""
        del pipeline
        return UNLIMITED, Reason.NONE


class LogRecorder:
    """Hands receipts on; satisfies ``agent.supervise.receipts.Recorder``.

    Args:
        log: The board's; None as long as it is being opened.
        meter: Counts what is paid for.

    Attributes:
        closed: Why there is no log.
    """

    def __init__(self, log: AuditLog | None, meter: Meter) -> None:
        self.log = log
        self.meter = meter
        self.closed = Reason.STARTING

    def take(self, pipeline: str, records: memoryview) -> int:
        """Log receipts and count them; in order, whole records.

        Returns:
            The number of the first one; ``NO_SEQ`` where the log has no room.

        Raises:
            DeviceError: ``starting``: the log is being opened; else why it is not.
        """
        if self.log is None:
            raise DeviceError("the log is not open", reason=self.closed)
        first = self.log.take(records)
        self.meter.take(pipeline, records)
        return first

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Return how many more samples may be answered now, and why not more."""
        if self.log is None:
            return 0, self.closed
        logged, metered = self.log.allowance(), self.meter.allowance(pipeline)
        return min(logged, metered, key=lambda it: it[0])
