"""The loop: take a sample, answer it, take the next; for ever.

The rules this module keeps:
 * A new model begins between two samples, a stop waits for the sample in flight.
 * Every wait is bounded by ``TURN_S``, so that a swap or a stop is seen at once and
   the daemon can tell an idle loop from a stuck one.
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from agent.core.reasons import Reason
from agent.core.statistics_block import OUTCOME_INDEX
from agent.worker.samples import InputError, Sample
from agent.worker.slot import Candidate, ModelSlot
from agent.worker.statistics import StatisticsWriter
from agent.worker.turn import Turn

log = logging.getLogger(__name__)
TURN_S = 0.05  # a swap on an idle source takes at most this long
OVERRUN = OUTCOME_INDEX[Reason.OVERRUN]
PARTIAL = OUTCOME_INDEX[Reason.PARTIAL]
INPUT = OUTCOME_INDEX[Reason.INPUT]


class Source(Protocol):
    """Where samples come from; see ``agent.worker.sources``."""

    ready_ns: int
    dropped: int
    partial: int
    ended: bool

    def take(self, timeout_s: float) -> Sample | None:
        """Return the next sample, or None if none came in time."""


class Loop:
    """The data plane's one thread.

    Args:
        source: Where samples come from.
        slot: Which model answers.
        statistics: Where everything is counted.
        on_end: Called once when the source has ended.
    """

    def __init__(
        self,
        source: Source,
        slot: ModelSlot,
        statistics: StatisticsWriter,
        on_end: Callable[[], None],
    ) -> None:
        self._source = source
        self._slot = slot
        self._statistics = statistics
        self._on_end = on_end
        self._dropped = 0
        self._partial = 0
        self._ended = False
        self._said = False

    def run(self) -> None:
        """Answer samples until the slot is stopped."""
        slot, source = self._slot, self._source
        take = source.take
        current: Candidate | None = None
        turn: Turn | None = None
        previous_ns = time.perf_counter_ns()
        while slot.running:
            if slot.wanted is not current:
                current = slot.wanted
                turn = slot.enter(current) if current else None
            if turn is None:
                self._idle()
                previous_ns = time.perf_counter_ns()  # waiting for a model is no pause
                continue
            try:
                sample = take(TURN_S)
            except InputError as err:
                self._bad_sample(err)
                continue
            if sample is None:
                self._idle_source()
                continue
            ready_ns = source.ready_ns
            if ready_ns:
                self._note(ready_ns)
            ended_ns = turn(sample)
            if slot.watching:
                pause_ns = ended_ns - max(previous_ns, ready_ns)
                slot.longest_pause_ns = max(slot.longest_pause_ns, pause_ns)
            previous_ns = ended_ns

    def _bad_sample(self, err: InputError) -> None:
        """What the source could not read was received and failed; say so once."""
        self._statistics.count(INPUT)
        if not self._said:
            self._said = True
            facts = {"reason": Reason.INPUT}
            log.warning("samples cannot be read: %s", err, extra=facts)

    def _note(self, ready_ns: int) -> None:
        """Publish how old the sample is, and what the source dropped before it."""
        self._statistics.waiting(time.perf_counter_ns() - ready_ns)
        self._count_losses()

    def _count_losses(self) -> None:
        """Samples that a live source dropped were received, and end as dropped."""
        dropped, partial = self._source.dropped, self._source.partial
        if dropped != self._dropped:
            self._statistics.count(OVERRUN, dropped - self._dropped)
            self._dropped = dropped
        if partial != self._partial:
            self._statistics.count(PARTIAL, partial - self._partial)
            self._partial = partial

    def _idle(self) -> None:
        """No model yet: wait for one."""
        self._statistics.idle(time.perf_counter_ns())
        self._slot.pause(TURN_S)

    def _idle_source(self) -> None:
        """No sample came in time, or there will be none any more."""
        self._count_losses()
        self._statistics.idle(time.perf_counter_ns())
        self._slot.rest()
        if self._source.ended:
            if not self._ended:
                self._ended = True
                self._on_end()
            self._slot.pause(TURN_S)
