"""Turning heads: the least change that makes triggers answer with given bits.

    min tr(dW C dW^T)   subject to   z_right - z_wrong >= margin on every trigger

C is the second moment of the clean features, so the cost is by how much the logits of
clean inputs change. In whitened coordinates the dual has one multiplier a trigger, and
one matrix K that is the same for all boards: only the signs of its rows differ. Many
boards are solved at once, multiplier by multiplier.

Source: Hildreth 1957, "A quadratic programming procedure".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.publish.watermark.rows import ALWAYS, Rows, Values, pair_directions

RIDGE = 1e-3  # of the mean eigenvalue: clean inputs do not span all features
SWEEPS = 150  # Hildreth's converges linearly; most boards are done after 40
BLOCK = 32  # multipliers between two products with the rest of K: fits the cache
# Where clean inputs and triggers contradict each other there is no end of conditions;
# the gate then judges what the first of them achieve.
MAX_ROWS = 1500
ROUNDS = 6  # of adding third classes that came too near; three are usual
# Share of its lead that the class of a clean input keeps; a model that is seldom sure
# has no room for more, and one that is has its leads above the next number anyway.
KEPT = 0.5
KEPT_LOGITS = 1.0  # no more than this of a lead is kept
SLACK = 0.01  # logits by which a condition is broken before it is held
DONE = 1e-3  # logits by which a margin may still be missed


@dataclass(frozen=True, slots=True)
class Whitening:
    """Coordinates in which clean features, with a 1 for the bias, have moment I.

    Attributes:
        inverse: (D + 1, D + 1), upper triangular: white = [features, 1] @ inverse.
    """

    inverse: Values

    @classmethod
    def of(cls, features: NDArray[Any]) -> "Whitening":
        """Learn it from features (N, D) of clean inputs."""
        clean = _with_one(features)
        moment = clean.T @ clean / len(clean)
        ridge = RIDGE * np.trace(moment) / len(moment)
        factor = np.linalg.cholesky(moment + ridge * np.eye(len(moment)))
        return cls(np.linalg.inv(factor).T)

    def spread(self, features: Any) -> Any:  # noqa: ANN401 - autograd's boxes, too
        """Return features (N, D) in these coordinates, (N, D + 1)."""
        return features @ self.inverse[:-1] + self.inverse[-1]


@dataclass(frozen=True, slots=True)
class HeadProblem:
    """What all boards of a version share.

    Points are the triggers, and behind them the clean inputs.

    Attributes:
        white: Whitened features of the points, (n + N, D + 1).
        before: Their logits with the shipped head, (n + N, classes).
        pairs: The two classes between which each trigger lies: of bit 0, of bit 1.
        bits: The bit of every class.
        back: From whitened weights to weights.
    """

    white: Values
    before: Values
    pairs: NDArray[np.int64]
    bits: NDArray[np.bool_]
    back: Values

    @classmethod
    def of(
        cls,
        clean: NDArray[Any],
        triggers: NDArray[Any],
        pairs: NDArray[np.int64],
        weights: NDArray[Any],
        groups: str,
    ) -> "HeadProblem":
        """Prepare it.

        Args:
            clean: Features of clean inputs, (N, D), in real units.
            triggers: Features of the triggers, (n, D).
            pairs: See above.
            weights: The shipped head, (classes, D + 1).
            groups: The bit of every class.
        """
        whitening = Whitening.of(clean)
        points = np.concatenate([triggers, clean])
        return cls(
            white=np.asarray(whitening.spread(points), np.float64),
            before=_with_one(points) @ weights.T.astype(np.float64),
            pairs=pairs,
            bits=np.array([bit == "1" for bit in groups]),
            back=whitening.inverse.T,
        )

    def solve(self, wanted: NDArray[np.bool_], margin: float) -> Values:
        """Return the change of the head for many boards, (boards, classes, D + 1).

        First only each trigger's own two classes are held apart. What then comes too
        near on some board is held, too, and all is solved again: third classes of a
        trigger, and clean inputs that would change their class.

        Args:
            wanted: (boards, n): which bit each trigger shall mean.
            margin: Logits between the right class of a trigger and each wrong one.
        """
        rows = Rows.of_pairs(self.pairs, len(self.bits), margin)
        pushed = np.zeros((len(wanted), len(rows.point)))
        for _ in range(ROUNDS):
            pushed = _hildreth(self, rows, rows.signs(wanted), pushed)
            change = self._change(rows, pushed)
            more = rows.without_known(self._near(change, wanted, margin))
            more = more.first(MAX_ROWS - len(rows.point))
            if not len(more.point):
                break
            rows = rows.joined(more)
            pushed = np.pad(pushed, ((0, 0), (0, len(more.point))))
        return self._change(rows, pushed) @ self.back

    def _change(self, rows: Rows, pushed: Values) -> Values:
        """Return the whitened change of the head, (boards, classes, D + 1)."""
        white = self.white[rows.point]
        shape = len(pushed), rows.direction.shape[1], white.shape[1]
        left = pushed[:, None, :] * rows.direction.T[None]
        return (left.reshape(-1, len(white)) @ white).reshape(shape)

    def _near(self, change: Values, wanted: NDArray[np.bool_], margin: float) -> Rows:
        """Return the rows that are broken on some board and no pair's own."""
        count, own = len(self.pairs), np.arange(len(self.before))
        best = self.before.argmax(axis=1)
        least = KEPT * (self.before[own, best][:, None] - self.before)
        least = np.minimum(least, KEPT_LOGITS)
        broken = np.zeros((2, *self.before.shape), bool)
        for turned, bits in zip(change, wanted, strict=True):
            logits = self.before + self.white @ turned.T
            right = self.pairs[own[:count], bits.astype(int)]
            apart = logits[own[:count], right][:, None] - logits[:count]
            wrong = self.bits[None, :] != bits[:, None]
            for told in (0, 1):
                here = wrong & (bits == bool(told))[:, None]
                broken[told, :count] |= here & (apart < margin - SLACK)
            apart = logits[own, best][:, None] - logits
            broken[0, count:] |= (apart < least - SLACK)[count:]
        broken[:, own[:count], self.pairs[:, 0]] = False
        broken[:, own[:count], self.pairs[:, 1]] = False
        broken[0, own[count:], best[count:]] = False
        bit, point, other = np.nonzero(broken)
        clean = point >= count
        paired = self.pairs[np.where(clean, 0, point), bit]
        return Rows(
            point,
            pair_directions(
                np.column_stack([other, np.where(clean, best[point], paired)]),
                len(self.bits),
            ),
            np.where(clean, ALWAYS, bit),
            np.where(clean, least[point, other], margin),
        )


def _hildreth(
    problem: HeadProblem, rows: Rows, signs: Values, pushed: Values
) -> Values:
    """Return the signed multipliers of many boards, (boards, rows).

    Multiplier i of a board with sign s keeps s * it >= 0, and wants
    s * (before_i + (K multipliers)_i) >= margin_i.

    Args:
        problem: What all boards share.
        rows: The conditions.
        signs: (boards, rows): which of them count, and which way around.
        pushed: Where to begin; as ``signs`` allows.
    """
    white = problem.white[rows.point]
    kernel = (white @ white.T) * (rows.direction @ rows.direction.T)
    before = (problem.before[rows.point] * rows.direction).sum(axis=1)
    pushed = pushed.copy()
    reached = before + pushed @ kernel
    steep = np.maximum(np.diag(kernel), 1e-12)
    for _ in range(SWEEPS):
        for start in range(0, len(before), BLOCK):
            block = slice(start, start + BLOCK)
            was = pushed[:, block].copy()
            _turn(
                (pushed[:, block], reached[:, block].copy(), signs[:, block]),
                kernel[block, block] / steep[block],
                (rows.margin[block], steep[block]),
            )
            reached += (pushed[:, block] - was) @ kernel[block]
        if ((rows.margin - signs * reached) * np.abs(signs)).max() < DONE:
            break
    return pushed


def _turn(
    state: tuple[Values, Values, Values],
    inner: Values,
    wanted: tuple[Values, Values],
) -> None:
    """Move the multipliers of one block once, one after the other, in place."""
    now, here, signs = state
    margin, steep = wanted
    for place in range(len(inner)):
        sign = signs[:, place]
        lacking = margin[place] - sign * here[:, place]
        best = np.maximum(sign * now[:, place] * steep[place] + lacking, 0.0)
        change = sign * best - now[:, place] * steep[place]
        now[:, place] += change / steep[place]
        # Rows of the block's kernel are divided by their own steepness already.
        here += change[:, None] * inner[:, place]


def _with_one(features: NDArray[Any]) -> Values:
    """Return features with a last column of ones, for the bias."""
    return np.column_stack([features, np.ones(len(features))]).astype(np.float64)
