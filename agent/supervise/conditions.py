"""The conditions of a trial: what a hot board, or a measure in force, explains.

The rules this module keeps:
 * Readings are taken once a second, in long trials less often: at most ``READINGS``.
 * What was once in force counts for the rest of the trial: its samples are among those
   that are judged.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.core.degradation import LadderState, Measure
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.slowness import clock_share

READINGS = 256  # of the board in one trial: heat changes within seconds
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
        longest_s: How long the trial may take.
        altered: Why a smaller variant of the active model has answered at some time,
            or nothing. A candidate always answers as its preflight chose, and threads
            change no answer.
        withheld: Why no model answers now, or nothing.
    """

    read_board: ReadBoard
    read_ladder: ReadLadder
    longest_s: float
    altered: Reason = Reason.NONE
    withheld: Reason = Reason.NONE
    _began_s: float = field(default_factory=time.monotonic)
    _readings: list[BoardReadings] = field(default_factory=list)

    def look(self) -> None:
        """Note how things are now; cheap, may be called as often as one likes."""
        seconds = time.monotonic() - self._began_s
        if seconds >= len(self._readings) * max(1.0, self.longest_s / READINGS):
            self._readings.append(self.read_board())
        ladder = self.read_ladder()
        why = Reason(next(iter(ladder.reasons), Reason.CALM))
        if Measure.SMALL_VARIANT in ladder.measures:
            self.altered = self.altered or why
        held = not WITHOUT_MODEL.isdisjoint(ladder.measures)
        self.withheld = why if held else Reason.NONE

    @property
    def share(self) -> float:
        """Share of its full clock that the model had; 0 where nobody can tell."""
        return clock_share(self._readings)
