"""Steps on any array: normalise, scale, cast.

The rules this module keeps:
 * No step writes to its argument, and none writes again to what it has returned.
 * What does not depend on the sample is computed when the step is built.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from agent.core.reasons import Reason
from agent.core.steps import Cast, Fill, Normalise, Scale
from agent.errors import TrialFailedError
from agent.worker.samples import Array, InputError, check_finite

Transform = Callable[[Array], Array]


def build_scale(step: Scale) -> Transform:
    """Return ``(x - offset) * factor`` as float32."""
    factor = np.float32(step.factor)
    if step.offset == 0:
        return lambda x: np.multiply(x, factor, dtype=np.float32, casting="unsafe")
    offset = np.float32(step.offset)

    def scale(x: Array) -> Array:
        y = np.subtract(x, offset, dtype=np.float32, casting="unsafe")
        return np.multiply(y, factor, out=y)

    return scale


def build_fill(step: Fill) -> Transform:
    """Return what puts a value where there is no finite one; never in place."""
    value = np.float32(step.value)

    def fill(x: Array) -> Array:
        finite = np.isfinite(x)
        return x if finite.all() else np.where(finite, x, value).astype(x.dtype)

    return fill


def build_normalise(step: Normalise) -> Transform:
    """Return ``(x - mean) / std`` per entry of the last axis, as float32.

    Raises:
        TrialFailedError: A ``std`` is 0, or there are as many means as no stds
            (``contract``).
    """
    channels = max(len(step.mean), len(step.std))
    if {len(step.mean), len(step.std)} - {1, channels}:
        raise misfit(f"normalise: {len(step.mean)} means but {len(step.std)} stds")
    if 0.0 in step.std:
        raise misfit("normalise: std 0 divides by nothing")
    mean = np.array(step.mean, np.float32)
    std = np.array(step.std, np.float32)

    def normalise(x: Array) -> Array:
        if channels > 1 and (x.ndim == 0 or x.shape[-1] != channels):
            raise InputError(f"normalise: {channels} channels, but shape {x.shape}")
        y = np.subtract(x, mean, dtype=np.float32, casting="unsafe")
        return np.divide(y, std, out=y)

    return normalise


def build_cast(step: Cast) -> Transform:
    """Return a conversion that rounds half to even and clips to the range."""
    if step.dtype == "float32":
        return lambda x: x.astype(np.float32)
    dtype: np.dtype[np.integer[Any]] = np.dtype(step.dtype)

    def cast(x: Array) -> Array:
        return round_to(x, dtype)

    return cast


def round_to(x: Array, dtype: np.dtype[np.integer[Any]]) -> Array:
    """Return ``x`` as integers of ``dtype``: half to even, clipped to its range.

    Raises:
        InputError: A value is NaN, which no integer means.
    """
    limits = np.iinfo(dtype)
    if x.dtype.kind != "f":
        return np.clip(x, limits.min, limits.max).astype(dtype)
    y = np.rint(x)
    # float32 holds the limits of all types up to int16 exactly; NaN passes the clip.
    np.clip(y, limits.min, limits.max, out=y)
    check_finite(y, f"cast to {dtype}: the array")
    return y.astype(dtype)


def misfit(what: str) -> TrialFailedError:
    """Return the error for a step that contradicts itself: its author has to act."""
    return TrialFailedError(f"preprocess: {what}", reason=Reason.CONTRACT)
