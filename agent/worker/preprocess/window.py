"""The sliding window: the one step with a memory.

Rows are written twice, ``length`` apart, into a ring of twice that length; so the last
``length`` rows always lie side by side, and a row costs two copies whatever the length.

The rules this module keeps:
 * What it returns is a copy: the ring is written again by the next sample.
 * A sample of another shape than the first is refused and changes nothing.
"""

import numpy as np

from agent.core.steps import Window
from agent.worker.samples import Array, InputError


class SlidingWindow:
    """Keeps the last ``length`` rows; answers every ``hop`` rows once it is full."""

    def __init__(self, step: Window) -> None:
        self._length, self._hop = step.length, step.hop
        self._many = step.sample_is == "rows"
        self._ring: Array | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all rows: the next answer comes after ``length`` more."""
        self._at = 0  # where the next row goes, in 0..length
        self._missing = self._length  # rows until the next answer

    def __call__(self, x: Array) -> Array | None:
        """Take a sample in; return the window (length, ...) if it is time, else None.

        A sample of several rows is answered once, even if it spans several hops.

        Raises:
            InputError: The sample's rows differ from those before.
        """
        rows = x if self._many and x.ndim else x[None]
        ring = self._ring_for(rows)
        self._write(ring, rows[-self._length :])
        self._missing -= len(rows)
        if self._missing > 0:
            return None
        self._missing = self._hop - (-self._missing) % self._hop
        return ring[self._at : self._at + self._length].copy()

    def _write(self, ring: Array, rows: Array) -> None:
        """Write at most ``length`` rows twice, going round where the ring ends."""
        at, length, count = self._at, self._length, len(rows)
        before = min(count, length - at)
        for start in (at, at + length):
            ring[start : start + before] = rows[:before]
        for start in (0, length):
            ring[start : start + count - before] = rows[before:]
        self._at = (at + count) % length

    def _ring_for(self, rows: Array) -> Array:
        """Return the ring, made when the first row shows its shape and type."""
        ring = self._ring
        if ring is None:
            shape = (2 * self._length, *rows.shape[1:])
            ring = self._ring = np.zeros(shape, rows.dtype)
        elif (ring.shape[1:], ring.dtype) != (rows.shape[1:], rows.dtype):
            raise InputError(
                f"window: a row is now {rows.dtype}{list(rows.shape[1:])}, "
                f"it was {ring.dtype}{list(ring.shape[1:])}"
            )
        return ring
