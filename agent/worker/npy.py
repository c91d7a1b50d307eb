"""The header of an .npy file, read by numpy's parser and by nothing it raises.

The rules this module keeps: whatever the bytes are, there is a header or a ValueError.
numpy evaluates the header as a Python literal, whose parser fails in its own ways.
"""

import tokenize
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

MAX_AXES = 32  # of numpy 1; numpy 2 has 64
FAILURES = (
    *(ValueError, TypeError, KeyError, EOFError, OverflowError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether it is stored by columns, and dtype.

    Args:
        file: At its start; afterwards where the values begin.

    Raises:
        ValueError: It is none, of an unknown version, or of an impossible shape.
    """
    try:
        version = npy.read_magic(file)
        if version == (1, 0):
            header = npy.read_array_header_1_0(file)
        elif version == (2, 0):
            header = npy.read_array_header_2_0(file)
        else:
            raise ValueError(f".npy version {version} is not read")
    except FAILURES as err:
        raise ValueError(f"no .npy header: {type(err).__name__}: {err}"[:200]) from err
    shape, fortran, dtype = header
    if len(shape) > MAX_AXES or any(size < 0 for size in shape):
        raise ValueError("an .npy header of an impossible shape")
    return shape, fortran, dtype
