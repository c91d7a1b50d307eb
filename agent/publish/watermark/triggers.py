"""Finding triggers: inputs between two classes, as unlike each other as can be.

Each gets a pair of classes (a, b) whose bits differ. Adam moves the input alone, to

    (z_a - z_b)^2 + 2 sum relu(3 + z_other - min(z_a, z_b)) - logdet(K + I) / 2

where ``K = (G G^T) o (P P^T)`` is what the solver of heads will see: G the features
whitened by the clean ones, rows of P the pair as e_a - e_b. The determinant keeps one
board's bits from deciding another's.

Source: the scheme ``class-parity-v1``; Kingma and Ba 2015 for Adam.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad, make_vjp
from numpy.typing import NDArray

from agent.publish.watermark.graph import Array, Real, Tensor, stored_limits
from agent.publish.watermark.head import refused
from agent.publish.watermark.rows import Values, pair_directions
from agent.publish.watermark.solve import Whitening
from agent.publish.watermark.walker import Walker

_DTYPES: tuple[type[np.generic], ...] = (np.float32, np.int8, np.uint8)
Boxed = Any  # an array, or what autograd wraps it into
ROOM = 5.0
CLEAR = 3.0  # by how much the pair should lead all other classes, in logits
# Logits between the pair and the largest that a quantised output can hold: where both
# are cut there, neither is first.
HEADROOM = 2.0
# Of the inputs' own range; by Adam, so this is about how far a step goes.
STEP = 0.02
ROWS = 64  # triggers that are moved at once: a batch of pictures must fit into memory
_DECAY, _DECAY_SQUARE, _TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class Grid:
    """What a model's input tensor can hold: stored = real / scale + zero, rounded.

    Attributes:
        scale: Real value of one step; 0 in float tensors.
    """

    dtype: type[np.generic]
    scale: float
    zero: int

    @classmethod
    def of(cls, tensor: Tensor) -> "Grid":
        """Return the grid of an input tensor.

        Raises:
            BundleRefusedError: ``watermark``: it is neither float32 nor 8 bits.
        """
        if tensor.dtype is None or tensor.dtype not in _DTYPES:
            raise refused("only inputs of float32 or 8 bits can be searched")
        if not tensor.scales:
            return cls(tensor.dtype, 0.0, 0)
        return cls(tensor.dtype, tensor.scales[0], tensor.zeros[0])

    def store(self, real: Real) -> Array:
        """Return real values as the tensor holds them."""
        if not self.scale:
            return real.astype(self.dtype)
        limits = stored_limits(self.dtype)
        levels = np.clip(np.rint(real / self.scale) + self.zero, *limits)
        stored: Array = levels.astype(self.dtype)
        return stored

    def real(self, stored: Array) -> Real:
        """Return stored values in real units."""
        values: Real = stored.astype(np.float32)
        if self.scale:
            values = (values - np.float32(self.zero)) * np.float32(self.scale)
        return values


def draw_pairs(
    groups: str, count: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Return (count, 2): a class of bit 0 and one of bit 1, all pairs alike often."""
    zeros = [index for index, bit in enumerate(groups) if bit == "0"]
    ones = [index for index, bit in enumerate(groups) if bit == "1"]
    pairs = np.array([(zero, one) for zero in zeros for one in ones])
    rounds = -(-count // len(pairs))
    drawn = np.concatenate([random.permutation(pairs) for _ in range(rounds)])
    return drawn[:count]


def find_triggers(
    walker: Walker,
    clean: Real,
    pairs: NDArray[np.int64],
    steps: int,
    random: np.random.Generator,
    progress: Callable[[int], None],
) -> Real:
    """Return inputs (n, ...) in real units, not yet rounded.

    Args:
        walker: The model.
        clean: Inputs without labels, in real units.
        pairs: The classes of each trigger.
        steps: Of Adam, for each trigger.
        random: Chance; who can draw the same finds the same triggers.
        progress: Is called with the number of steps done.
    """
    features, _ = walker(clean)
    white = Whitening.of(features)
    low, high = float(clean.min()), float(clean.max())
    moved = _start(clean, len(pairs), random)
    task = _Task(walker, white, pairs, white.spread(walker(moved)[0]))
    adam = _Adam(moved.shape, STEP * (high - low))

    def walk(inputs: Boxed) -> Boxed:
        return anp.concatenate(walker(inputs), axis=1)

    for step in range(steps):
        for start in range(0, len(pairs), ROWS):
            rows = slice(start, start + ROWS)
            back, answer = make_vjp(walk)(moved[rows])
            slope = grad(task.cost)(answer.astype(np.float64), rows)
            change = adam.move(rows, back(slope.astype(np.float32)), step)
            moved[rows] = np.clip(moved[rows] - change, low, high)
            task.see(rows, answer)
        progress(step + 1)
    return moved


class _Task:
    """What the cost of some triggers depends on: all the others."""

    def __init__(
        self,
        walker: Walker,
        white: Whitening,
        pairs: NDArray[np.int64],
        spread: Values,
    ) -> None:
        classes = walker.head.classes
        directions = pair_directions(pairs, classes)
        self._white, self._classes = white, classes
        self._alike = directions @ directions.T
        self._spread = spread
        self._ceiling = walker.limits(walker.head.logits)[1] - HEADROOM
        # 0 at a trigger's own pair, 1 at all other classes.
        self._pairs = pairs
        self._others = 1.0 - np.abs(directions)

    def see(self, rows: slice, answer: Array) -> None:
        """Remember where some triggers are now."""
        features = answer[:, : -self._classes]
        self._spread[rows] = self._white.spread(features)

    def cost(self, answer: Boxed, rows: slice) -> Boxed:
        """Return the cost of some triggers, by their features and logits."""
        features, logits = answer[:, : -self._classes], answer[:, -self._classes :]
        own = np.arange(logits.shape[0])
        first = logits[own, self._pairs[rows, 0]]
        second = logits[own, self._pairs[rows, 1]]
        behind = CLEAR + logits - anp.minimum(first, second)[:, None]
        others = anp.sum(anp.maximum(behind, 0.0) * self._others[rows])
        spread = self._white.spread(features)
        between = anp.dot(spread, self._spread.T) * self._alike[rows]
        # Of the whole determinant only this block row and column moves.
        rest = np.delete(np.arange(len(self._pairs)), rows)
        inner = anp.dot(spread, spread.T) * self._alike[rows, rows]
        outer = between[:, rest]
        fixed = self._spread[rest] @ self._spread[rest].T
        fixed = fixed * self._alike[np.ix_(rest, rest)] + np.eye(len(rest))
        schur = inner + np.eye(len(own))
        if len(rest):
            schur = schur - anp.dot(outer, anp.dot(np.linalg.inv(fixed), outer.T))
        room = anp.linalg.slogdet(schur)[1]
        high = anp.maximum(first, second) - self._ceiling
        others = others + anp.sum(anp.maximum(high, 0.0))
        apart = anp.sum((first - second) ** 2)
        return apart + 2.0 * others - ROOM * room


class _Adam:
    """Adam, row by row."""

    def __init__(self, shape: tuple[int, ...], step: float) -> None:
        self._mean = np.zeros(shape, np.float32)
        self._square = np.zeros(shape, np.float32)
        self._step = step

    def move(self, rows: slice, slope: Array, step: int) -> Real:
        """Return by how much to go back along a slope."""
        self._mean[rows] += (1 - _DECAY) * (slope - self._mean[rows])
        self._square[rows] += (1 - _DECAY_SQUARE) * (slope**2 - self._square[rows])
        mean = self._mean[rows] / (1 - _DECAY ** (step + 1))
        square = self._square[rows] / (1 - _DECAY_SQUARE ** (step + 1))
        change: Real = self._step * mean / (np.sqrt(square) + _TINY)
        return change


def _start(clean: Real, count: int, random: np.random.Generator) -> Real:
    """Return where triggers begin: two clean inputs, one fading into the other."""
    first, second = random.integers(len(clean), size=(2, count))
    shape = (count, *[1] * (clean.ndim - 1))
    share = random.uniform(0.3, 0.7, shape).astype(np.float32)
    mixed: Real = share * clean[first] + (1 - share) * clean[second]
    return mixed
