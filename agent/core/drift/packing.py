"""Arrays as a profile keeps them: little-endian bytes, triangles without their zeros.

The rules this module keeps:
 * Law: what is unpacked was packed, rounded to float32.
 * Sizes are checked by ``agent.core.profile``, which needs no numpy for it.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STORED = np.dtype("<f4")
STORED_COUNT = np.dtype("<u4")


def pack_floats(values: NDArray[np.floating]) -> bytes:
    """Return values as float32, row by row."""
    return np.ascontiguousarray(values, STORED).tobytes()


def unpack_floats(raw: bytes, *shape: int) -> Floats:
    """Return float32 bytes as a float64 array of a shape, of which one may be -1."""
    return np.frombuffer(raw, STORED).reshape(shape).astype(np.float64)


def pack_counts(counts: NDArray[np.integer]) -> bytes:
    """Return counts as uint32, row by row."""
    return np.ascontiguousarray(counts, STORED_COUNT).tobytes()


def unpack_counts(raw: bytes, *shape: int) -> NDArray[np.int64]:
    """Return uint32 bytes as an int64 array of a shape."""
    return np.frombuffer(raw, STORED_COUNT).reshape(shape).astype(np.int64)


def pack_triangle(matrix: NDArray[np.floating]) -> bytes:
    """Return the lower triangle of a square matrix, diagonal included, row by row."""
    return pack_floats(matrix[np.tril_indices(len(matrix))])


def unpack_triangle(raw: bytes, *, symmetric: bool = False) -> Floats:
    """Return a square matrix from its lower triangle.

    Args:
        raw: As ``pack_triangle`` made it.
        symmetric: The part above the diagonal mirrors the other; otherwise it is 0.
    """
    lower = np.frombuffer(raw, STORED)
    side = (int(np.sqrt(8 * lower.size + 1)) - 1) // 2
    matrix = np.zeros((side, side))
    matrix[np.tril_indices(side)] = lower
    return matrix + np.tril(matrix, -1).T if symmetric else matrix


def lower_factor(matrix: Floats) -> Floats:
    """Return lower triangular L with ``L @ L.T == matrix @ matrix.T``.

    Distances whitened by either are the same; a triangle is half as large.
    """
    if not np.triu(matrix, 1).any():
        return matrix
    return np.linalg.qr(matrix.T)[1].T
