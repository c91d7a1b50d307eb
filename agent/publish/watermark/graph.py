"""A .tflite file as plain values: tensors with their places in the file, operators.

The rules this module keeps:
 * Whatever is wrong with the bytes leaves as ``BundleRefusedError`` (``malformed``):
   a suspect's file may come from anyone.
 * Nothing is copied but names and numbers; contents are views into the file.

Source: schema.fbs of TensorFlow Lite, by the ``tflite`` package.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

Real = NDArray[np.float32]
Array = NDArray[Any]

_DTYPES: Mapping[int, type[np.generic]] = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.INT8: np.int8,
    tflite.TensorType.UINT8: np.uint8,
    tflite.TensorType.INT16: np.int16,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.INT64: np.int64,
}
# AttributeError: a table that is not there is None.
_RAISED = (
    *(ValueError, TypeError, LookupError, ArithmeticError, MemoryError),
    *(AttributeError, struct.error),
)
_OPERATORS: Mapping[int, str] = MappingProxyType(
    {
        code: name
        for name, code in vars(tflite.BuiltinOperator).items()
        if isinstance(code, int)
    }
)
# Class of an operator's options -> the fields that the walker asks for.
_OPTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "CONV_2D": (
            "Conv2DOptions",
            (
                *("Padding", "StrideH", "StrideW"),
                *("DilationHFactor", "DilationWFactor", "FusedActivationFunction"),
            ),
        ),
        "DEPTHWISE_CONV_2D": (
            "DepthwiseConv2DOptions",
            (
                *("Padding", "StrideH", "StrideW"),
                *("DilationHFactor", "DilationWFactor", "FusedActivationFunction"),
            ),
        ),
        "AVERAGE_POOL_2D": (
            "Pool2DOptions",
            (
                *("Padding", "StrideH", "StrideW"),
                *("FilterHeight", "FilterWidth", "FusedActivationFunction"),
            ),
        ),
        "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction",)),
        "ADD": ("AddOptions", ("FusedActivationFunction",)),
        "MEAN": ("ReducerOptions", ("KeepDims",)),
        "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    }
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the graph.

    Attributes:
        shape: As the file says.
        dtype: Of its stored values; None for what no walker reads (strings...).
        scales: Quantisation, one or one for each channel; empty without.
        zeros: Zero points, as many.
        channel: The dimension that ``scales`` belong to.
        offset: Where its content begins in the file, ``size`` bytes; size 0: computed.
        buffer: Index of its buffer.
        scales_offset: Where ``scales`` begin in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: type[np.generic] | None
    scales: tuple[float, ...]
    zeros: tuple[int, ...]
    channel: int
    offset: int
    size: int
    buffer: int
    scales_offset: int


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: indices of its tensors (-1: none), and its options by name."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """The only subgraph of a .tflite file."""

    content: bytes
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def stored(self, index: int) -> Array:
        """Return a constant as it is stored, a view into the file."""
        tensor = self.tensors[index]
        view = memoryview(self.content)[tensor.offset : tensor.offset + tensor.size]
        return np.frombuffer(view, tensor.dtype).reshape(tensor.shape)

    def real(self, index: int) -> Real:
        """Return a constant in real units, float32.

        Raises:
            BundleRefusedError: ``malformed``: its content does not fill its shape.
        """
        tensor = self.tensors[index]
        # A damaged scale may be anything, infinity included.
        with _reading(), np.errstate(all="ignore"):
            values: Real = self.stored(index).astype(np.float32)
            if tensor.scales:
                along = [1] * values.ndim
                channel = tensor.channel if len(tensor.scales) > 1 else 0
                along[channel] = len(tensor.scales)
                values = values - np.array(tensor.zeros, np.float32).reshape(along)
                values = values * np.array(tensor.scales, np.float32).reshape(along)
        return values

    @cached_property
    def constants(self) -> frozenset[int]:
        """Indices of the tensors whose content is in the file."""
        return frozenset(i for i, tensor in enumerate(self.tensors) if tensor.size)


def stored_limits(dtype: type[np.generic]) -> tuple[int, int]:
    """Return the smallest and largest value of an integer type."""
    limits = np.iinfo(np.dtype(dtype))
    return int(limits.min), int(limits.max)


def parse_graph(content: bytes) -> Graph:
    """Parse a .tflite file with one subgraph.

    Raises:
        BundleRefusedError: ``malformed``: it is none, or ``watermark``: it has
            several subgraphs.
    """
    with _reading():
        model = tflite.Model.GetRootAs(content, 0)
        if content[4:8] != b"TFL3":
            raise ValueError("no TFL3 identifier")
        subgraphs = model.SubgraphsLength()
        graph = model.Subgraphs(0)
        parsed = Graph(
            content=content,
            tensors=tuple(
                _tensor(model, graph.Tensors(i)) for i in range(graph.TensorsLength())
            ),
            operators=tuple(
                _operator(model, graph.Operators(i))
                for i in range(graph.OperatorsLength())
            ),
            inputs=_ints(graph.InputsAsNumpy()),
            outputs=_ints(graph.OutputsAsNumpy()),
        )
        _check(parsed)
    if subgraphs != 1:
        raise BundleRefusedError(
            f"a model of {subgraphs} subgraphs has no single head",
            reason=Reason.WATERMARK,
        )
    return parsed


@contextmanager
def _reading() -> Iterator[None]:
    """Report whatever generated flatbuffer code raises as one error.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    try:
        yield
    except _RAISED as err:
        what = f"no .tflite file: {err}"
        raise BundleRefusedError(what, reason=Reason.MALFORMED) from err


def _tensor(model: Any, tensor: Any) -> Tensor:  # noqa: ANN401 - untyped library
    """Return one tensor of the file."""
    buffer = model.Buffers(tensor.Buffer())
    place = buffer._tab.Offset(4)  # noqa: SLF001 - the only way to an offset
    quantization = tensor.Quantization()
    scales: tuple[float, ...] = ()
    scales_offset = 0
    if quantization is not None and quantization.ScaleLength():
        scales = tuple(map(float, quantization.ScaleAsNumpy()))
        table = quantization._tab  # noqa: SLF001 - the only way to an offset
        scales_offset = table.Vector(table.Offset(8))
    zeros = _ints(quantization.ZeroPointAsNumpy()) if scales else ()
    return Tensor(
        name=(tensor.Name() or b"").decode("utf-8", "replace"),
        shape=_ints(tensor.ShapeAsNumpy()),
        dtype=_DTYPES.get(tensor.Type()),
        scales=scales,
        zeros=zeros or (0,) * len(scales),
        channel=quantization.QuantizedDimension() if scales else 0,
        offset=buffer._tab.Vector(place) if place else 0,  # noqa: SLF001 - see above
        size=buffer.DataLength(),
        buffer=tensor.Buffer(),
        scales_offset=scales_offset,
    )


def _operator(model: Any, operator: Any) -> Operator:  # noqa: ANN401 - untyped library
    """Return one operator of the file."""
    code = model.OperatorCodes(operator.OpcodeIndex())
    name = _OPERATORS.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "?")
    options: dict[str, Any] = {}
    if (wanted := _OPTIONS.get(name.replace("MAX_", "AVERAGE_"))) is not None:
        kind, fields = wanted
        read = getattr(tflite, kind)()
        table = operator.BuiltinOptions()
        if table is not None:
            read.Init(table.Bytes, table.Pos)
            options = {field: getattr(read, field)() for field in fields}
    return Operator(
        name=name,
        inputs=_ints(operator.InputsAsNumpy()),
        outputs=_ints(operator.OutputsAsNumpy()),
        options=options,
    )


def _check(graph: Graph) -> None:
    """Indices and places lie inside; contents fill their shapes.

    Raises:
        ValueError: They do not.
    """
    count, size = len(graph.tensors), len(graph.content)
    named = [graph.inputs, graph.outputs]
    named += [(*step.inputs, *step.outputs) for step in graph.operators]
    for index in (index for indices in named for index in indices):
        if not -1 <= index < count:
            raise ValueError(f"tensor {index} of {count}")
    for tensor in graph.tensors:
        if tensor.offset + tensor.size > size or len(tensor.zeros) != len(
            tensor.scales
        ):
            raise ValueError(f"tensor {tensor.name!r} is not whole")


def _ints(values: Any) -> tuple[int, ...]:  # noqa: ANN401 - an array, or 0 for none
    """Return a vector of the file as a tuple."""
    return (
        tuple(int(value) for value in np.atleast_1d(values)) if np.ndim(values) else ()
    )
