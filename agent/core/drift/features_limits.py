"""Black and white of a picture, in the numbers that its tensor stores.

The rules this module keeps: limits come from what the manifest says, never from
pictures that were seen; where it does not say enough there are none.
"""

from collections.abc import Sequence

import numpy as np

from agent.core.drift.features_kinds import Runs
from agent.core.drift.packing import Floats
from agent.core.manifest import TensorSpec
from agent.core.steps import Normalise, Scale, Step

# Black and white of studio video (ITU-R BT.601) as parts of the range of a byte: what
# lies beyond is lost in the dark or burnt out, and noise does not reach it from within.
BLACK, WHITE = 16.0 / 255.0, 235.0 / 255.0
BYTE = 255.0
# Means and deviations of pictures from 0 to 1 are below it, those of bytes far above.
UNIT_SCALE = 2.0
BYTE_TYPES = ("uint8", "int8")

Limits = tuple[Floats, Floats]


def find_limits(spec: TensorSpec, steps: Sequence[Step], runs: Runs) -> Limits | None:
    """Return the stored values of black and of white, one of each channel, or None.

    None where pictures come as floats that no step brings to a range: 0 to 1 and 0 to
    255 cannot be told apart.
    """
    channels = runs.apart
    affine = [step for step in steps if isinstance(step, Scale | Normalise)]
    if not affine:
        return _rails(spec, channels)
    white = BYTE
    first = affine[0]
    if isinstance(first, Normalise):
        largest = max(map(abs, first.mean + first.std))
        white = 1.0 if largest <= UNIT_SCALE else BYTE
    ends = np.outer([BLACK * white, WHITE * white], np.ones(channels))
    for step in affine:
        if isinstance(step, Scale):
            ends = (ends - step.offset) * step.factor
        elif channels in {len(step.mean), len(step.std)} or (
            len(step.mean) == len(step.std) == 1
        ):
            ends = (ends - np.array(step.mean)) / np.array(step.std)
        else:
            return None  # such a model does not load: its channels are others
    return _stored(ends, spec)


def _rails(spec: TensorSpec, channels: int) -> Limits | None:
    """Return the limits of bytes: whatever they mean, they end with their type."""
    if spec.dtype not in BYTE_TYPES:
        return None
    lowest = np.iinfo(np.dtype(spec.dtype)).min
    black = np.full(channels, BLACK * BYTE + lowest)
    return black, black + (WHITE - BLACK) * BYTE


def _stored(ends: Floats, spec: TensorSpec) -> Limits:
    """Return real values as stored ones, the smaller first."""
    if spec.scale and not spec.dtype.startswith("float"):
        ends = ends / spec.scale + spec.zero_point
    return ends.min(axis=0), ends.max(axis=0)
