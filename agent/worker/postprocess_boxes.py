"""Boxes: what detection models answer, in the SSD and the YOLOv8 layout.

SSD is the output of TFLite's own ``TFLite_Detection_PostProcess``: boxes (1, N, 4) as
top, left, bottom, right; classes (1, N); scores (1, N); count (1). Exporters of
TensorFlow 2 order the four as scores, boxes, count, classes; both orders are read.

YOLOv8 is the export of Ultralytics: (1, 4 + classes, N) with centre x, centre y, width
and height first; overlapping boxes of one class still have to be suppressed.

The rules this module keeps:
 * Edges are left, top, right, bottom in the model's own unit, for both layouts.
 * Boxes come best first, at most ``max_boxes``; NaN is never a box.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from agent.core.manifest import Manifest, Postprocess, TensorSpec, Variant
from agent.worker.postprocess_tensors import chosen_output, dequantise, misfit
from agent.worker.samples import Array, Arrays


@dataclass(frozen=True, slots=True)
class Box:
    """One detected thing: class index, score, (left, top, right, bottom)."""

    index: int
    score: float
    edges: tuple[float, float, float, float]


BoxReader = Callable[[Arrays], list[Box]]


def build_box_reader(manifest: Manifest, variant: Variant) -> BoxReader:
    """Return what reads boxes from this variant's outputs, best first.

    Raises:
        TrialFailedError: The outputs are not of the declared layout (``contract``).
    """
    if manifest.postprocess.layout == "ssd":
        return _build_ssd(manifest.postprocess, variant.outputs)
    return _build_yolov8(manifest, variant)


def _build_ssd(rules: Postprocess, outputs: tuple[TensorSpec, ...]) -> BoxReader:
    """Read boxes that the model has already selected."""
    boxes_at, classes_at, scores_at, count_at = _ssd_order(outputs)

    def read(tensors: Arrays) -> list[Box]:
        scores = dequantise(tensors[scores_at], outputs[scores_at]).reshape(-1)
        count = _count(dequantise(tensors[count_at], outputs[count_at]), len(scores))
        classes = dequantise(tensors[classes_at], outputs[classes_at]).reshape(-1)
        edges = dequantise(tensors[boxes_at], outputs[boxes_at]).reshape(-1, 4)
        edges = edges[:count, [1, 0, 3, 2]]
        kept = _worth(scores[:count], edges, rules.min_score)
        kept = kept[np.isfinite(classes[kept])]
        best = kept[np.argsort(-scores[kept], kind="stable")][: rules.max_boxes]
        return _boxes(classes[best], scores[best], edges[best])

    return read


def _ssd_order(outputs: tuple[TensorSpec, ...]) -> tuple[int, int, int, int]:
    """Return the positions of boxes, classes, scores and count."""
    shapes = [spec.shape for spec in outputs]
    for order in ((0, 1, 2, 3), (1, 3, 0, 2)):
        if len(shapes) != 4:
            break
        boxes, classes, scores, count = (shapes[position] for position in order)
        rows = boxes[:-1]
        if boxes[-1:] == (4,) and classes == scores == rows and set(count) <= {1}:
            return order
    raise misfit(f"not four SSD tensors but {[list(shape) for shape in shapes]}")


def _build_yolov8(manifest: Manifest, variant: Variant) -> BoxReader:
    """Read one candidate per column and suppress the weaker of two that overlap."""
    rules, outputs = manifest.postprocess, variant.outputs
    at = chosen_output(manifest, variant)
    spec = outputs[at]
    if len(spec.shape) != 3 or spec.shape[0] != 1 or spec.shape[1] < 5:
        raise misfit(f"{list(spec.shape)} is not YOLOv8's (1, 4 + classes, N)")
    if manifest.labels and len(manifest.labels) != spec.shape[1] - 4:
        raise misfit(f"{len(manifest.labels)} labels, {spec.shape[1] - 4} classes")

    def read(tensors: Arrays) -> list[Box]:
        tensor = tensors[at][0]
        scores = dequantise(tensor[4:].max(axis=0), spec)
        likely = np.flatnonzero(scores >= rules.min_score)
        centre = dequantise(tensor[:4, likely], spec)
        half = centre[2:] / 2
        edges = np.concatenate((centre[:2] - half, centre[:2] + half)).T
        finite = np.isfinite(edges).all(axis=1)
        likely, edges = likely[finite], edges[finite]
        classes = tensor[4:, likely].argmax(axis=0)
        kept = suppress(edges, scores[likely], classes, rules)
        return _boxes(classes[kept], scores[likely][kept], edges[kept])

    return read


def suppress(edges: Array, scores: Array, classes: Array, rules: Postprocess) -> Array:
    """Return the positions of boxes that stay, best first (greedy NMS per class).

    Law: no two that stay are of one class and overlap more than ``max_overlap``, and
    each that goes overlaps a better one of its class that stays, or came after
    ``max_boxes``.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while waiting.size and len(kept) < rules.max_boxes:
        best, waiting = int(waiting[0]), waiting[1:]
        kept.append(best)
        rivals = (classes[waiting] == classes[best]) & (
            overlap(edges[best], edges[waiting]) > rules.max_overlap
        )
        waiting = waiting[~rivals]
    return np.array(kept, np.intp)


def overlap(one: Array, many: Array) -> Array:
    """Return intersection over union of a box with others; 0 for empty boxes."""
    corner = np.maximum(one[:2], many[:, :2])
    opposite = np.minimum(one[2:], many[:, 2:])
    shared: Array = np.prod(np.maximum(opposite - corner, 0.0), axis=1)
    union = _area(one[None]) + _area(many) - shared
    ratio: Array = np.zeros_like(union)
    np.divide(shared, union, out=ratio, where=union > 0)
    return ratio


def _area(edges: Array) -> Array:
    """Return the areas of boxes; turned inside out they have none."""
    return np.asarray(np.prod(np.maximum(edges[:, 2:] - edges[:, :2], 0.0), axis=1))


def _worth(scores: Array, edges: Array, min_score: float) -> Array:
    """Return the positions of finite boxes that reach the score."""
    finite = np.isfinite(edges).all(axis=1) & np.isfinite(scores)
    return np.flatnonzero(finite & (scores >= min_score))


def _count(count: Array, most: int) -> int:
    """Return how many boxes the model says it has found, if that can be."""
    value = float(count.reshape(-1)[0])
    return min(most, max(0, int(value))) if np.isfinite(value) else 0


def _boxes(classes: Array, scores: Array, edges: Array) -> list[Box]:
    """Return boxes of plain Python numbers."""
    return [
        Box(int(index), float(score), (left, top, right, bottom))
        for index, score, (left, top, right, bottom) in zip(
            classes.tolist(), scores.tolist(), edges.tolist(), strict=True
        )
    ]
