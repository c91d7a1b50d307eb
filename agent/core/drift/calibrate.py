"""Finds thresholds for a reference: how far its own sources drift from each other.

A threshold is the 90 % quantile of the largest statistic in 10,000 null samples. They
come from sources that the reference half has not seen, over many random halves: from
the same sources, thresholds false-alarm 17 times as often as they say on a board that
sees others. Halves differ more than the whole differs from a board with as many
sources, so what is promised is kept with room.

The rules this module keeps:
 * What could not be calibrated is said in ``notes``, and in the word of calibration.
 * Chance is passed in: the same data and generator give the same thresholds.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from agent.core.drift.calibrate_delays import Delay, expected_delays
from agent.core.drift.calibrate_plan import HeldOut, make_plan
from agent.core.drift.calibrate_streams import Rows
from agent.core.drift.calibrate_trials import Trials
from agent.core.drift.opened import Floats, OpenReference
from agent.core.drift.site import MOST_ROWS

SPLITS = 100  # halves, and as many streams: ten of them lie above the quantile
QUANTILE = 0.9
# A site's baseline is of the source that is watched: nothing leaves room there, so four
# scopes share the one alarm in ten streams.
SITE_QUANTILE = 0.975
MIN_SAMPLES = 100  # halves of fewer do not tell 30 dimensions

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What calibration found.

    Attributes:
        reference: Complete but for its digest.
        groups: Known sources of the samples.
        interval: One in so many samples of the recording was used; 1 without one.
        delays: Samples until an alarm, by shift; for people.
        notes: What could not be calibrated; for people.
    """

    reference: OpenReference
    groups: int
    interval: int
    delays: tuple[Delay, ...]
    notes: tuple[str, ...]


def calibrate(
    held_out: HeldOut,
    random: np.random.Generator,
    *,
    site_count: int = 2000,
    splits: int = SPLITS,
    progress: Progress = lambda _done, _total: None,
) -> Calibrated:
    """Fit a reference to held-out data and find the thresholds to use it with.

    Args:
        held_out: At least ``MIN_SAMPLES`` samples.
        random: Where halves and streams come from.
        site_count: Samples of the baselines that boards collect; they are fitted to
            ``MOST_ROWS`` at most.
        splits: Random halves; fewer are faster and rougher.
        progress: Told after each split: (done, of all).

    Raises:
        ValueError: Too few samples.
    """
    if len(held_out.values) < MIN_SAMPLES:
        raise ValueError(
            f"{len(held_out.values)} samples are too few, {MIN_SAMPLES} are needed"
        )
    site_count = min(site_count, MOST_ROWS)
    plan = make_plan(held_out)
    trials = Trials(held_out, plan, random)
    halves, sites, apart = [], [], []
    for split in range(splits):
        largest, far = trials.try_halves()
        halves.append(largest)
        apart.append(far)
        sites.append(trials.try_site(site_count))
        progress(split + 1, splits)
    every: Rows = np.arange(len(held_out.values), dtype=np.intp)
    confidence, accuracy = _accuracy(held_out)
    reference = replace(
        trials.fit(every),
        eps=np.max(apart, axis=0),
        thresholds=_quantiles(halves, QUANTILE),
        site_thresholds=_quantiles(sites, SITE_QUANTILE),
        site_count=site_count,
        target=plan.target,
        autocorrelation=plan.autocorrelation,
        calibration=plan.calibration,
        confidence=confidence,
        accuracy=accuracy,
    )
    delays = expected_delays(held_out.values, reference, held_out.columns, random)
    return Calibrated(reference, plan.groups, plan.interval, delays, plan.notes)


def _quantiles(largest: list[dict[str, float]], share: float) -> Mapping[str, float]:
    """Return the quantile of each scope's largest statistics, over all trials."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in largest:
        for scope, value in one.items():
            found[scope].append(value)
    return {
        # For classes theory has a threshold, and this is a factor beside it that is
        # only ever raised: by sources that differ in what they show.
        scope: max(
            float(np.quantile(values, share, method="higher")),
            1.0 if scope == "prediction" else 0.0,
        )
        for scope, values in found.items()
    }


def _accuracy(held_out: HeldOut) -> tuple[float, float]:
    """Return the ATC threshold and the accuracy behind it; -1 without labels.

    As many answers lie at it or above as were right (Garg et al. 2022).
    """
    confidence, right = held_out.confidence, held_out.right
    if confidence is None or right is None:
        return -1.0, -1.0
    accuracy = float(right.mean())
    levels: Floats = np.unique(confidence)
    shares = 1 - np.searchsorted(np.sort(confidence), levels) / len(confidence)
    # Stored confidences repeat: the level whose share comes nearest.
    return float(levels[np.abs(shares - accuracy).argmin()]), accuracy
