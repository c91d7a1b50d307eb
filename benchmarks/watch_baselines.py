"""Other detectors on the same streams, for scale: textbook KS, and ADWIN.

They see the very features that the product's reader read. KS is that of "Failing
Loudly" (Rabanser et al. 2019) on the answers: two features of the confidence, windows
of 250; its threshold is found on the null streams themselves, which flatters it. ADWIN
takes its defaults, and the rows are left out where river is not installed.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.drift_scenarios import DigitWorld
from benchmarks.drift_scenarios_shifts import KNOWN
from benchmarks.rows import Row
from benchmarks.watch_runs import MISSED, PRE, Found, geometric_mean, mean_recall, pick
from benchmarks.watch_subjects import see_digits, watch_digits

WINDOW = 250  # samples of a KS test
STRIDE = 10  # samples between two looks at the window
NULL_STREAMS = 20  # of 10,000 samples: two of them lie above the quantile
Floats = NDArray[np.float64]
Detect = Callable[[Floats], int]


def baseline_rows(world: DigitWorld, runs: int) -> list[Row]:
    """Return delay and recall of other detectors on the known shifts."""
    watched = watch_digits(world, world.pool_a, 11)
    random = np.random.default_rng(51)
    reader = watched.reader
    reference = see_digits(reader, world, world.pool_a, 2000, random=random).values
    null = see_digits(reader, world, world.pool_b, 10_000, random=random)
    softmax = reader.columns["output"]
    quiet = [pick(null, 10_000, random).values for _ in range(NULL_STREAMS)]
    limit = float(
        np.quantile([_ks_path(one, reference, softmax).max() for one in quiet], 0.9)
    )

    def ks(stream: Floats) -> int:
        over = np.flatnonzero(_ks_path(stream, reference, softmax) > limit)
        over = over[over * STRIDE + WINDOW > PRE]
        return int(over[0]) * STRIDE + WINDOW - PRE if len(over) else MISSED

    detectors: dict[str, Detect] = {"KS of confidence, windows of 250": ks}
    adwin = _adwin()
    if adwin is not None:
        detectors["ADWIN of each feature"] = adwin
    found: dict[str, list[Found]] = {name: [] for name in detectors}
    for shift in KNOWN:
        looks = see_digits(reader, world, world.pool_b, 2000, shift, random=random)
        streams = [
            pick(null, PRE, random).then(pick(looks, MISSED, random)).values
            for _ in range(runs)
        ]
        for name, detect in detectors.items():
            delays = tuple(min(detect(stream), MISSED) for stream in streams)
            found[name].append(Found(shift.name, delays))
    rows = []
    for name, every in found.items():
        delay, recall = geometric_mean(every), mean_recall(every)
        rows += [
            Row("watch", f"for scale: {name}: delay, gm of medians", delay, "samples"),
            Row("watch", f"for scale: {name}: recall", recall, ""),
        ]
    return rows


def _ks_path(stream: Floats, reference: Floats, columns: NDArray[np.intp]) -> Floats:
    """Return the largest KS distance of each window, every ``STRIDE`` samples."""
    starts = range(0, len(stream) - WINDOW + 1, STRIDE)
    ordered = [np.sort(reference[:, column]) for column in columns]
    return np.array(
        [
            max(
                stats.ks_2samp(
                    *(stream[start : start + WINDOW, column], ordered[place]),
                    method="asymp",
                ).statistic
                for place, column in enumerate(columns)
            )
            for start in starts
        ]
    )


def _adwin() -> Detect | None:
    """Return river's ADWIN with its defaults on each feature; None without river."""
    if importlib.util.find_spec("river") is None:
        return None
    drift: Any = importlib.import_module("river.drift")

    def detect(stream: Floats) -> int:
        firsts = []
        for column in stream.T.tolist():
            adwin = drift.ADWIN()
            for at, value in enumerate(column):
                adwin.update(value)
                if adwin.drift_detected and at >= PRE:
                    firsts.append(at + 1 - PRE)
                    break
        return min(firsts, default=MISSED)

    return detect
