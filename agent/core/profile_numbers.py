"""Arrays of a profile, read without numpy: sizes, finite values, order.

The rules this module keeps: every function raises ``ValueError`` with a message that
names the array, and nothing else, for any bytes.
"""

import struct
from itertools import pairwise

FLOAT_BYTES = 4
LARGEST = 1e30  # its square still fits a float64, and so does a sum of many


def triangle(side: int) -> int:
    """Return how many values the lower triangle of a square matrix has.

    >>> triangle(3)
    6
    """
    return side * (side + 1) // 2


def read_floats(raw: bytes, count: int, name: str) -> tuple[float, ...]:
    """Return ``count`` finite little-endian float32 values.

    >>> read_floats(struct.pack("<2f", 0.5, -2), 2, "mean")
    (0.5, -2.0)

    Raises:
        ValueError: There are more or fewer, or one is NaN, infinite or beyond 1e30.
    """
    _check_size(raw, count, name)
    values = struct.unpack(f"<{count}f", raw)
    if not all(abs(value) <= LARGEST for value in values):  # NaN compares false
        raise ValueError(f"{name}: a value is not finite, or beyond {LARGEST:g}")
    return values


def read_counts(raw: bytes, count: int, name: str) -> tuple[int, ...]:
    """Return ``count`` little-endian uint32 values.

    Raises:
        ValueError: There are more or fewer.
    """
    _check_size(raw, count, name)
    return struct.unpack(f"<{count}I", raw)


def check_within(values: tuple[float, ...], low: float, high: float, name: str) -> None:
    """Check ``low <= value <= high`` of every value.

    Raises:
        ValueError: One is not.
    """
    if not all(low <= value <= high for value in values):
        raise ValueError(f"{name}: a value is not within {low:g} to {high:g}")


def check_rising(values: tuple[float, ...], width: int, name: str) -> None:
    """Check that no value is below the one before it, in rows of ``width``.

    Raises:
        ValueError: One is.
    """
    for at in range(0, len(values), width):
        if any(right < left for left, right in pairwise(values[at : at + width])):
            raise ValueError(f"{name}: row {at // width} falls")


def check_sums(values: tuple[int, ...], width: int, total: int, name: str) -> None:
    """Check that every row of ``width`` counts adds up to ``total``.

    Raises:
        ValueError: One does not.
    """
    for at in range(0, len(values), width):
        found = sum(values[at : at + width])
        if found != total:
            raise ValueError(f"{name}: row {at // width} has {found} of {total}")


def side_of(raw: bytes, name: str) -> int:
    """Return how many float32 values these bytes are.

    Raises:
        ValueError: Some bytes are left over.
    """
    if len(raw) % FLOAT_BYTES:
        raise ValueError(f"{name}: {len(raw)} bytes are no float32 values")
    return len(raw) // FLOAT_BYTES


def is_positive(values: tuple[float, ...]) -> bool:
    """Return whether any value is above 0.

    >>> is_positive((0.0, 0.5)), is_positive((0.0,)), is_positive(())
    (True, False, False)
    """
    return any(value > 0 for value in values)


def _check_size(raw: bytes, count: int, name: str) -> None:
    """Check that these are ``count`` values of four bytes."""
    if len(raw) != FLOAT_BYTES * count:
        raise ValueError(
            f"{name}: {len(raw)} bytes, {count} values of {FLOAT_BYTES} are needed"
        )
