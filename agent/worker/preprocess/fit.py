"""The last step before the model: an array becomes exactly the tensor it has to be.

The rules this module keeps:
 * Axes of length 1 may be added or left out (the batch, the one channel of a
   spectrogram); otherwise shapes have to be equal. Nothing is ever cut or padded.
 * ``io = raw``: the tensor's own dtype passes untouched; floats are quantised with the
   tensor's scale and zero point. ``io = float``: every number is a real value, whatever
   its dtype, and is quantised where the tensor is.
 * Anything else is an ``InputError`` that names both sides.
"""

from typing import Literal

import numpy as np

from agent.core.manifest import TensorSpec
from agent.worker.samples import Array, InputError, check_finite


class Fit:
    """Makes arrays fit one input tensor."""

    def __init__(self, spec: TensorSpec, io: Literal["raw", "float"]) -> None:
        self.spec = spec
        self.dtype = np.dtype(spec.dtype)
        self.shape = spec.shape
        self._squeezed = _squeeze(spec.shape)
        self._seen = spec.shape  # the last shape that differed only in its ones
        self._floats = self.dtype.kind == "f"
        self._quantised = not self._floats and spec.scale > 0
        self._all_real = io == "float"
        # float32 division, as the reference kernels' QUANTIZE does.
        self._scale = np.float32(spec.scale)
        self._zero = np.float32(spec.zero_point)
        if self._quantised:
            limits = np.iinfo(self.dtype)
            self._low, self._high = np.float32(limits.min), np.float32(limits.max)
            self._real = np.zeros(spec.shape, np.float32)

    @property
    def passes_own_dtype(self) -> bool:
        """Whether an array of the tensor's dtype and shape is used as it is."""
        return not (self._quantised and self._all_real)

    def __call__(self, x: Array) -> Array:
        """Return ``x`` as the tensor's dtype and shape.

        Raises:
            InputError: It does not fit.
        """
        x = self._shaped(x)
        if x.dtype == self.dtype and self.passes_own_dtype:
            return x
        if x.dtype.kind not in "fiub":
            raise self._misfit(x)
        if x.dtype.kind != "f" and not self._all_real:
            raise self._misfit(x)
        if self._floats:
            return x.astype(self.dtype)
        return self._quantise(x) if self._quantised else self._whole(x)

    def _shaped(self, x: Array) -> Array:
        """Add or leave out axes of length 1."""
        if x.shape == self.shape:
            return x
        if x.shape != self._seen:
            if _squeeze(x.shape) != self._squeezed:
                raise self._misfit(x)
            self._seen = x.shape
        return x.reshape(self.shape)

    def _quantise(self, x: Array) -> Array:
        """Return ``round(x / scale) + zero_point``, clipped to the dtype's range."""
        real = np.divide(x, self._scale, out=self._real, casting="unsafe")
        np.rint(real, out=real)
        np.add(real, self._zero, out=real)
        np.maximum(real, self._low, out=real)
        np.minimum(real, self._high, out=real)
        check_finite(real, self.spec.name)  # only NaN survives the clipping
        return real.astype(self.dtype)

    def _whole(self, x: Array) -> Array:
        """Return real values as an unquantised integer tensor, if they are whole."""
        with np.errstate(invalid="ignore"):  # what is out of range compares unequal
            y = x.astype(self.dtype)
        if not np.array_equal(x, y):
            raise InputError(
                f"{self.spec.name}: {self.dtype} takes whole numbers in its range only",
                wrong="range",
            )
        return y

    def _misfit(self, x: Array) -> InputError:
        """Say what came, what is needed, and what would help."""
        return InputError(
            f"{self.spec.name}: got {x.dtype}{list(x.shape)}, the model takes "
            f"{self.dtype}{list(self.shape)}",
            todo="Add preprocess steps (scale, cast, resize...), or set io = float.",
        )


def _squeeze(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its axes of length 1."""
    return tuple(length for length in shape if length != 1)
