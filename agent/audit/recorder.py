"""Where receipts go: into the log, and past the meter.

The rules this module keeps:
 * What the log has taken is spent: billing counts what can be proven. What the log
   lost was answered all the same, and is spent, too.
 * The smaller allowance decides, and its reason is told.
 * A worker says itself which of its samples failed, and what failed is not charged. It
   is believed up to one in ``FREE_ONE_IN``: whoever took it over would answer for
   nothing else. What it left unreadable is charged as answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.audit.log import UNLIMITED, AuditLog
from agent.core.kept_gaps import NOT_KEPT
from agent.core.reasons import Reason
from agent.core.receipts import FAILED, FLAGS_END, RECORD_BYTES, SLOTS
from agent.errors import DeviceError

# A model fails on none or nearly none of what it was accepted for; a sensor that broke
# is worth a few free samples, and then somebody has to look at it.
FREE_ONE_IN = 8
FREE_AT_FIRST = 256


class Meter(Protocol):
    """Counts what is paid for."""

    def take(self, pipeline: str, records: memoryview) -> None:
        """Count inferences that were made, by their receipts."""

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Return how many more may be made now, and why not more."""


class KeptInputs(Protocol):
    """Keeps inputs, as far as it can."""

    def untold(self, *, at_once: bool = False) -> Sequence[dict[str, object]]:
        """Return facts of events: what was not kept, and not said yet."""


class NoMeter:
    """A board whose inferences nobody counts; satisfies ``Meter``."""

    def take(self, pipeline: str, records: memoryview) -> None:
        """Count nothing."""

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Return that there is no limit."""
        del pipeline
        return UNLIMITED, Reason.NONE


@dataclass(slots=True)
class Failures:
    """How many failures of one pipeline are still believed.

    Attributes:
        answered: Records that were charged; ``free`` those that were not.
    """

    answered: int = 0
    free: int = 0

    def judge(self, records: memoryview) -> memoryview:
        """Return records as they are charged.

        They are without ``FAILED`` where that is not believed: all of them or none.
        """
        count = len(records) // RECORD_BYTES
        failed = sum(it & FAILED for it in records[FLAGS_END - 1 :: RECORD_BYTES])
        answered, free = self.answered + count - failed, self.free + failed
        if failed and free > FREE_AT_FIRST + answered // FREE_ONE_IN:
            charged = bytearray(records)
            for at in range(FLAGS_END - 1, len(charged), RECORD_BYTES):
                charged[at] &= ~FAILED
            self.answered += count
            return memoryview(charged)
        self.answered, self.free = answered, free
        return records


class LogRecorder:
    """Hands receipts on; satisfies ``agent.supervise.receipts.Recorder``.

    Args:
        log: The board's; None as long as it is being opened.
        meter: Counts what is paid for.

    Attributes:
        closed: Why there is no log.
        kept: Keeps inputs; None where none are kept.
    """

    def __init__(self, log: AuditLog | None, meter: Meter) -> None:
        self.log = log
        self.meter = meter
        self.closed = Reason.STARTING
        self.kept: KeptInputs | None = None
        self._failures: dict[str, Failures] = {}
        self._lost = 0  # that the log was not told of, as it is not open

    def take(self, pipeline: str, records: memoryview) -> int:
        """Log receipts and count them; in order, whole records.

        Returns:
            The number of the first one; ``NO_SEQ`` where the log has no room.

        Raises:
            DeviceError: ``starting``: the log is being opened; else why it is not.
        """
        if self.log is None:
            raise DeviceError("the log is not open", reason=self.closed)
        self._tell_lost(self.log)
        first = self.log.take(records)
        failures = self._failures.setdefault(pipeline, Failures())
        self.meter.take(pipeline, failures.judge(records))
        return first

    def lose(self, pipeline: str, count: int) -> None:
        """Count records that a worker wrote, and that can never be taken.

        They are said in the log, and charged: a ring that was made unreadable is no
        way to answer for nothing.
        """
        self._lost += count
        if self.log is not None:
            self._tell_lost(self.log)
        # What they were nobody knows: answers, of no model. A ring has no more.
        self.meter.take(pipeline, memoryview(bytes(min(count, SLOTS) * RECORD_BYTES)))

    def tell_not_kept(self, *, at_once: bool = False) -> None:
        """Say in the log which inputs were to be kept, and were not."""
        if self.kept is not None and self.log is not None:
            for facts in self.kept.untold(at_once=at_once):
                self.log.note(NOT_KEPT, facts)

    def _tell_lost(self, log: AuditLog) -> None:
        """Say in the log what was lost, once."""
        if self._lost:
            lost, self._lost = self._lost, 0
            log.lose(lost, "a worker's ring could not be read")

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Return how many more samples may be answered now, and why not more."""
        if self.log is None:
            return 0, self.closed
        self.tell_not_kept()
        logged, metered = self.log.allowance(), self.meter.allowance(pipeline)
        return min(logged, metered, key=lambda it: it[0])
