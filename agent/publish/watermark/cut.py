"""Half a model: its body up to the features, or its head alone, still a .tflite file.

All copies of a version have one body. It is run once over all inputs; what differs is
the head, which takes microseconds: 10,000 copies are checked by the real runtime in
seconds. Both halves are the file itself with another list of operators.

Source: schema.fbs of TensorFlow Lite; FlatBuffers internals, "Vectors" and "Offsets".
"""

import struct

import tflite

from agent.publish.watermark.graph import Graph
from agent.publish.watermark.head import Head

_WORD = struct.Struct("<I")
# Fields of the table SubGraph.
_INPUTS, _OUTPUTS, _OPERATORS = 6, 8, 10


def cut_body(graph: Graph, head: Head) -> bytes:
    """Return the model that answers with the features its head would read."""
    return _cut(graph, range(head.place), graph.inputs[0], head.features)


def cut_head(graph: Graph, head: Head) -> bytes:
    """Return the model that reads features and answers as the whole one would."""
    steps = range(head.place, len(graph.operators))
    return _cut(graph, steps, head.features, graph.outputs[0])


def _cut(graph: Graph, steps: range, source: int, target: int) -> bytes:
    """Return the file with some of its operators, and another input and output."""
    content = bytearray(graph.content)
    # Without signatures: they name the tensors of the whole model.
    model = tflite.Model.GetRootAs(graph.content, 0)
    if (signatures := model._tab.Offset(18)) != 0:  # noqa: SLF001 - only way to an offset
        _WORD.pack_into(content, model._tab.Vector(signatures) - 4, 0)  # noqa: SLF001
    table = model.Subgraphs(0)._tab  # noqa: SLF001 - the only way to an offset
    _WORD.pack_into(content, table.Vector(table.Offset(_INPUTS)), source)
    _WORD.pack_into(content, table.Vector(table.Offset(_OUTPUTS)), target)
    first = table.Vector(table.Offset(_OPERATORS))
    _WORD.pack_into(content, first - _WORD.size, len(steps))
    for kept, step in enumerate(steps):
        # An element counts from its own place: moved to the front, it counts further.
        moved = _WORD.size * (step - kept)
        (distance,) = _WORD.unpack_from(graph.content, first + _WORD.size * step)
        _WORD.pack_into(content, first + _WORD.size * kept, distance + moved)
    return bytes(content)
