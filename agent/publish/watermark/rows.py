"""Conditions on a head: which logits of which inputs have to be how far apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
EITHER, ALWAYS = -1, 2


@dataclass(frozen=True, slots=True)
class Rows:
    """Conditions, one row each: direction . logits(point) >= margin.

    Attributes:
        point: Which input each is about; triggers come first.
        direction: (rows, classes): 1 at one class, -1 at another.
        bit: The bit it is for, 0 or 1; ``EITHER``: turned around for 0; ``ALWAYS``.
        margin: In logits.
    """

    point: NDArray[np.int64]
    direction: Values
    bit: NDArray[np.int64]
    margin: Values

    @classmethod
    def of_pairs(cls, pairs: NDArray[np.int64], classes: int, margin: float) -> "Rows":
        """Return one row a trigger: its own two classes."""
        count = len(pairs)
        return cls(
            np.arange(count),
            pair_directions(pairs, classes),
            np.full(count, EITHER),
            np.full(count, margin),
        )

    def joined(self, more: "Rows") -> "Rows":
        """Return these rows, then the others."""
        return Rows(
            np.concatenate([self.point, more.point]),
            np.concatenate([self.direction, more.direction]),
            np.concatenate([self.bit, more.bit]),
            np.concatenate([self.margin, more.margin]),
        )

    def without_known(self, more: "Rows") -> "Rows":
        """Return those of other rows that are not among these."""
        known = set(self.told_apart())
        new = np.array([key not in known for key in more.told_apart()], bool)
        return Rows(
            more.point[new], more.direction[new], more.bit[new], more.margin[new]
        )

    def first(self, count: int) -> "Rows":
        """Return the first of these rows."""
        kept = slice(max(count, 0))
        return Rows(
            self.point[kept], self.direction[kept], self.bit[kept], self.margin[kept]
        )

    def signs(self, wanted: NDArray[np.bool_]) -> Values:
        """Return (boards, rows): 1 or -1 where a row counts, 0 where it does not.

        Args:
            wanted: (boards, n): which bit each trigger shall mean.
        """
        # Clean points have no bit; whatever stands for it is not looked at.
        told = wanted[:, np.where(self.bit == ALWAYS, 0, self.point)]
        signs = np.where(told, 1.0, -1.0)
        only = (told == self.bit).astype(np.float64)
        only[:, self.bit == ALWAYS] = 1.0
        return np.where(self.bit == EITHER, signs, only)

    def told_apart(self) -> list[tuple[int, ...]]:
        """Return what tells rows apart."""
        ends = self.direction.argmin(axis=1), self.direction.argmax(axis=1)
        return list(zip(*map(np.ndarray.tolist, (self.point, *ends)), strict=True))


def pair_directions(pairs: NDArray[np.int64], classes: int) -> Values:
    """Return (n, classes) with -1 at the first class of each pair, 1 at the second."""
    directions = np.zeros((len(pairs), classes))
    own = np.arange(len(pairs))
    directions[own, pairs[:, 0]] = -1.0
    directions[own, pairs[:, 1]] = 1.0
    return directions
