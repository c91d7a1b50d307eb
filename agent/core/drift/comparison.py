"""The present compared with one anchor: all its detectors and their latched alarms."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from operator import mul as _multiply

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.classes import Classes
from agent.core.drift.etable import Etable
from agent.core.drift.fitting import find_bins
from agent.core.drift.latch import QUIET_RATIO, Latch
from agent.core.drift.mewma import Mewma
from agent.core.drift.opened import Columns, OpenReference
from agent.core.drift.windows import WINDOW_SAMPLES, Window
from agent.core.watching import Alarm, Anchor, Detector, FeatureDrift, Scope, Score

HIGHEST = 1e9  # what a report can say
# Nothing alarms below it, whatever a profile says: a chi-squared of two terms in use.
LEAST_THRESHOLD = 1e-6
PREDICTION: Scope = "prediction"


class Comparison:
    """One anchor's detectors.

    Args:
        anchor: Its name in reports.
        reference: What to compare with.
        columns: Of the scopes ``input`` and ``output``.
        latched: Scopes whose alarm was active before.

    Attributes:
        reference: What is compared with, without whitening and table.
    """

    def __init__(
        self,
        anchor: Anchor,
        reference: OpenReference,
        columns: Columns,
        latched: Collection[Scope] = (),
    ) -> None:
        # What the detectors made their own of is not kept twice: a board's memory is
        # small, and the whitening alone is half of a reference.
        none, counted = np.zeros((0, 0)), np.zeros((0, 0), np.int64)
        self.reference = replace(
            reference,
            mean=none,
            abs_mean=none,
            eps=none,
            whitening=none,
            edges=none,
            counts=counted,
        )
        self._anchor = anchor
        self._mewma = Mewma(reference, columns)
        self._etable = Etable(reference, columns)
        self._window = Window(reference.counts)
        self._edges = reference.edges.astype(np.float32)
        found = reference.thresholds
        self._classes = Classes(reference.classes, found.get(PREDICTION, 1.0))
        self._scopes = self._mewma.scopes
        self._inverse = [
            1 / max(found.get(scope, HIGHEST), LEAST_THRESHOLD)
            for scope in self._scopes
        ]
        self._ratios = [0.0] * len(self._scopes)
        self._bets = [0.0] * len(self._scopes)
        self._latches = [Latch(active=scope in latched) for scope in self._scopes]
        self._latched = any(latch.active for latch in self._latches)
        # Where nothing is compared, nothing could clear what was latched.
        held = PREDICTION in latched and self._classes.compared
        self._answers = Latch("chi2", active=held)

    @property
    def active(self) -> bool:
        """Whether any alarm is active."""
        return self._answers.active or self._latched

    def resume(self, confirmed: Collection[Scope], raised: Mapping[Scope, int]) -> None:
        """Go on from what was known of alarms before.

        Args:
            confirmed: Scopes whose alarm was confirmed; counts where it is latched.
            raised: Scope -> how often its alarm was raised before.
        """
        for scope, latch in self._every():
            latch.confirmed = latch.active and scope in confirmed
            latch.raised += raised.get(scope, 0)

    @property
    def note(self) -> str:
        """What is not compared though there are labels; empty if everything is."""
        if self._classes.compared or len(self.reference.classes) < 2:
            return ""
        return "predictions not compared: nearly all answers are one label"

    def update(self, rows: NDArray[np.floating], *, armed: bool) -> bool:
        """Take in 1 to ``STEP`` samples (n, d); return whether an alarm changed."""
        changed = False
        for statistics in self._mewma.update(rows):
            self._ratios = ratios = list(map(_multiply, statistics, self._inverse))
            # Most samples end here: none above, and nothing to clear.
            if self._latched or (armed and ratios and max(ratios) > 1):
                changed |= self._latch(ratios, armed=armed)
        return changed

    def _latch(self, ratios: Sequence[float], *, armed: bool) -> bool:
        """Raise and clear alarms; return whether one changed."""
        changed = False
        for at, (latch, ratio) in enumerate(zip(self._latches, ratios, strict=True)):
            if not latch.active and not (ratio > 1 and armed):
                continue
            # What the bets alone raised is not quiet while they still hold.
            held = latch.confirmed and self._bets[at] >= QUIET_RATIO
            least = max(ratio, QUIET_RATIO) if held else ratio
            change = latch.update(least if armed else min(least, 1.0))
            if change == "cleared":
                self._etable.restart(at)
            changed |= change != ""
        self._latched = any(latch.active for latch in self._latches)
        return changed

    def update_batch(
        self, rows: NDArray[np.float32], answers: Sequence[int], *, armed: bool
    ) -> bool:
        """Take in several samples (n, d) that ``update`` saw; True if one changed."""
        bins = find_bins(rows, self._edges)
        self._bets = self._etable.update(bins)
        changed = False
        for latch, ratio in zip(self._latches, self._bets, strict=True):
            if ratio >= 1 and armed:
                changed |= latch.confirm(ratio) != ""
                self._latched = True
        self._window.update(bins)
        for index in answers:
            if self._classes.update(index) and armed:
                ratio = self._classes.ratio
                changed |= self._answers.update(ratio, WINDOW_SAMPLES) != ""
        return changed

    def restart(self) -> None:
        """Forget what was averaged and bet; alarms stay until they are quiet."""
        self._ratios = [0.0] * len(self._scopes)
        self._bets = [0.0] * len(self._scopes)
        self._mewma.restart()
        self._etable.restart()
        self._window.restart()
        self._classes.restart()

    def scores(self, *, armed: bool) -> list[Score]:
        """Every statistic over its threshold; at most 1 where that is no alarm yet."""
        highest = HIGHEST if armed else 1.0
        said: list[tuple[Scope, Detector, float]] = []
        for at, scope in enumerate(self._scopes):
            said.append((scope, "mewma", self._ratios[at]))
            said.append((scope, "etable", self._bets[at]))
        if self._classes.compared:
            said.append((PREDICTION, "chi2", self._classes.ratio))
        return [
            Score(self._anchor, scope, detector, min(ratio, highest))
            for scope, detector, ratio in said
        ]

    def alarms(self) -> list[Alarm]:
        """Every alarm, active or not."""
        return [describe(self._anchor, scope, latch) for scope, latch in self._every()]

    def _every(self) -> list[tuple[Scope, Latch]]:
        """Every scope that is compared, and its alarm."""
        latches = list(zip(self._scopes, self._latches, strict=True))
        if self._classes.compared:
            latches.append((PREDICTION, self._answers))
        return latches

    def features(self) -> list[FeatureDrift]:
        """Each feature that is watched, beside its reference."""
        moving = self.reference.moving
        shift, psi, ks = self._mewma.shift(), self._window.psi, self._window.ks
        return [
            FeatureDrift(
                self._anchor, name, float(shift[at]), float(psi[at]), float(ks[at])
            )
            for at, name in enumerate(self.reference.features)
            if moving[at]
        ]


def describe(anchor: Anchor, scope: Scope, latch: Latch) -> Alarm:
    """Return a latch as others see it."""
    return Alarm(
        anchor,
        scope,
        active=latch.active,
        confirmed=latch.confirmed,
        raised=latch.raised,
        detector=latch.detector,
        score=min(latch.score, HIGHEST),
        evidence=min(latch.evidence, HIGHEST),
    )
