"""A latched alarm: raised at once, cleared only after a long quiet.

A statistic near its threshold would otherwise ring at every sample; an operator who
looks an hour later would see nothing.
"""

from typing import Literal

from agent.core.drift.mewma import LAMBDA
from agent.core.watching import Detector

QUIET_RATIO = 0.5  # of the threshold: below it nothing is left of what alarmed
# After which an exponentially weighted mean has forgotten all but 0.7 % of what it saw.
QUIET_SAMPLES = round(5 / LAMBDA)

Change = Literal["", "raised", "confirmed", "cleared"]


class Latch:
    """One alarm.

    Attributes:
        active: Raised and not cleared.
        confirmed: The e-detector agrees; implies ``active``.
        raised: How often it was raised.
        detector: What raised it last, at this ``score``.
        evidence: Score of the e-detector as it confirmed it.
    """

    __slots__ = (
        "_quiet",
        "active",
        "confirmed",
        "detector",
        "evidence",
        "raised",
        "score",
    )

    def __init__(self, detector: Detector = "mewma", *, active: bool = False) -> None:
        self.active = active
        self.confirmed = False
        self.raised = 0
        self.detector = detector
        self.score = self.evidence = 0.0
        self._quiet = 0

    def update(self, ratio: float, samples: int = 1) -> Change:
        """Take in a statistic over its threshold that held for so many samples.

        Law: it is raised by a ratio above 1 only, and cleared only after
        ``QUIET_SAMPLES`` in a row below ``QUIET_RATIO``.
        """
        if ratio > 1:
            self._quiet = 0
            mine = "mewma" if self.detector == "etable" else self.detector
            return self.ring(mine, ratio)
        if not self.active:
            return ""
        if ratio >= QUIET_RATIO:
            self._quiet = 0
            return ""
        self._quiet += samples
        if self._quiet < QUIET_SAMPLES:
            return ""
        self.active = self.confirmed = False
        self._quiet = 0
        return "cleared"

    def ring(self, detector: Detector, score: float) -> Change:
        """Raise it, if it is not raised already."""
        if self.active:
            return ""
        self.active = True
        self.raised += 1
        self.detector = detector
        # Kept as it was: a report comes later, when the statistic may have fallen.
        self.score = score
        return "raised"

    def confirm(self, score: float) -> Change:
        """The e-detector reached its threshold: enough to raise it alone."""
        self._quiet = 0
        change = self.ring("etable", score)
        if self.confirmed:
            return change
        self.confirmed = True
        self.evidence = score
        return change or "confirmed"
