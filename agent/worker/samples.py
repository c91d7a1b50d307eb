"""Samples: the arrays that travel through the worker, and how they can be bad.

A sample is one array, or for models with several inputs a dict of input name to array.

The rules this module keeps:
 * ``InputError`` counts one sample as failed/input, ``OutputError`` as failed/output;
   neither ends the worker.
 * ``check_finite`` is exact: it never refuses finite values, however large.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.reasons import Reason
from agent.errors import DeviceError, TrialFailedError

Array = NDArray[Any]
Sample = Array | dict[str, Array]
Arrays = Sequence[Array]
Wrong = Literal["nan", "range", "shape"]

# One sample may take that much: a 16,384 x 5,461 RGB picture, or 17 minutes of float
# audio at 64 kHz. A header that claims more is a lie or a mistake.
MAX_SAMPLE_BYTES = 256 * 1024 * 1024
# Below it a BLAS dot product is the fastest test for NaN (0.4 us), and runs on the
# calling thread alone; larger ones may wake BLAS's thread pool.
_DOT_VALUES = 8192

_vdot = np.vdot
_isfinite = math.isfinite


class InputError(DeviceError):
    """The operator has to act: a sample does not become the model's input.

    Attributes:
        wrong: What with it, for the monitor: ``nan``, ``range``, or ``shape`` for all
            else that does not fit.
    """

    def __init__(self, message: str, *, todo: str = "", wrong: Wrong = "shape") -> None:
        super().__init__(message, reason=Reason.INPUT, todo=todo)
        self.wrong: Wrong = wrong


class OutputError(TrialFailedError):
    """The model's author has to act: an output does not become a prediction."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason=Reason.OUTPUT)


def check_finite(values: Array, what: str) -> None:
    """Refuse NaN and infinity in an array of floats.

    Raises:
        InputError: ``what`` has such a value; the message names the first.
    """
    if values.size <= _DOT_VALUES and _isfinite(_vdot(values, values)):
        return  # a sum of squares hides neither NaN nor infinity
    finite = np.isfinite(values)
    if finite.all():
        return  # squares of large values may overflow; the values are fine
    first = int(np.argmin(finite))
    name = "NaN" if np.isnan(values.flat[first]) else "infinity"
    raise InputError(
        f"{what} has {int(finite.size - finite.sum())} value(s) that are not finite: "
        f"{name} at position {first}",
        todo="Repair the sensor, or give the model task `raw` if it expects NaN.",
        wrong="nan",
    )
