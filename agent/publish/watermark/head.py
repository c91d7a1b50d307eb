"""The head of a classifier: its last FULLY_CONNECTED, as numbers and as bytes.

The rules this module keeps:
 * What stands in a file is patched in place; its length never changes.
 * A head whose numbers something else uses, too, is refused: another layer would
   change with it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.reasons import Reason
from agent.core.sealing import HeadBlock
from agent.errors import BundleRefusedError
from agent.publish.watermark.graph import Graph, Operator, Real, Tensor

Values = NDArray[np.float64]
MIN_CLASSES = 3
# What may follow a head without changing which class is first.
_HARMLESS = frozenset({"SOFTMAX", "QUANTIZE", "DEQUANTIZE"})
_INT8_MAX = 127  # weights are symmetric: -128 is not used


@dataclass(frozen=True, slots=True)
class Head:
    """Where the head of a graph is, and what it computes.

    Attributes:
        variant: Name of the variant.
        features: Index of the tensor it reads; ``logits`` of the one it writes.
        place: Index of its operator.
        weights: (classes, D + 1) in real units; the last column is the bias.
        stored_weights: The tensor that holds them; ``stored_bias`` likewise.
        feature_scale: Real value of one step of a stored feature; 0 in float files.
    """

    variant: str
    features: int
    logits: int
    place: int
    weights: Real
    stored_weights: Tensor
    stored_bias: Tensor
    feature_scale: float

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return len(self.weights)

    def places(self) -> list[tuple[int, int]]:
        """Return offset and length of every part that ``render`` may replace, ordered.

        In int8 files that is weights, bias, and the scales of both, which are enlarged
        where turned weights would not fit.
        """
        scale_bytes = np.dtype(np.float32).itemsize
        parts = (self.stored_weights, self.stored_bias)
        found = {(part.offset, part.size) for part in parts}
        found |= {
            (part.scales_offset, scale_bytes * len(part.scales))
            for part in parts
            if part.scales
        }
        return sorted(found)

    def render(self, weights: Values) -> tuple[HeadBlock, ...]:
        """Return the blocks that put other weights in place, rounded to the file's.

        Args:
            weights: (classes, D + 1) in real units, the bias last.

        Raises:
            BundleRefusedError: ``watermark``: the bias does not fit its 32 bits.
        """
        tensor, bias = self.stored_weights, self.stored_bias
        if tensor.dtype is not np.int8:
            return (
                self._block(tensor.offset, weights[:, :-1].astype(np.float32)),
                self._block(bias.offset, weights[:, -1].astype(np.float32)),
            )
        scales = self._scales(weights[:, :-1])
        spread = scales[:, None] if len(scales) > 1 else scales
        stored = np.rint(weights[:, :-1] / spread).astype(np.int8)
        blocks = [self._block(tensor.offset, stored)]
        widened = scales != np.asarray(tensor.scales, np.float32)
        if widened.any():
            blocks.append(self._block(tensor.scales_offset, scales))
        if not bias.scales:  # float features with int8 weights: the bias stays float
            return (*blocks, self._block(bias.offset, weights[:, -1].astype("<f4")))
        steps = np.float32(self.feature_scale) * scales
        added = np.rint(weights[:, -1] / steps.astype(np.float64))
        if np.abs(added).max() >= 2**31:
            raise refused("the head's bias does not fit into 32 bits")
        blocks.append(self._block(bias.offset, added.astype("<i4")))
        if widened.any():
            blocks.append(self._block(bias.scales_offset, steps))
        return tuple(blocks)

    def _scales(self, weights: Values) -> NDArray[np.float32]:
        """Return the file's scales, enlarged where weights would not fit."""
        scales = np.asarray(self.stored_weights.scales, np.float32)
        largest = np.abs(weights)
        needed = largest.max(axis=1) if len(scales) > 1 else largest.max()
        over = needed / scales > _INT8_MAX + 0.49
        # A hair more than needed: in float32 the largest would round to 127.5.
        enough = np.asarray(needed / _INT8_MAX * (1 + 1e-6), np.float32)
        return np.where(over, enough, scales)

    def _block(self, offset: int, values: NDArray[np.generic]) -> HeadBlock:
        """Return one block."""
        return HeadBlock(self.variant, offset, np.ascontiguousarray(values).tobytes())


def find_head(graph: Graph, variant: str) -> Head:
    """Return the head of a classifier.

    Raises:
        BundleRefusedError: ``watermark``: it has none that can be marked, and why.
    """
    place = _place(graph)
    step = graph.operators[place]
    if step.options.get("FusedActivationFunction", 0):
        raise refused("the head has an activation of its own: its bits would be cut")
    if len(step.inputs) != 3 or step.inputs[2] < 0:
        raise refused("the head has no bias to turn")
    weights, bias = (graph.tensors[index] for index in step.inputs[1:])
    _check_own(graph, step)
    if len(weights.shape) != 2 or bias.shape != weights.shape[:1]:
        raise refused(f"a head of shape {weights.shape} and {bias.shape} is unknown")
    if weights.shape[0] < MIN_CLASSES:
        raise refused(
            f"a model of {weights.shape[0]} classes has no two groups of them"
        )
    known: tuple[type[np.generic], ...] = (np.int8, np.float32)
    if weights.dtype not in known or any(weights.zeros):
        raise refused("only heads of float32 or symmetric int8 weights can be turned")
    scales = graph.tensors[step.inputs[0]].scales
    return Head(
        variant=variant,
        features=step.inputs[0],
        logits=step.outputs[0],
        place=place,
        weights=np.column_stack(
            [graph.real(step.inputs[1]), graph.real(step.inputs[2])]
        ),
        stored_weights=weights,
        stored_bias=bias,
        feature_scale=scales[0] if scales and bias.scales else 0.0,
    )


def apply_blocks(content: bytes, blocks: tuple[HeadBlock, ...]) -> bytes:
    """Return a file with its head replaced; its length stays."""
    patched = bytearray(content)
    for block in blocks:
        patched[block.offset : block.offset + len(block.content)] = block.content
    return bytes(patched)


def refused(what: str) -> BundleRefusedError:
    """Return the error for a model that cannot be marked."""
    return BundleRefusedError(
        what,
        reason=Reason.WATERMARK,
        todo="Only classifiers of three or more classes that end in FULLY_CONNECTED "
        "can be marked; seal this one without marks.",
    )


def _place(graph: Graph) -> int:
    """Return the index of the operator that is the head."""
    if len(graph.outputs) != 1:
        raise refused(f"a model of {len(graph.outputs)} outputs is no plain classifier")
    wanted = graph.outputs[0]
    for place in reversed(range(len(graph.operators))):
        step = graph.operators[place]
        if wanted not in step.outputs:
            continue
        if step.name == "FULLY_CONNECTED":
            return place
        if step.name not in _HARMLESS:
            raise refused(f"the head is {step.name}, not FULLY_CONNECTED")
        wanted = step.inputs[0]
    raise refused("nothing computes the model's output")


def _check_own(graph: Graph, head: Operator) -> None:
    """Nothing but the head uses its weights and bias.

    Raises:
        BundleRefusedError: ``watermark``.
    """
    own = head.inputs[1:]
    for index in own:
        tensor = graph.tensors[index]
        if not tensor.size:
            raise refused("the head's weights are computed, not stored")
        readers = [step for step in graph.operators if index in step.inputs]
        shared = [it for it in graph.tensors if it.size and _overlap(it, tensor)]
        if len(readers) != 1 or len(shared) != 1:
            raise refused("the head's weights are shared with another layer")


def _overlap(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors' contents have bytes in common."""
    return (
        left.offset < right.offset + right.size
        and right.offset < left.offset + left.size
    )
