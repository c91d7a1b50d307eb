"""Streams whose truth is known: small camera frames of digits, clean and shifted.

Frames are scikit-learn's digits as a cheap camera might see them, 32x32 in 8 bits, with
a random place, gain, brightness and noise. A small network answers them as a quantised
model would: softmax in int8, and the layer before it as a second output.

The rules this module keeps:
 * Source images are split once: training, reference (pool A) and stream (pool B) share
   none, since frames of one digit resemble each other as frames of one site do.
 * Chance comes from generators that are passed in; the same seed, the same frames.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.drift_scenarios_shifts import Shift

Frames: TypeAlias = "NDArray[np.float32]"
Sources: TypeAlias = "NDArray[np.intp]"
SIDE = 32  # pixels of a frame
NOVEL = 9  # a digit that the network never saw
TRAIN, POOL_A, POOL_B = 600, 500, 517  # source images; 1,617 digits are no 9
ROAM = 1  # pixels that a digit may lie off the centre
# What one frame differs by from the next, in grey levels: a cheap camera that
# regulates its exposure.
GAIN_SD, BRIGHTNESS_SD, NOISE_SD = 0.05, 6.0, 6.0
BACKGROUND, INK = 40.0, 150.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What the network says to some frames.

    Attributes:
        softmax: (n, 9) int8, scale 1/256 and zero point -128, as TFLite emits it.
        inner: (n, 32) float32 of the layer before the last.
        index: (n) of the largest probability; ``score`` (n) that probability.
    """

    softmax: "NDArray[np.int8]"
    inner: "NDArray[np.float32]"
    index: "NDArray[np.intp]"
    score: "NDArray[np.float64]"


class DigitWorld:
    """A camera, a network and three pools of source images that share none."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self.labels = digits.target.astype(np.intp)
        self.windows = _windows(digits.images.astype(np.float32) / 16)
        shuffled = np.random.default_rng(3).permutation(len(self.labels))
        known = shuffled[self.labels[shuffled] != NOVEL]
        self.train, self.pool_a, self.pool_b = np.split(known, [TRAIN, TRAIN + POOL_A])
        self.novel = shuffled[self.labels[shuffled] == NOVEL]
        self.layers = self._fit()

    def frames(
        self, sources: Sources, shift: "Shift", random: np.random.Generator
    ) -> "NDArray[np.uint8]":
        """Return (n, 32, 32) frames of these source images, seen with a shift."""
        count = len(sources)
        place = random.integers(0, 2 * ROAM + 1, (2, count))
        seen = BACKGROUND + INK * self.windows[sources, place[0], place[1]]
        seen = shift.optics(seen)
        gain = random.normal(1, GAIN_SD, (count, 1, 1)).astype(np.float32)
        light = random.normal(0, BRIGHTNESS_SD, (count, 1, 1)).astype(np.float32)
        seen = seen * gain + light
        seen += random.standard_normal(seen.shape, np.float32) * np.float32(NOISE_SD)
        seen = shift.camera(seen, random)
        return np.clip(np.rint(seen), 0, 255).astype(np.uint8)

    def draw(
        self, pool: Sources, count: int, shift: "Shift", random: np.random.Generator
    ) -> Sources:
        """Return source images of a pool as a shift of the world chooses them."""
        drawn = random.choice(pool, count)
        if shift.prior:  # one digit becomes more frequent
            often = pool[self.labels[pool] == shift.digit]
            chosen = random.random(count) < shift.prior
            rest = pool[self.labels[pool] != shift.digit]
            drawn = np.where(
                chosen, random.choice(often, count), random.choice(rest, count)
            )
        if shift.novel:
            strange = random.random(count) < shift.novel
            drawn = np.where(strange, random.choice(self.novel, count), drawn)
        return drawn

    def answer(self, frames: "NDArray[np.uint8]") -> Answers:
        """Return what the network says, quantised."""
        (w1, b1), (w2, b2), (w3, b3) = self.layers
        hidden = np.maximum(_look(frames) @ w1 + b1, 0)
        inner = np.maximum(hidden @ w2 + b2, 0).astype(np.float32)
        logits = inner @ w3 + b3
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        softmax = np.clip(np.rint(shares * 256) - 128, -128, 127).astype(np.int8)
        index = softmax.argmax(1)
        top = softmax[np.arange(len(softmax)), index]
        return Answers(softmax, inner, index, (top.astype(np.float64) + 128) / 256)

    def accuracy(self, sources: Sources, answers: Answers) -> float:
        """Return the share of right answers; a novel digit is always wrong."""
        return float(np.mean(self.labels[sources] == answers.index))

    def _fit(self) -> list[tuple[Frames, Frames]]:
        """Train the network: 64 and 32 neurons, on 4 frames of each source."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        from benchmarks.drift_scenarios_shifts import NONE

        random = np.random.default_rng(4)
        sources = np.repeat(self.train, 4)
        frames = self.frames(sources, NONE, random)
        network: Any = MLPClassifier(
            (64, 32), alpha=1e-3, max_iter=40, random_state=5, batch_size=128
        )
        with warnings.catch_warnings():
            # Forty rounds are enough for what is asked of it here.
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(_look(frames), self.labels[sources])
        pairs = zip(network.coefs_, network.intercepts_, strict=True)
        return [(w.astype(np.float32), b.astype(np.float32)) for w, b in pairs]


@cache
def digit_world() -> DigitWorld:
    """Return the one world of this process: the network takes seconds to train."""
    return DigitWorld()


def _windows(images: Frames) -> Frames:
    """Enlarge (n, 8, 8) images to 24 pixels and return all places in a frame."""
    at = np.clip((np.arange(24) + 0.5) / 3 - 0.5, 0, 7)
    low = np.minimum(at.astype(int), 6)
    spread = np.zeros((24, 8), np.float32)
    spread[np.arange(24), low] = 1 - (at - low)
    spread[np.arange(24), low + 1] = at - low
    large = np.einsum("ai,nij,bj->nab", spread, images, spread, optimize=True)
    margin = (SIDE - 24) // 2 + ROAM
    canvas = np.pad(large, ((0, 0), (margin, margin), (margin, margin)))
    view = np.lib.stride_tricks.sliding_window_view(canvas, (SIDE, SIDE), (1, 2))
    return np.ascontiguousarray(view)


def _look(frames: "NDArray[np.uint8]") -> Frames:
    """Return (n, 256): what the network sees, each value the mean of 2x2 pixels."""
    small = frames.reshape(-1, SIDE // 2, 2, SIDE // 2, 2).mean((2, 4), np.float32)
    # Centred and near unit spread: it learns in half the rounds.
    level: Frames = (small.reshape(len(frames), -1) - np.float32(80)) / np.float32(60)
    return level
