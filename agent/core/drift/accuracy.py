"""Estimated accuracy without labels: average thresholded confidence (ATC).

Garg et al., "Leveraging unlabeled data to predict out-of-distribution performance"
(2022): the confidence above which as many held-out answers lay as were right; the share
of answers above it now estimates the share that is right now. Its direction can be
trusted, its size cannot (a hard shift from .95 to .43 was estimated as .76): an
indicator, never an alarm.
"""

from agent.core.drift.windows import WINDOW_SAMPLES

UNKNOWN = -1.0


class Accuracy:
    """The share of answers above the threshold, over about one window."""

    __slots__ = ("_samples", "_share", "_threshold")

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._share = 0.0
        self._samples = 0

    def update(self, confidence: float) -> None:
        """Take in an answer's confidence; below 0 it has none."""
        if self._threshold < 0 or not confidence >= 0:
            return
        self._samples += 1
        # A plain mean until a window is full, then the window's weight.
        weight = 1 / min(self._samples, WINDOW_SAMPLES)
        above = 1.0 if confidence >= self._threshold else 0.0
        self._share += weight * (above - self._share)

    @property
    def value(self) -> float:
        """Share in [0, 1], or -1 before a fifth of a window is known."""
        if self._samples < WINDOW_SAMPLES // 5:
            return UNKNOWN
        return min(max(self._share, 0.0), 1.0)
