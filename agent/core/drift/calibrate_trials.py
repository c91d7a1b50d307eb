"""One trial: a reference, a null stream against it, and how far its statistics went.

The rules this module keeps:
 * Statistics are those of the monitor itself, never a second spelling of them.
"""

from dataclasses import replace

import numpy as np

from agent.core.drift.answers import MAX_LABELS
from agent.core.drift.calibrate_plan import HeldOut, Plan
from agent.core.drift.calibrate_streams import (
    Rows,
    draw_blocks,
    draw_sticky,
    split_groups,
)
from agent.core.drift.classes import Classes
from agent.core.drift.etable import rank_scores
from agent.core.drift.fitting import find_bins, fit_reference
from agent.core.drift.mewma import mewma_path
from agent.core.drift.opened import Floats, OpenReference

NULL_SAMPLES = 10_000  # of one stream: 90 % without an alarm are 0.1 alarms in 10,000
# Rows that a half's reference is fitted to. What differs between halves is their
# sources; a long recording's twenty thousand rows would take minutes to say the same.
FITTED = 4000


class Trials:
    """Makes trials out of held-out data."""

    def __init__(
        self, held_out: HeldOut, plan: Plan, random: np.random.Generator
    ) -> None:
        self._held_out = held_out
        self._plan = plan
        self._random = random
        # As a board counts them: the same pool of all labels beyond the last counter.
        self._answers = np.minimum(held_out.index, MAX_LABELS)
        self._labels = min(held_out.classes, MAX_LABELS + 1)

    def try_halves(self) -> tuple[dict[str, float], Floats]:
        """Compare one half of the sources with the other.

        Returns:
            Largest statistic by scope, and how far mean rank scores lie apart (d).
        """
        halves = split_groups(self._plan.sources, self._random)
        reference = self.fit(_spread(halves.reference))
        bins = find_bins(self._held_out.values[halves.stream], reference.edges)
        scores = rank_scores(reference.counts)[np.arange(bins.shape[1]), bins]
        apart = np.abs(scores.mean(axis=0)).max(axis=1)
        return self._largest(reference, halves.stream), apart

    def try_site(self, count: int) -> dict[str, float]:
        """Compare samples with a baseline of ``count`` from the same sources."""
        rows = np.arange(len(self._held_out.values), dtype=np.intp)
        mine = self._streams(rows, count)[0]
        return self._largest(self.fit(mine), rows)

    def fit(self, rows: Rows) -> OpenReference:
        """Fit a reference to these rows, answers included."""
        held_out = self._held_out
        reference = fit_reference(held_out.features, held_out.values[rows])
        index, labels = self._answers[rows], self._labels
        named = index[(index >= 0) & (index < labels)]
        answers = np.bincount(named, minlength=labels) if labels else ()
        return replace(reference, classes=tuple(int(n) for n in answers))

    def _largest(self, reference: OpenReference, rows: Rows) -> dict[str, float]:
        """Return the largest statistic of each scope over null streams."""
        held_out = self._held_out
        largest: dict[str, float] = {}
        for drawn in self._streams(rows, NULL_SAMPLES):
            paths = mewma_path(held_out.values[drawn], reference, held_out.columns)
            for scope, path in paths.items():
                largest[scope] = max(largest.get(scope, 0.0), float(path.max()))
            if self._labels > 1:
                ratio = _worst_window(reference, self._answers[drawn])
                largest["prediction"] = max(largest.get("prediction", 0.0), ratio)
        return largest

    def _streams(self, rows: Rows, count: int) -> list[Rows]:
        """Return null streams from these rows, as correlated as the target.

        Of an ordered recording there are two, and the worse one counts: its own
        stretches, and repeats at the target. Parts of one recording share sources, and
        stretches alone alarmed in 2 of 30 streams of other sources.
        """
        plan, random = self._plan, self._random
        streams = [draw_sticky(rows, count, plan.target, random)]
        if plan.runs is not None:
            blocks = draw_blocks(rows, plan.runs, plan.interval, count, random)
            if blocks is not None:
                streams.insert(0, blocks)
        return streams


def _spread(rows: Rows) -> Rows:
    """Return at most ``FITTED`` of the rows, evenly spread."""
    return rows[:: max(1, -(-len(rows) // FITTED))]


def _worst_window(reference: OpenReference, index: Rows) -> float:
    """Return the largest chi-squared of a window, over what theory gives."""
    answers = Classes(reference.classes)
    return max(
        (answers.ratio for label in index.tolist() if answers.update(label)),
        default=0.0,
    )
