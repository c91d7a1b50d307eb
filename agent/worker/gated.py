"""The loop of a worker that gives receipts: nothing is taken that may not be answered.

The rules this module keeps:
 * The gate is one comparison before a sample is taken; ``Loop.run`` has none.
 * What may not be answered stays where it is: recorded sources wait, live ones drop
   their older samples as overrun. No sample ends in a way of its own.
 * A closed gate is an idle loop: swaps, stops and orders are seen within ``TURN_S``,
   and the daemon sees the loop move.
"""

import time
from collections.abc import Callable

from agent.core.receipts import LIMIT, RingWriter
from agent.worker.loop import TURN_S, Loop, Source
from agent.worker.samples import InputError
from agent.worker.slot import Candidate, ModelSlot
from agent.worker.statistics import StatisticsWriter
from agent.worker.turn import Turn


class GatedLoop(Loop):
    """The data plane's one thread, where each answer needs room for its receipt.

    Args:
        source: Where samples come from.
        slot: Which model answers.
        statistics: Where everything is counted.
        on_end: Called once when the source has ended.
        ring: Where receipts go; says whether one more may be answered.
    """

    def __init__(
        self,
        source: Source,
        slot: ModelSlot,
        statistics: StatisticsWriter,
        on_end: Callable[[], None],
        ring: RingWriter,
    ) -> None:
        super().__init__(source, slot, statistics, on_end)
        self._ring = ring

    def run(self) -> None:
        """Answer samples until the slot is stopped, as ``Loop.run`` does."""
        slot, source, ring, words = (
            self._slot,
            self._source,
            self._ring,
            self._ring.words,
        )
        take = source.take
        current: Candidate | None = None
        turn: Turn | None = None
        previous_ns = time.perf_counter_ns()
        while slot.running:
            if slot.wanted is not current:
                current = slot.wanted
                turn = slot.enter(current) if current else None
            if turn is None or ring.written >= words[LIMIT]:
                self._wait(has_model=turn is not None)
                previous_ns = time.perf_counter_ns()  # waiting for leave is no pause
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

    def _wait(self, *, has_model: bool) -> None:
        """Wait for a model, or until more may be answered."""
        if has_model:
            self._count_losses()
            self._slot.rest()
        self._idle()
