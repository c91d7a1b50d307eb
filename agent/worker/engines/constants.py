"""A model's constants: which tensors are weights, and where the runtime reads them.

``Interpreter.tensor`` gives a view of a tensor where it lies; a constant's lies in the
mapped file. Never on the sample path.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.worker.engines.failures import RAISED_BY_RUNTIMES

TABLE = 2  # dimensions from which on a constant is no bias


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant tensor: its name, its place in memory and its size in bytes.

    Attributes:
        flat: It has one dimension at most: a bias, a shape, an axis.
    """

    name: str
    address: int
    size: int
    flat: bool


def read_constants(
    interpreter: Any,  # noqa: ANN401 - the runtimes ship no types
    ranges: Sequence[tuple[int, int]],
) -> list[Constant]:
    """Return the tensors that lie in (first, size) ranges of memory: the file's."""
    found: list[Constant] = []
    for tensor in interpreter.get_tensor_details():
        with contextlib.suppress(*RAISED_BY_RUNTIMES):  # it has no memory of its own
            values = interpreter.tensor(tensor["index"])()
            address = int(values.ctypes.data)
            if any(first <= address < first + size for first, size in ranges):
                flat = values.ndim < TABLE
                name = str(tensor["name"])
                found.append(Constant(name, address, int(values.nbytes), flat))
    return found
