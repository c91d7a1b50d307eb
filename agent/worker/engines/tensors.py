"""Tensors: from a runtime's details to the contract's words, and to real numbers.

The rules this module keeps:
 * ``real = scale * (stored - zero_point)``, the affine quantisation of the TFLite
   specification, per tensor; what is quantised per channel has no contract here.
 * Inputs have fixed shapes: a leading dimension that is open is a batch and becomes 1;
   any other open dimension is fixed by the manifest or refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from agent.core.manifest import Dtype, TensorSpec
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.samples import Array

Details = Mapping[str, Any]
MAX_NAME = 200  # what a manifest allows
_DTYPES = frozenset(get_args(Dtype))


def tensor_specs(tensors: Sequence[Details]) -> tuple[TensorSpec, ...]:
    """Return the contract of a model's inputs or outputs.

    Raises:
        TrialFailedError: ``contract``: a type or a quantisation that no manifest can
            state; ``dynamic_shape``: a dimension of size 0.
    """
    specs: list[TensorSpec] = []
    for number, tensor in enumerate(tensors):
        name = tensor["name"][:MAX_NAME]
        if any(spec.name == name for spec in specs):
            name = f"{name[: MAX_NAME - 4]}#{number}"  # a manifest tells by names
        specs.append(_tensor_spec(name, tensor))
    return tuple(specs)


def _tensor_spec(name: str, tensor: Details) -> TensorSpec:
    """Return the contract of one tensor."""
    dtype = np.dtype(tensor["dtype"]).name
    if dtype not in _DTYPES:
        raise TrialFailedError(
            f"tensor {name!r} is of type {dtype}", reason=Reason.CONTRACT
        )
    if len(tensor["quantization_parameters"]["scales"]) > 1:
        raise TrialFailedError(
            f"tensor {name!r} is quantised per channel", reason=Reason.CONTRACT
        )
    shape = tuple(int(size) for size in tensor["shape"])
    if 0 in shape:
        raise TrialFailedError(
            f"tensor {name!r} came out empty: {shape}", reason=Reason.DYNAMIC_SHAPE
        )
    scale, zero_point = tensor["quantization"]
    return TensorSpec(name, shape, dtype, float(scale), int(zero_point))  # type: ignore[arg-type] # checked against Dtype above


def fixed_shape(
    tensor: Details, wanted: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """Return the shape an input has to be resized to, or None if it fits already.

    Args:
        tensor: The input's details.
        wanted: The shape that the manifest states, if there is one.

    Raises:
        TrialFailedError: ``dynamic_shape``: a dimension other than the first is open
            and nothing fixes it; ``contract``: the wanted shape does not fit.
    """
    name = tensor["name"]
    shape = tuple(int(size) for size in tensor["shape"])
    open_shape = tuple(int(size) for size in tensor["shape_signature"])
    if wanted is None:
        if -1 in open_shape[1:]:
            raise TrialFailedError(
                f"input {name!r} has open dimensions: {open_shape}",
                reason=Reason.DYNAMIC_SHAPE,
                todo="Convert the model with a fixed input shape.",
            )
        return None
    if wanted == shape:
        return None
    fits = len(wanted) == len(open_shape) and all(
        size in (-1, asked) for size, asked in zip(open_shape, wanted, strict=True)
    )
    if not fits:
        raise TrialFailedError(
            f"input {name!r} is {shape}, the manifest states {wanted}",
            reason=Reason.CONTRACT,
        )
    return wanted


def zeros(spec: TensorSpec) -> Array:
    """Return a tensor of real zeros: the zero point where it is quantised."""
    return np.full(spec.shape, spec.zero_point if spec.scale else 0, spec.dtype)


def real_values(spec: TensorSpec, stored: Array) -> NDArray[np.float32]:
    """Return stored values as real ones, float32."""
    values = stored.astype(np.float32)
    if spec.scale:
        values -= np.float32(spec.zero_point)
        values *= np.float32(spec.scale)
    return values
