"""The slot: which model answers, exchanged by one reference between two samples.

The rules this module keeps:
 * The loop reads ``turn`` before each sample and never waits for anyone.
 * The control thread assigns ``candidate`` and waits until the loop has taken it.
 * While ``watching``, the loop notes the longest time without an answer.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.messages import Shed
from agent.core.statistics_block import GAP_NS, NEXT_SEQ
from agent.worker.model import LoadedModel
from agent.worker.shedding import answers
from agent.worker.statistics import StatisticsWriter
from agent.worker.tap import Tap
from agent.worker.turn import Turn
from agent.worker.watch import Watcher


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is ready to answer, bound to one section of the block.

    Attributes:
        begin: Makes its turn, when the loop takes it, as the order in force asks: the
            turn goes on from what its section holds then.
        tap: Who listens to it, if anyone does.
        watcher: Who watches it, if anyone does; the same for all turns of one load.
    """

    model: LoadedModel
    begin: Callable[[Shed], Turn]
    section: int
    tap: Tap | None = None
    watcher: Watcher | None = None


class ModelSlot:
    """What the loop and the control thread share.

    Attributes:
        running: False ends the loop after the sample in flight.
        wanted: What should answer from the next sample on; None before the first.
        watching: The loop notes pauses in ``longest_pause_ns``.
        first_seq: Number of the first sample that ``wanted`` answers.
        shed: How much is answered, by whatever model the loop takes next.
        at_rest: What else the loop does while no sample comes: one inference at most.
    """

    def __init__(self, statistics: StatisticsWriter) -> None:
        self._statistics = statistics
        self._changed = threading.Event()
        self._entered = threading.Event()
        self.running = True
        self.wanted: Candidate | None = None
        self._answering: LoadedModel | None = None
        self._watcher: Watcher | None = None
        self.watching = False
        self.longest_pause_ns = 0
        self.first_seq = 0
        self.shed = Shed()
        self.at_rest: Callable[[], None] | None = None
        self._silent = False  # what answers was not asked since it was taken

    def watch(self) -> None:
        """Begin to note the longest pause."""
        self.longest_pause_ns = 0
        self.watching = True

    def unwatch(self) -> int:
        """Stop noting; return the longest pause in ns and publish it."""
        self.watching = False
        self._statistics.words[GAP_NS] = self.longest_pause_ns
        return self.longest_pause_ns

    def exchange(self, candidate: Candidate, timeout_s: float) -> bool:
        """Let ``candidate`` answer; True once the loop has taken it."""
        self._entered.clear()
        self.wanted = candidate
        self._changed.set()
        return self._entered.wait(timeout_s)

    def enter(self, candidate: Candidate) -> Turn:
        """Called by the loop: count into the candidate's section from now on.

        Where it is the same model with another turn, the section goes on.
        """
        statistics = self._statistics
        if candidate.model is not self._answering:
            self._answering = candidate.model
            statistics.enter(candidate.section, candidate.model.generation)
            self.first_seq = statistics.words[NEXT_SEQ]
            self._silent = False
        order = self.shed
        if answers(order) and self._silent:
            # Windows and state are from before the silence: half of a first answer
            # would be minutes old.
            candidate.model.reset()
        self._silent = not answers(order)
        turn = candidate.begin(order)
        self._watcher = candidate.watcher
        if self._watcher is not None:
            self._watcher.begin()
        self._entered.set()
        return turn

    def rest(self) -> None:
        """Called by the loop while no sample comes."""
        if self._watcher is not None:
            self._watcher.rest()
        if (check := self.at_rest) is not None:
            check()

    def finish(self) -> None:
        """Called when the loop has ended: the monitor's last word."""
        if self._watcher is not None:
            self._watcher.finish()

    def stop(self) -> None:
        """End the loop after the sample in flight."""
        self.running = False
        self._changed.set()

    def pause(self, timeout_s: float) -> None:
        """Called by the loop while nothing can be done: wait for a change."""
        if self._changed.wait(timeout_s):
            self._changed.clear()
