"""What a thief does to a copy: to all its weights, or to its head alone.

Every attack takes a model's layers (index of the constant -> real values) or its head
(classes, D + 1), and returns them changed. Features are real values of clean inputs
that the thief has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Layers = Mapping[int, NDArray[np.float32]]
LayerAttack = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]
BATCH = 32


@dataclass(frozen=True, slots=True)
class Loot:
    """What a thief has beside the copy.

    Attributes:
        features: (N, D + 1) of clean inputs, a last column of ones.
        labels: Their classes.
    """

    features: Values
    labels: NDArray[np.int64]


def add_noise(
    layer: NDArray[np.float32], random: np.random.Generator
) -> NDArray[np.float32]:
    """Add normal noise of 5 % of a layer's deviation."""
    noise = random.normal(0, 0.05 * float(layer.std()), layer.shape)
    return (layer + noise).astype(np.float32)


def prune(share: float) -> LayerAttack:
    """Return what sets the smallest weights of a layer to 0."""

    def attack(
        layer: NDArray[np.float32], _random: np.random.Generator
    ) -> NDArray[np.float32]:
        least = np.quantile(np.abs(layer), share)
        return np.where(np.abs(layer) < least, 0, layer).astype(np.float32)

    return attack


def requantise(bits: int) -> LayerAttack:
    """Return what rounds a layer to so many bits, with one scale for the layer."""

    def attack(
        layer: NDArray[np.float32], _random: np.random.Generator
    ) -> NDArray[np.float32]:
        scale = float(np.abs(layer).max()) / (2 ** (bits - 1) - 1) or 1.0
        return (np.rint(layer / scale) * scale).astype(np.float32)

    return attack


def fine_tune(
    head: Values, loot: Loot, rate: float, random: np.random.Generator
) -> Values:
    """Return the head after 3 epochs of Adam on cross entropy."""
    tuned = head.copy()
    mean, square = np.zeros_like(head), np.zeros_like(head)
    step = 0
    for _ in range(3):
        order = random.permutation(len(loot.labels))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            step += 1
            slope = _slope(tuned, loot.features[rows], loot.labels[rows])
            mean = 0.9 * mean + 0.1 * slope
            square = 0.999 * square + 0.001 * slope**2
            tuned -= (
                rate
                * (mean / (1 - 0.9**step))
                / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
            )
    return tuned


def project(head: Values, loot: Loot, kept: int) -> Values:
    """Return the head as far as it acts on the strongest components of clean inputs."""
    _, _, components = np.linalg.svd(loot.features, full_matrices=False)
    strong = components[:kept]
    projected: Values = head @ strong.T @ strong
    return projected


def refit(head: Values, loot: Loot, random: np.random.Generator) -> Values:
    """Return a new head, fitted to the copy's answers to 50 inputs (distillation)."""
    rows = random.choice(len(loot.labels), 50, replace=False)
    features = loot.features[rows]
    ridge = 1e-3 * np.trace(features.T @ features) / features.shape[1]
    inner = features.T @ features + ridge * np.eye(features.shape[1])
    fitted: Values = np.linalg.solve(inner, features.T @ (features @ head.T)).T
    return fitted


def _slope(head: Values, features: Values, labels: NDArray[np.int64]) -> Values:
    """Return the gradient of the mean cross entropy."""
    logits = features @ head.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(labels)), labels] -= 1
    slope: Values = shares.T @ features / len(labels)
    return slope
