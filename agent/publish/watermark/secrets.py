"""What a version's triggers are, as the book keeps them: one .npz for each variant.

The rules this module keeps:
 * Nothing is unpickled, and equal values give equal bytes.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.core.container import render_container
from agent.publish.watermark.graph import Array, Real


@dataclass(frozen=True, slots=True, repr=False)
class VariantSecret:
    """One variant's triggers and shipped head.

    Attributes:
        triggers: (n, ...), as the model stores them; those for activation first.
        real: The same in real units, float32: what another runtime would be fed.
        features: (n, D): what the shipped body makes of them, in real units.
        pairs: (n, 2): the classes of each.
        head: (classes, D + 1): the shipped head, bias last.
    """

    triggers: Array
    real: Real
    features: Real
    pairs: NDArray[np.int64]
    head: Real

    def render(self) -> bytes:
        """Return the .npz."""
        return render_arrays(
            {
                "triggers": self.triggers,
                "real": self.real,
                "features": self.features,
                "pairs": self.pairs,
                "head": self.head,
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> "VariantSecret":
        """Return what ``render`` wrote."""
        with np.load(io.BytesIO(raw), allow_pickle=False) as kept:
            return cls(*(kept[name] for name in cls.__slots__))


def render_arrays(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Return an .npz, stored and without timestamps."""
    entries: dict[str, bytes | memoryview] = {}
    for name, values in arrays.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(
            buffer, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False
        )
        entries[f"{name}.npy"] = buffer.getvalue()
    return render_container(entries)
