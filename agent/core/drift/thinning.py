"""One in how many samples to watch, so that they remember little of each other.

Thresholds hold for samples with a lag-1 autocorrelation of the reference's target.
A stream begins with a burst of consecutive samples in which memory is measured; until
that is done, detectors collect but no alarm is raised (a drift from the first sample on
is found then). Spacing is widened at once when watched samples turn out to remember
each other, and narrowed slowly, after another burst.

The rules this module keeps:
 * Only samples at least ``spacing`` apart are for the detectors; a caller that cannot
   watch so often (its budget) may leave out more.
 * What happens in one block, a drift or a cut, decides nothing: medians of blocks do.
"""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.correlation import (
    autocorrelation,
    correlated,
    wanted_spacing,
)
from agent.core.drift.mewma import Whitener

# Long enough to see the decay of a correlation of 0.95, short enough that a drift is
# inside one block only.
BURST_SAMPLES = 128
BURST_BLOCKS = 4  # the fewest whose median ignores one and still averages
SPACED_SAMPLES = 64  # of spaced samples only lag 1 is looked at
SPACED_BLOCKS = 3
REMEMBERED_BLOCKS = 8
WIDER = 1.5
NARROWER = 0.7  # at a time: narrowing is a guess, widening is known
# Blocks of spaced samples from a burst to the next, which doubles: the first spacing
# may be far too wide, and a burst of 512 samples costs what 8 blocks do.
FIRST_CALM_BLOCKS = 8
CALM_BLOCKS = 64
# Of the blocks of a stream without memory one in so many is looked at: a look takes as
# long as ten samples.
LOOK_EVERY = 4
# Gaps of samples that differ by more belong to different streams of pairs.
OTHER_GAP = 1.25


def next_prime(number: int) -> int:
    """Return the smallest prime that is not below it; 1 stays 1.

    A source that goes round (four cameras in turn, a lamp that blinks) is seen in all
    its phases by a spacing that shares no factor with its period.
    """
    if number <= 1:
        return 1
    while any(number % part == 0 for part in range(2, math.isqrt(number) + 1)):
        number += 1
    return number


class Thinning:
    """Measures memory and says which samples count.

    Args:
        width: Features of a sample.
        target: Lag-1 autocorrelation that samples that count may have.
        whiten: Features (n, d) to directions (n, m) in which memory is measured.

    Attributes:
        spacing: At least so many samples from one that counts to the next.
        autocorrelation: Measured at lag 1 of samples that count, 0 before.
        trusted: Memory has been measured: alarms may be raised.
    """

    def __init__(self, width: int, target: float, whiten: Whitener) -> None:
        self.spacing = 1
        self.autocorrelation = 0.0
        self.trusted = False
        self._target = target
        self._whiten = whiten
        self._rows = np.zeros((BURST_SAMPLES, width), whiten.kept)
        self._seqs = np.zeros(BURST_SAMPLES, np.int64)
        self._at = 0
        self._burst = True
        self._full = BURST_SAMPLES
        self._blocks: deque[NDArray[np.float16]] = deque(maxlen=REMEMBERED_BLOCKS)
        self._gap = 1.0
        self._calm = 0
        self._patience = FIRST_CALM_BLOCKS
        self._next = 0
        self._idle_until = 0

    @property
    def interval(self) -> int:
        """One in so many samples should be observed now."""
        return 1 if self._burst else self.spacing

    def counts(self, seq: int) -> bool:
        """Return whether the sample of this number is for the detectors."""
        if seq < self._next:
            return False
        self._next = seq + self.spacing
        return True

    def update(self, row: NDArray[np.floating], seq: int, *, counted: bool) -> bool:
        """Take in a sample's standardised features; return whether spacing widened."""
        if seq < self._idle_until or not (counted or self._burst):
            return False
        at = self._at
        self._whiten.shrink(row, self._rows[at])
        self._seqs[at] = seq
        self._at = at + 1
        return self._at == self._full and self._close()

    def _close(self) -> bool:
        """Judge a full block; return whether spacing widened."""
        rows, seqs = self._rows[: self._full], self._seqs[: self._full]
        self._at = 0
        gap = float(np.median(np.diff(seqs)))
        if not 1 / OTHER_GAP < gap / self._gap < OTHER_GAP:
            self._blocks.clear()
        self._gap = max(gap, 1.0)
        measured = autocorrelation(self._whiten.directions(rows))
        self._blocks.append(measured.astype(np.float16))  # of 1, a thousandth
        return self._judge_burst(int(seqs[-1])) if self._burst else self._judge_spaced()

    def _judge_burst(self, seq: int) -> bool:
        """After enough consecutive blocks, choose the spacing."""
        if len(self._blocks) < BURST_BLOCKS:
            return False
        before = self.spacing
        rows = wanted_spacing(list(self._blocks), BURST_SAMPLES, self._target)
        wanted = 1 if rows == 1 else round(rows * self._gap)
        least = int(NARROWER * before) if self.trusted else 1
        self.spacing = next_prime(max(wanted, least))
        self.trusted = True
        if self.spacing == 1:
            # Every sample counts: the burst goes on, and watches for memory to come.
            self._publish()
            skipped = (LOOK_EVERY - 1) * BURST_SAMPLES * self._gap
            self._idle_until = int(seq + skipped)
            return False
        self._start(burst=False)
        return self.spacing > before

    def _judge_spaced(self) -> bool:
        """Widen if samples that count remember each other; measure anew when calm."""
        self._publish()
        self._calm += 1
        if len(self._blocks) >= SPACED_BLOCKS:
            blocks = list(self._blocks)
            if correlated(blocks, SPACED_SAMPLES, self._target) is not None:
                self.spacing = next_prime(math.ceil(self.spacing * WIDER))
                self._start(burst=False)
                return True
        if self._calm >= self._patience:
            self._patience = min(2 * self._patience, CALM_BLOCKS)
            self._start(burst=True)
        return False

    def _publish(self) -> None:
        """Say what lag-1 autocorrelation the samples that count have."""
        first = np.median([block[0] for block in self._blocks], axis=0).astype(float)
        self.autocorrelation = min(max(float(first.mean()), -1.0), 1.0)

    def _start(self, *, burst: bool) -> None:
        """Begin blocks of the other kind."""
        self._burst = burst
        self._full = BURST_SAMPLES if burst else SPACED_SAMPLES
        self._blocks.clear()
        self._calm = 0
