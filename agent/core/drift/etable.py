"""A table e-detector: bets against the reference's ranks, with a proven alarm rate.

Each feature's rank in the reference is bet on in eight ways: higher or lower, further
from the middle or nearer to it, boldly or carefully. A bet pays at most what is fair as
long as the feature's mean rank stays within ``eps`` of the reference's, so the
Shiryaev-Roberts sum of its winnings M (``M <- (1 + M) * pay``) exceeds a threshold A
no sooner than after A samples in the mean, whatever the samples' distribution; and so
does an average of such sums (Shin, Ramdas, Rinaldo, "E-detectors", 2022).

The rules this module keeps:
 * Samples come in batches: M is looked at after the last of each, which stops no
   sooner than looking always, so the promise holds.
 * A sum that alarmed stays at the threshold, at most, as long as samples go on to win:
   started again it would fall silent in between, and the same drift alarm anew. Whoever
   clears the alarm starts it again, from 0.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.mewma import dimensions
from agent.core.drift.opened import Columns, Floats, OpenReference
from agent.core.profile import BINS
from agent.core.watching import Scope

THRESHOLD = 1e5  # samples between false alarms that the theory promises, at least
# Stakes, of the most that cannot ruin: the careful one finds a mean rank that moved by
# a twentieth, the bold one a jump to the edge of the reference within thirty samples.
STAKES = (0.25, 0.8)
BETS = 4 * len(STAKES)
# Far above the threshold; sixteen samples make 12,000 of 1 at most, and seventy lanes
# of eight are added: still below what float32 holds.
CAP = 1e30

# Scores are kept in half precision, which moves a number of at most 1 no further.
ROUNDED = 2.0**-12

_CAP = np.array(CAP, np.float32)
_LOG_THRESHOLD = math.log(THRESHOLD)
_SIGNED = np.array([sign * stake for stake in STAKES for sign in (1.0, -1.0)])
_STAKED = _SIGNED.astype(np.float32)[:, None, None]


def rank_scores(counts: NDArray[np.int64]) -> Floats:
    """(d, 16, 2) scores of a sample in each bin: rank and spread, each in [-1/2, 1/2].

    Both have mean 0 over the reference (d, 16). ``OpenReference.eps`` must bound the
    mean of either, up or down, that is tolerated for a feature.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rank = np.cumsum(share, axis=1) - share / 2 - 0.5
    distance = np.abs(rank)
    spread = distance - (share * distance).sum(axis=1, keepdims=True)
    # Twice, so that a uniform rank gives a spread as wide as the rank itself; less for
    # a feature of few values. Clipped it would not have mean 0 any more.
    widest = np.abs(spread).max(axis=1, keepdims=True)
    scale = np.minimum(2.0, 0.5 / np.maximum(widest, 0.25))
    scores = np.stack([rank, scale * spread], axis=2)
    # Sums of shares end a last bit beyond the edge.
    bounded: Floats = np.clip(scores, -0.5, 0.5)
    return bounded


def bet_table(counts: NDArray[np.int64], eps: Floats) -> Floats:
    """(d, 16, 8) what each bet pays for a sample in each bin.

    Law: with samples of a mean score within eps, no bet pays more than 1 in the mean.
    """
    rounded, kept = _scaled(counts, eps)
    scaled = rounded.astype(np.float64)
    pays = np.stack([kept[at] + bet * scaled for at, bet in enumerate(_SIGNED)])
    return pays.transpose(2, 3, 0, 1).reshape(*counts.shape, BETS)


def _scaled(
    counts: NDArray[np.int64], eps: Floats
) -> tuple[NDArray[np.float16], Floats]:
    """(2, d, 16) scores over the most they can be, and (4, 1, d, 1) what to add.

    What a bet pays is the latter and its stake times the former. What rounding may add
    to a mean score is tolerated like eps: the bets that run are the fair ones.
    """
    bound = 0.5 + eps
    scores = rank_scores(counts).transpose(2, 0, 1) / bound[:, None]
    kept = 1 - np.abs(_SIGNED)[:, None] * (eps / bound + ROUNDED)
    return scores.astype(np.float16), kept[:, None, :, None]


class Etable:
    """The e-detectors of one anchor: one for each feature and bet, averaged by scope.

    Attributes:
        scopes: Those it has columns for, in the order of ``update``'s answer.
    """

    def __init__(self, reference: OpenReference, columns: Columns) -> None:
        self.scopes: tuple[Scope, ...] = tuple(dimensions(reference, columns))
        every = np.arange(len(reference.features))
        moving = reference.moving
        lanes = [
            part[moving[part]]
            for scope in self.scopes
            for part in (every if scope == "all" else columns[scope],)
        ]
        ends = np.cumsum([0, *(len(lane) for lane in lanes)])
        self._slices = [slice(*pair) for pair in pairwise(ends)]
        self._starts = ends[:-1]
        self._shares = 1 / (BETS * np.maximum(np.diff(ends), 1))
        # One lane for each feature in each scope: a scope that alarmed starts again
        # while the others go on.
        self._lanes = np.concatenate([*lanes, np.zeros(0, np.intp)]).astype(np.intp)
        scores, kept = _scaled(reference.counts, reference.eps)
        self._scores = scores.reshape(2, -1)
        self._kept = kept[..., 0].astype(np.float32)
        self._first_rows = every * BINS
        self._sums = np.zeros((BETS, len(self._lanes)), np.float32)

    def update(self, bins: NDArray[np.intp]) -> list[float]:
        """Take in samples' bins (n, d); return ``log(M)/log(THRESHOLD)`` by scope."""
        rows = bins[::-1] + self._first_rows
        scores = self._scores.take(rows, axis=1).astype(np.float32)
        pays = np.multiply(scores.swapaxes(0, 1)[:, None], _STAKED)
        pays += self._kept
        runs = pays.reshape(len(bins), -1)
        # M after n samples is M0 * p1..pn + p1..pn + p2..pn + ... + pn. Products from
        # the last sample backwards; numpy's accumulate takes three times as long.
        for later, earlier in pairwise(runs):
            np.multiply(earlier, later, out=earlier)
        return self._add(runs)

    def _add(self, runs: NDArray[np.float32]) -> list[float]:
        """Add what samples from the last backwards won (n, 8d) to every lane."""
        gained = np.add.reduce(runs, axis=0).reshape(BETS, -1)
        sums = self._sums
        sums *= runs[-1].reshape(BETS, -1).take(self._lanes, axis=1)
        sums += gained.take(self._lanes, axis=1)
        np.minimum(sums, _CAP, out=sums)
        if not self._slices:
            return []
        lanes = np.add.reduce(sums, axis=0)
        means = (np.add.reduceat(lanes, self._starts) * self._shares).tolist()
        ratios = []
        for part, mean in zip(self._slices, means, strict=True):
            # Below 1 there is nothing to say, and its logarithm may be none.
            ratios.append(math.log(max(mean, 1.0)) / _LOG_THRESHOLD)
            if mean > THRESHOLD:
                sums[:, part] *= THRESHOLD / mean
        return ratios

    def restart(self, scope: int | None = None) -> None:
        """Forget all winnings, or those of one scope by its place in ``scopes``."""
        self._sums[:, slice(None) if scope is None else self._slices[scope]] = 0.0
