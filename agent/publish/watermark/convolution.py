"""Sliding windows over pictures, differentiable: what convolutions and pools share.

One primitive with its own gradient: slicing window by window through autograd would
keep a zero-filled copy of the whole picture for each.
"""

from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive

Array = Any  # an autograd box or a numpy array


@dataclass(frozen=True, slots=True)
class Window:
    """A window's size, stride and dilation, each (rows, columns).

    Attributes:
        before: Rows and columns of padding before the picture; ``after`` behind it.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]


def fit_window(
    picture: tuple[int, int],
    size: tuple[int, int],
    stride: tuple[int, int],
    *,
    same: bool,
    dilation: tuple[int, int] = (1, 1),
) -> Window:
    """Return the window that pads as TensorFlow does (SAME: more behind)."""
    missing = (0, 0)
    if same:
        missing = tuple(  # type: ignore[assignment] # two of them
            max((-(-length // step) - 1) * step + (side - 1) * apart + 1 - length, 0)
            for length, side, step, apart in zip(
                picture, size, stride, dilation, strict=True
            )
        )
    before = (missing[0] // 2, missing[1] // 2)
    after = (missing[0] - before[0], missing[1] - before[1])
    return Window(size, stride, dilation, before, after)


def pad(pictures: Array, window: Window, fill: float) -> Array:
    """Return pictures (N, H, W, C) with the padding that a window asks for."""
    (top, left), (bottom, right) = window.before, window.after
    if not (top or left or bottom or right):
        return pictures
    width = ((0, 0), (top, bottom), (left, right), (0, 0))
    return anp.pad(pictures, width, "constant", constant_values=fill)


@primitive  # type: ignore[untyped-decorator] # autograd ships no types
def windows(pictures: Array, window: Window) -> Array:
    """Return every window of padded pictures: (N, OH, OW, rows * columns, C)."""
    return np.stack(
        [pictures[place] for place in _places(pictures.shape, window)], axis=3
    )


def _scatter(_answer: Array, pictures: Array, window: Window) -> Any:  # noqa: ANN401 - the shape autograd asks for
    """Return the gradient of ``windows``: every window's share added in its place."""
    shape, dtype = pictures.shape, pictures.dtype

    def back(gradient: Array) -> Array:
        total = np.zeros(shape, dtype)
        for number, place in enumerate(_places(shape, window)):
            total[place] += gradient[:, :, :, number, :]
        return total

    return back


defvjp(windows, _scatter, argnums=(0,))


def _places(shape: tuple[int, ...], window: Window) -> list[tuple[slice, ...]]:
    """Return, for each cell of a window, the slice of the pictures it sees."""
    _, height, width, _ = shape
    (rows, columns), (down, across) = window.size, window.dilation
    last_row = height - (rows - 1) * down
    last_column = width - (columns - 1) * across
    return [
        (
            slice(None),
            slice(row * down, row * down + last_row, window.stride[0]),
            slice(column * across, column * across + last_column, window.stride[1]),
        )
        for row in range(rows)
        for column in range(columns)
    ]
