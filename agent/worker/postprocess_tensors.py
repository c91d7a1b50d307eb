"""What tasks share: which tensor they read, real values, JSON's spelling."""

import numpy as np

from agent.core.manifest import Manifest, TensorSpec, Variant
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.samples import Array, OutputError


def chosen_output(manifest: Manifest, variant: Variant) -> int:
    """Return the position of the output to read: the named, or the first not state.

    Raises:
        TrialFailedError: There is none (``contract``).
    """
    name = manifest.postprocess.output
    fed_back = {link.output for link in manifest.state}
    for position, spec in enumerate(variant.outputs):
        if spec.name == name or (not name and spec.name not in fed_back):
            return position
    raise misfit(f"no output is called {name!r}" if name else "all outputs are state")


def affine(spec: TensorSpec) -> tuple[float, int]:
    """Return (scale, zero point) such that ``real = scale * (stored - zero)``."""
    return (spec.scale, spec.zero_point) if spec.scale else (1.0, 0)


def dequantise(tensor: Array, spec: TensorSpec) -> Array:
    """Return real values as float32; tensors without quantisation as they are."""
    if not spec.scale:
        return tensor
    real = tensor.astype(np.float32)
    real -= np.float32(spec.zero_point)
    real *= np.float32(spec.scale)
    return real


def believed(score: float) -> float:
    """Return a score that is a number.

    Raises:
        OutputError: It is NaN.
    """
    if score != score:  # noqa: PLR0124 - the definition of NaN
        raise OutputError("the model answered NaN")
    return score


def listed(tensor: Array) -> object:
    """Return an array as nested lists; what JSON has no number for is None."""
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        gaps = ~np.isfinite(tensor)
        tensor = tensor.astype(object)
        tensor[gaps] = None
    return tensor.tolist()


def misfit(what: str) -> TrialFailedError:
    """Return the error for outputs that do not suit the task."""
    return TrialFailedError(f"postprocess: {what}", reason=Reason.CONTRACT)
