"""A small differentiable interpreter: a .tflite file up to its features and logits.

It computes in real units, float32; a quantised file's tensors are dequantised, and
every result is clipped to what its own quantisation can hold, because triggers are
unlike the data that the ranges were calibrated with. It finds inputs; what a file
answers is asked of the real runtime.

The rules this module keeps:
 * An operator that is not in ``_STEPS`` is refused by name, before anything is run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import autograd.numpy as anp
import numpy as np

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from agent.publish.watermark.convolution import Window, fit_window, pad, windows
from agent.publish.watermark.graph import Graph, Operator, stored_limits
from agent.publish.watermark.head import Head

Array = Any  # an autograd box or a numpy array
_SAME = 0  # tflite.Padding
_RELU, _RELU1, _RELU6 = 1, 2, 3  # tflite.ActivationFunctionType


@dataclass(frozen=True, slots=True)
class Walker:
    """Runs a graph on stacks of inputs, from its input to the head's output."""

    graph: Graph
    head: Head
    constants: Mapping[int, Array]
    path: tuple[Operator, ...]

    def __call__(self, inputs: Array) -> tuple[Array, Array]:
        """Return features (N, D) and logits (N, classes) of inputs in real units."""
        known: dict[int, Array] = {**self.constants, self.graph.inputs[0]: inputs}
        for step in self.path:
            answer = _STEPS[step.name](self, step, [known.get(i) for i in step.inputs])
            known[step.outputs[0]] = self._held(step.outputs[0], answer)
        count = inputs.shape[0]
        features = anp.reshape(known[self.head.features], (count, -1))
        return features, anp.reshape(known[self.head.logits], (count, -1))

    def _held(self, index: int, values: Array) -> Array:
        """Return values as far as a tensor's quantisation can hold them."""
        low, high = self.limits(index)
        if high == np.inf:
            return values
        return anp.minimum(anp.maximum(values, np.float32(low)), np.float32(high))

    def limits(self, index: int) -> tuple[float, float]:
        """Return the smallest and largest real value that a tensor can hold."""
        tensor = self.graph.tensors[index]
        if len(tensor.scales) != 1 or tensor.dtype is None:
            return -np.inf, np.inf
        low, high = stored_limits(tensor.dtype)
        scale, zero = tensor.scales[0], tensor.zeros[0]
        return (low - zero) * scale, (high - zero) * scale


def build_walker(graph: Graph, head: Head) -> Walker:
    """Return the walker of a graph.

    Raises:
        BundleRefusedError: ``watermark``: the way to the head has an operator that it
            cannot follow, or the model has several inputs.
    """
    if len(graph.inputs) != 1:
        raise _refused(f"a model of {len(graph.inputs)} inputs cannot be marked")
    path = _path(graph, head.logits)
    for step in path:
        if step.name not in _STEPS:
            raise _refused(f"operator {step.name} cannot be followed to find triggers")
    needed = {i for step in path for i in step.inputs} & graph.constants
    constants = {i: graph.real(i) for i in sorted(needed)}
    return Walker(graph, head, constants, path)


def _path(graph: Graph, target: int) -> tuple[Operator, ...]:
    """Return the operators that a tensor is computed from, in their order."""
    wanted, path = {target}, []
    for step in reversed(graph.operators):
        if wanted & set(step.outputs):
            path.append(step)
            wanted |= set(step.inputs)
    return tuple(reversed(path))


def _activate(step: Operator, values: Array) -> Array:
    """Apply the activation that an operator has fused.

    Raises:
        BundleRefusedError: ``watermark``: it is another than RELU, RELU6 or none.
    """
    fused = step.options.get("FusedActivationFunction", 0)
    if fused == 0:
        return values
    if fused not in {_RELU, _RELU1, _RELU6}:
        raise _refused(f"{step.name} with fused activation {fused} cannot be followed")
    low = -1.0 if fused == _RELU1 else 0.0
    rectified = anp.maximum(values, np.float32(low))
    if fused == _RELU:
        return rectified
    return anp.minimum(rectified, np.float32(6.0 if fused == _RELU6 else 1.0))


def _window(step: Operator, pictures: Array, size: tuple[int, int]) -> Window:
    """Return the window of a convolution or pool."""
    options = step.options
    return fit_window(
        pictures.shape[1:3],
        size,
        (options["StrideH"], options["StrideW"]),
        same=options["Padding"] == _SAME,
        dilation=(options.get("DilationHFactor", 1), options.get("DilationWFactor", 1)),
    )


def _convolve(_walker: Walker, step: Operator, given: list[Array]) -> Array:
    """CONV_2D: weights (out, rows, columns, in)."""
    pictures, weights, *bias = given
    out, rows, columns, into = weights.shape
    window = _window(step, pictures, (rows, columns))
    seen = windows(pad(pictures, window, 0.0), window)
    flat = anp.reshape(seen, (*seen.shape[:3], rows * columns * into))
    answer = anp.dot(flat, weights.reshape(out, -1).T)
    return _activate(step, _biased(answer, bias))


def _convolve_depthwise(_walker: Walker, step: Operator, given: list[Array]) -> Array:
    """DEPTHWISE_CONV_2D: weights (1, rows, columns, channels * multiplier)."""
    pictures, weights, *bias = given
    _, rows, columns, out = weights.shape
    window = _window(step, pictures, (rows, columns))
    seen = windows(pad(pictures, window, 0.0), window)
    if (times := out // pictures.shape[-1]) > 1:
        seen = anp.repeat(seen, times, axis=-1)
    answer = anp.sum(seen * weights.reshape(rows * columns, out), axis=3)
    return _activate(step, _biased(answer, bias))


def _connect(_walker: Walker, step: Operator, given: list[Array]) -> Array:
    """FULLY_CONNECTED: weights (out, in)."""
    values, weights, *bias = given
    flat = anp.reshape(values, (-1, weights.shape[1]))
    return _activate(step, _biased(anp.dot(flat, weights.T), bias))


def _biased(values: Array, bias: list[Array]) -> Array:
    """Add a bias where there is one."""
    return values + bias[0] if bias and bias[0] is not None else values


def _average(_walker: Walker, step: Operator, given: list[Array]) -> Array:
    """AVERAGE_POOL_2D: padding does not count."""
    (pictures,) = given
    window = _window(
        step, pictures, (step.options["FilterHeight"], step.options["FilterWidth"])
    )
    ones = np.ones((1, *pictures.shape[1:3], 1), np.float32)
    counted = np.sum(windows(pad(ones, window, 0.0), window), axis=3)
    total = anp.sum(windows(pad(pictures, window, 0.0), window), axis=3)
    return _activate(step, total / counted)


def _largest(_walker: Walker, step: Operator, given: list[Array]) -> Array:
    """MAX_POOL_2D."""
    (pictures,) = given
    window = _window(
        step, pictures, (step.options["FilterHeight"], step.options["FilterWidth"])
    )
    # As low as any real value, and finite: infinity times 0 has no gradient.
    seen = windows(pad(pictures, window, -1e30), window)
    return _activate(step, anp.max(seen, axis=3))


def _mean(_walker: Walker, step: Operator, given: list[Array]) -> Array:
    """MEAN over constant axes."""
    values, axes = given
    along = tuple(int(axis) % values.ndim for axis in np.ravel(axes))
    return anp.mean(values, axis=along, keepdims=bool(step.options.get("KeepDims")))


def _add(_walker: Walker, step: Operator, given: list[Array]) -> Array:
    """ADD."""
    return _activate(step, given[0] + given[1])


def _reshape(walker: Walker, step: Operator, given: list[Array]) -> Array:
    """RESHAPE: the stack stays in front, whatever the file says of a batch of one."""
    shape = walker.graph.tensors[step.outputs[0]].shape
    return anp.reshape(given[0], (given[0].shape[0], *shape[1:]))


def _pad(_walker: Walker, _step: Operator, given: list[Array]) -> Array:
    """PAD by constant widths."""
    widths = np.asarray(given[1], int)
    return anp.pad(given[0], [tuple(pair) for pair in widths.tolist()], "constant")


def _rectify(_walker: Walker, _step: Operator, given: list[Array]) -> Array:
    """RELU."""
    return anp.maximum(given[0], np.float32(0))


def _rectify_6(_walker: Walker, _step: Operator, given: list[Array]) -> Array:
    """RELU6."""
    return anp.minimum(anp.maximum(given[0], np.float32(0)), np.float32(6))


def _same(_walker: Walker, _step: Operator, given: list[Array]) -> Array:
    """QUANTIZE and DEQUANTIZE: real units are what we count in anyway."""
    return given[0]


_Step = Callable[[Walker, Operator, list[Any]], Any]
_STEPS: Mapping[str, _Step] = MappingProxyType(
    {
        "CONV_2D": _convolve,
        "DEPTHWISE_CONV_2D": _convolve_depthwise,
        "FULLY_CONNECTED": _connect,
        "AVERAGE_POOL_2D": _average,
        "MAX_POOL_2D": _largest,
        "MEAN": _mean,
        "ADD": _add,
        "RESHAPE": _reshape,
        "PAD": _pad,
        "RELU": _rectify,
        "RELU6": _rectify_6,
        "QUANTIZE": _same,
        "DEQUANTIZE": _same,
    }
)


def _refused(what: str) -> BundleRefusedError:
    """Return the error for a model that has no way through here."""
    return BundleRefusedError(what, reason=Reason.WATERMARK)
