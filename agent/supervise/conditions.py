"""The conditions of a trial: what a hot board, or a measure in force, explains.

The rules this module keeps:
 * What was counted while something slowed the board down, or kept the model from
   answering, is told apart from the rest: one bad moment spoils no trial.
 * A measure that was once in force counts for the rest of the trial: its samples are
   among those that are compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.core.degradation import LadderState, Measure
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.slowness import HOT_C, slowed_by

# What ends samples in the model's place.
WITHOUT_MODEL = frozenset({Measure.ABSTAIN, Measure.SAFE_OUTPUT})
ReadBoard = Callable[[], BoardReadings]
ReadLadder = Callable[[], LadderState]


@dataclass(slots=True)
class Conditions:
    """What one trial goes through.

    Attributes:
        read_board: The board's newest readings.
        read_ladder: How much the pipeline is held back now.
        read_hot_c: From where on heat slows the board down.
        altered: Why a smaller variant of the active model has answered at some time,
            or nothing. A candidate always answers as its preflight chose, and threads
            change no answer.
        withheld: Why no model answers now, or nothing.
        slowed: What slowed the board down at some time, or nothing.
    """

    read_board: ReadBoard
    read_ladder: ReadLadder
    read_hot_c: Callable[[], float] = lambda: HOT_C
    altered: Reason = Reason.NONE
    withheld: Reason = Reason.NONE
    slowed: Reason = Reason.NONE
    _held: bool = False  # something was wrong at the last look
    _spoilt: bool = False  # at the last look, or at the one before it
    _totals: tuple[int, ...] = ()
    _calm: list[int] = field(default_factory=list)

    def look(self) -> None:
        """Note how things are now; cheap, may be called as often as one likes."""
        slowed = slowed_by(self.read_board(), self.read_hot_c())
        self.slowed = self.slowed or slowed
        ladder = self.read_ladder()
        why = Reason(next(iter(ladder.reasons), Reason.CALM))
        if Measure.SMALL_VARIANT in ladder.measures:
            self.altered = self.altered or why
        held = not WITHOUT_MODEL.isdisjoint(ladder.measures)
        self.withheld = why if held else Reason.NONE
        before, self._held = self._held, bool(slowed) or held
        self._spoilt = before or self._held

    def count_calm(self, totals: Sequence[int]) -> Sequence[int]:
        """Return how much of what was counted since the first call nothing disturbed.

        Args:
            totals: Counters as they are at this look; to be called once after each.
        """
        before = self._totals or totals
        self._calm = self._calm or [0] * len(totals)
        self._totals = tuple(totals)
        # What lies between a good look and a bad one may be of either time.
        if not self._spoilt:
            grown = zip(self._calm, totals, before, strict=True)
            self._calm = [sum_ + now - old for sum_, now, old in grown]
        return self._calm
