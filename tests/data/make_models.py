"""Writes the tiny .tflite files beside this script, each with one peculiarity.

They are built straight from the schema that the runtime ships, so every tensor is
known and no converter is involved. Run it where ``ai-edge-litert`` is installed:

    python tests/data/make_models.py
"""

from dataclasses import dataclass, field
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

HERE = Path(__file__).resolve().parent
FLOAT, INT8, INT32 = (
    schema.TensorType.FLOAT32,
    schema.TensorType.INT8,
    schema.TensorType.INT32,
)
# 2^18 x 2^20 floats are 1 TiB: no board grants that, whatever it overcommits.
HUGE_SHAPE = (2**18, 2**20)


@dataclass
class Graph:
    """A model with one subgraph, grown tensor by tensor and operator by operator."""

    tensors: list[schema.TensorT] = field(default_factory=list)
    buffers: list[schema.BufferT] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[schema.OperatorT] = field(default_factory=list)
    codes: list[schema.OperatorCodeT] = field(default_factory=list)

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: int = FLOAT,
        *,
        signature: tuple[int, ...] | None = None,
        quantisation: tuple[float, int] | None = None,
    ) -> int:
        """Add a tensor and return its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, 0
        tensor.shapeSignature = signature
        if quantisation:
            scale, zero_point = quantisation
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [scale]
            tensor.quantization.zeroPoint = [zero_point]
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, name: str, value: np.ndarray, kind: int) -> int:
        """Add a constant tensor and return its index."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        index = self.tensor(name, value.shape, kind)
        self.buffers.append(buffer)
        self.tensors[index].buffer = len(self.buffers) - 1
        return index

    def operator(self, code: int, inputs: list[int], outputs: list[int]) -> None:
        """Add a built-in operator with its default options."""
        self._add(code, "", inputs, outputs)

    def custom(self, name: str, inputs: list[int], outputs: list[int]) -> None:
        """Add a custom operator."""
        self._add(schema.BuiltinOperator.CUSTOM, name, inputs, outputs)

    def _add(self, code: int, name: str, inputs: list[int], outputs: list[int]) -> None:
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.version = code, VERSIONS.get(code, 1)
        # Readers older than schema 3a take the code from this byte.
        entry.deprecatedBuiltinCode = min(code, 127)
        entry.customCode = name or None
        self.codes.append(entry)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.codes) - 1
        operator.inputs, operator.outputs = inputs, outputs
        options = OPTIONS.get(code)
        if options:
            operator.builtinOptionsType, operator.builtinOptions = options()
        self.operators.append(operator)

    def save(self, name: str, inputs: list[int], outputs: list[int]) -> None:
        """Write ``name``.tflite."""
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = inputs, outputs
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [subgraph], self.buffers
        model.operatorCodes = self.codes
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        (HERE / f"{name}.tflite").write_bytes(bytes(builder.Output()))


def keep_dimensions() -> tuple[int, schema.ReducerOptionsT]:
    """Options of a reduction that keeps the rank."""
    options = schema.ReducerOptionsT()
    options.keepDims = True
    return schema.BuiltinOptions.ReducerOptions, options


OP = schema.BuiltinOperator
VERSIONS = {OP.BROADCAST_TO: 2}  # there is no kernel of version 1
OPTIONS = {
    OP.ADD: lambda: (schema.BuiltinOptions.AddOptions, schema.AddOptionsT()),
    OP.SUB: lambda: (schema.BuiltinOptions.SubOptions, schema.SubOptionsT()),
    OP.MUL: lambda: (schema.BuiltinOptions.MulOptions, schema.MulOptionsT()),
    OP.EQUAL: lambda: (schema.BuiltinOptions.EqualOptions, schema.EqualOptionsT()),
    OP.RNN: lambda: (schema.BuiltinOptions.RNNOptions, schema.RNNOptionsT()),
    OP.REDUCE_MAX: keep_dimensions,
}


def two_in_two_out() -> None:
    """Sum and difference of two vectors."""
    graph = Graph()
    left, right = graph.tensor("left", (1, 4)), graph.tensor("right", (1, 4))
    total, rest = graph.tensor("sum", (1, 4)), graph.tensor("difference", (1, 4))
    graph.operator(OP.ADD, [left, right], [total])
    graph.operator(OP.SUB, [left, right], [rest])
    graph.save("two_in_two_out", [left, right], [total, rest])


def streaming() -> None:
    """A leaky sum: ``total = sample + carried``, ``carry = total / 2`` is fed back."""
    graph = Graph()
    sample, carried = graph.tensor("sample", (1, 4)), graph.tensor("carried", (1, 4))
    total, carry = graph.tensor("total", (1, 4)), graph.tensor("carry", (1, 4))
    half = graph.constant("half", np.array([0.5], np.float32), FLOAT)
    graph.operator(OP.ADD, [sample, carried], [total])
    graph.operator(OP.MUL, [total, half], [carry])
    graph.save("streaming", [sample, carried], [total, carry])


def quantised() -> None:
    """RELU on int8 with scale 0.5 and zero point -3."""
    graph = Graph()
    sample = graph.tensor("sample", (1, 4), INT8, quantisation=(0.5, -3))
    answer = graph.tensor("answer", (1, 4), INT8, quantisation=(0.5, -3))
    graph.operator(OP.RELU, [sample], [answer])
    graph.save("quantised", [sample], [answer])


def dynamic(name: str, signature: tuple[int, ...]) -> None:
    """RELU on a tensor with a dimension that is not fixed."""
    graph = Graph()
    shape = tuple(1 if size < 0 else size for size in signature)
    sample = graph.tensor("sample", shape, signature=signature)
    answer = graph.tensor("answer", shape, signature=signature)
    graph.operator(OP.RELU, [sample], [answer])
    graph.save(name, [sample], [answer])


def dynamic_output() -> None:
    """WHERE: as many rows as values are true."""
    graph = Graph()
    sample = graph.tensor("sample", (1, 4))
    rows = graph.tensor("rows", (1, 2), schema.TensorType.INT64, signature=(-1, 2))
    graph.operator(OP.WHERE, [sample], [rows])
    graph.save("dynamic_output", [sample], [rows])


def dynamic_rows() -> None:
    """WHERE(sample == 0): four rows for zeros, none for ones."""
    graph = Graph()
    sample = graph.tensor("sample", (1, 4))
    zero = graph.constant("zero", np.array([0], np.float32), FLOAT)
    found = graph.tensor("found", (1, 4), schema.TensorType.BOOL)
    rows = graph.tensor("rows", (4, 2), schema.TensorType.INT64, signature=(-1, 2))
    graph.operator(OP.EQUAL, [sample, zero], [found])
    graph.operator(OP.WHERE, [found], [rows])
    graph.save("dynamic_rows", [sample], [rows])


def remembering() -> None:
    """RNN: ``state = sample + state / 2 + 1``, kept in a variable inside the model."""
    graph = Graph()
    sample, answer = graph.tensor("sample", (1, 1)), graph.tensor("answer", (1, 1))
    weights = [
        graph.constant("weight", np.array([[1]], np.float32), FLOAT),
        graph.constant("recurrent", np.array([[0.5]], np.float32), FLOAT),
        graph.constant("bias", np.array([1], np.float32), FLOAT),
    ]
    state = graph.tensor("state", (1, 1))
    graph.tensors[state].isVariable = True
    graph.operator(OP.RNN, [sample, *weights, state], [answer])
    graph.save("remembering", [sample], [answer])


def unknown_operator() -> None:
    """A custom operator that no runtime has."""
    graph = Graph()
    sample, answer = graph.tensor("sample", (1, 4)), graph.tensor("answer", (1, 4))
    graph.custom("NoSuchOperator", [sample], [answer])
    graph.save("unknown_operator", [sample], [answer])


def logarithm() -> None:
    """LOG: minus infinity at zero, NaN below."""
    graph = Graph()
    sample, answer = graph.tensor("sample", (1, 4)), graph.tensor("answer", (1, 4))
    graph.operator(OP.LOG, [sample], [answer])
    graph.save("logarithm", [sample], [answer])


def huge() -> None:
    """One value spread over 1 TiB, of which the largest is kept."""
    graph = Graph()
    sample = graph.tensor("sample", (1, 1))
    shape = graph.constant("shape", np.array(HUGE_SHAPE, np.int32), INT32)
    axes = graph.constant("axes", np.array([0, 1], np.int32), INT32)
    spread = graph.tensor("spread", HUGE_SHAPE)
    answer = graph.tensor("answer", (1, 1))
    graph.operator(OP.BROADCAST_TO, [sample, shape], [spread])
    graph.operator(OP.REDUCE_MAX, [spread, axes], [answer])
    graph.save("huge", [sample], [answer])


def text() -> None:
    """Tensors of strings, which no manifest can state."""
    graph = Graph()
    sample = graph.tensor("sample", (1, 4), schema.TensorType.STRING)
    answer = graph.tensor("answer", (1, 4), schema.TensorType.STRING)
    graph.operator(OP.RESHAPE, [sample], [answer])
    graph.save("text", [sample], [answer])


if __name__ == "__main__":
    two_in_two_out()
    streaming()
    quantised()
    dynamic("dynamic_batch", (-1, 4))
    dynamic("dynamic_length", (1, -1))
    dynamic_output()
    dynamic_rows()
    remembering()
    unknown_operator()
    logarithm()
    huge()
    text()
