"""Features of the output: confidence and entropy, a score, a few axes of a tensor.

The rules this module keeps: those of ``agent.core.drift.features_inputs``; and an
answer is read as the task's judge reads it (``agent.worker.postprocess``).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.features_inputs import affine
from agent.core.drift.packing import Floats, unpack_floats
from agent.core.manifest import Manifest, TensorSpec, Variant
from agent.core.profile import Projection

Tensors = Sequence[NDArray[Any]]
# (outputs, index, score, part of the feature vector) -> confidence, or -1 for none.
Opinion = Callable[[Tensors, int, float, Floats], float]
Inner = Callable[[Tensors, Floats], None]

CLASSES = ("confidence", "entropy")
SCORE = ("score",)
BOXES = ("score", "boxes")
NO_CONFIDENCE = -1.0
# Rounding and 8-bit softmax leave [0, 1] by less; scores before softmax by far more.
SLACK = 0.02
TINY = 1e-12  # of a probability, before its logarithm is taken
LEVELS = 256  # that a byte can have
FEW_CLASSES = 24  # from here on numpy's table look-up is the faster one

_log = math.log
_exp = math.exp
_isfinite = math.isfinite


class Scores:
    """Whether a model answers scores before softmax (logits).

    Eight-bit softmax and sigmoid have a fixed scale in TFLite, 1/256, so a tensor that
    can hold more than 0 to 1 holds scores. Floats tell once one of them lies outside;
    from then on for good, so that features do not change their meaning twice.

    Attributes:
        fixed: A profile says it, or the tensor's scale.
    """

    def __init__(self, spec: TensorSpec, *, stated: bool | None) -> None:
        self.logits = bool(stated)
        self.fixed = stated is not None
        if stated is None and is_bytes(spec):
            limits = np.iinfo(np.dtype(spec.dtype))
            low = spec.scale * (int(limits.min) - spec.zero_point)
            high = spec.scale * (int(limits.max) - spec.zero_point)
            self.logits, self.fixed = low < -SLACK or high > 1 + SLACK, True


def is_bytes(spec: TensorSpec) -> bool:
    """Return whether a tensor is quantised to 8 bits: tables then have 256 entries."""
    return spec.dtype in {"int8", "uint8"} and spec.scale > 0


def chosen_output(manifest: Manifest, variant: Variant) -> int:
    """Return the position of the output that is judged, -1 if there is none.

    As ``agent.worker.postprocess_tensors`` chooses: the named, or the first not state.
    """
    name = manifest.postprocess.output
    fed_back = {link.output for link in manifest.state}
    for position, spec in enumerate(variant.outputs):
        if spec.name == name or (not name and spec.name not in fed_back):
            return position
    return -1


def build_classes(at: int, spec: TensorSpec, scores: Scores) -> Opinion:
    """Return what reads the confidence and the entropy of class probabilities.

    Confidence is the largest probability; entropy is a share of that of a guess, 0
    to 1. Probabilities that do not add up to 1 (sigmoids) are taken as they are.
    """
    if math.prod(spec.shape) == 1:
        return _build_binary(at, spec, scores)
    if is_bytes(spec):
        build = _build_byte_logits if scores.logits else _build_byte_classes
        return build(at, spec)
    return _build_real_classes(at, spec, scores)


def _build_byte_classes(at: int, spec: TensorSpec) -> Opinion:
    """Probabilities of 8 bits: the entropy is a sum of table entries."""
    classes = math.prod(spec.shape)
    stored = np.arange(LEVELS, dtype=np.uint8).view(spec.dtype).astype(np.float64)
    levels = np.clip(spec.scale * (stored - spec.zero_point), TINY, 1.0)
    entries = -levels * np.log(levels) / _log(classes)
    if classes <= FEW_CLASSES:
        return _build_few_classes(at, entries.tolist())
    table = entries.astype(np.float32)
    terms, ones = np.zeros(classes, np.float32), np.ones(classes, np.float32)
    take, add = table.take, terms.dot

    def opinion(outputs: Tensors, index: int, score: float, out: Floats) -> float:
        del index
        take(outputs[at].reshape(-1).view(np.uint8), out=terms, mode="clip")
        confidence = min(1.0, max(0.0, score))
        out[0] = confidence
        out[1] = add(ones)
        return confidence

    return opinion


def _build_few_classes(at: int, entries: list[float]) -> Opinion:
    """The same for a few classes, where Python beats numpy (0.3 us instead of 0.9)."""
    entry_of = entries.__getitem__

    def opinion(outputs: Tensors, index: int, score: float, out: Floats) -> float:
        del index
        confidence = min(1.0, max(0.0, score))
        out[0] = confidence
        out[1] = sum(map(entry_of, outputs[at].tobytes()))
        return confidence

    return opinion


def _build_byte_logits(at: int, spec: TensorSpec) -> Opinion:
    """Scores of 8 bits: softmax by tables of how far each is below the best."""
    classes = math.prod(spec.shape)
    below = -spec.scale * np.arange(LEVELS)
    table = np.exp(below).astype(np.float32)
    weighted = (np.exp(below) * below).astype(np.float32)
    ones = np.ones(classes, np.float32)
    apart = np.zeros(classes, np.uint8)
    terms = np.zeros(classes, np.float32)
    guess = _log(classes)

    def opinion(outputs: Tensors, index: int, score: float, out: Floats) -> float:
        del score
        stored = outputs[at].reshape(-1).view(np.uint8)
        # Differences modulo 256 are right for signed bytes, too.
        np.subtract(stored[index], stored, out=apart)
        table.take(apart, out=terms, mode="clip")
        total = float(terms.dot(ones))
        weighted.take(apart, out=terms, mode="clip")
        out[0] = confidence = 1.0 / total
        out[1] = (_log(total) - float(terms.dot(ones)) / total) / guess
        return confidence

    return opinion


def _build_real_classes(at: int, spec: TensorSpec, scores: Scores) -> Opinion:
    """Probabilities or scores of more than 8 bits."""
    classes = math.prod(spec.shape)
    scale, zero = affine(spec)
    real, logs = np.zeros(classes), np.zeros(classes)
    ones, guess = np.ones(classes), _log(classes)

    def opinion(outputs: Tensors, index: int, score: float, out: Floats) -> float:
        del index
        np.subtract(outputs[at].reshape(-1), zero, out=real)
        np.multiply(real, scale, out=real)
        if not scores.fixed and not scores.logits:
            scores.logits = not _are_probabilities(real)
        if scores.logits:
            if not _isfinite(score):
                out[0] = score  # infinity: the sample is not compared
                return NO_CONFIDENCE
            # Those beyond e^-700 of the best add nothing, and e^-inf would be 0 * inf.
            np.subtract(real, score, out=logs)
            np.maximum(logs, -700.0, out=logs)
            np.exp(logs, out=real)
            total = float(real.dot(ones))
            out[0] = confidence = 1.0 / total
            out[1] = (_log(total) - float(real.dot(logs)) / total) / guess
            return confidence
        np.maximum(real, TINY, out=real)
        np.log(real, out=logs)
        out[0] = confidence = min(1.0, max(0.0, score))
        out[1] = -float(real.dot(logs)) / guess
        return confidence

    return opinion


def _are_probabilities(real: Floats) -> bool:
    """Return whether all are from 0 to 1: of a softmax, or of as many sigmoids."""
    return bool(real.min() >= -SLACK and real.max() <= 1 + SLACK)


def _build_binary(at: int, spec: TensorSpec, scores: Scores) -> Opinion:
    """One output: the probability of the second of two classes, or its score."""
    scale, zero = affine(spec)

    def opinion(outputs: Tensors, index: int, score: float, out: Floats) -> float:
        del index, score
        second: float = scale * (outputs[at].item(0) - zero)
        if not scores.fixed and not -SLACK <= second <= 1 + SLACK:
            scores.logits = True
        if scores.logits:
            second = 1.0 / (1.0 + _exp(-max(-700.0, min(700.0, second))))
        second = min(1.0, max(0.0, second))
        out[0] = confidence = max(second, 1.0 - second)
        out[1] = binary_entropy(confidence)
        return confidence

    return opinion


def binary_entropy(p: float) -> float:
    """Return the entropy of two classes, in bits.

    >>> binary_entropy(0.5), binary_entropy(1.0)
    (1.0, 0.0)
    """
    rest = 1.0 - p
    return 0.0 - sum(q * math.log2(q) for q in (p, rest) if q > 0)


def value_opinion(outputs: Tensors, index: int, score: float, out: Floats) -> float:
    """Take the score as it is: regression and anomaly have no confidence."""
    del outputs, index
    out[0] = score
    return NO_CONFIDENCE


def best_box_opinion(outputs: Tensors, index: int, score: float, out: Floats) -> float:
    """Take the best box's score; a picture without boxes has no confidence."""
    del outputs
    out[0] = score
    return score if index >= 0 else NO_CONFIDENCE


def build_boxes(at: int, spec: TensorSpec, min_score: float) -> Opinion:
    """Return what reads the best box's score and how many boxes there are.

    Args:
        at: Position of the tensor of scores.
        spec: Its contract.
        min_score: Boxes below it are not reported.
    """
    scale, zero = affine(spec)
    least = min_score / scale + zero  # compared as stored: nothing is dequantised

    def opinion(outputs: Tensors, index: int, score: float, out: Floats) -> float:
        out[0] = score
        out[1] = float(np.count_nonzero(outputs[at] >= least)) if index >= 0 else 0.0
        return score if index >= 0 else NO_CONFIDENCE

    return opinion


def build_inner(at: int, spec: TensorSpec, projection: Projection) -> Inner:
    """Return what projects an inner tensor on a profile's axes.

    Args:
        at: Its position among the outputs.
        spec: Its contract.
        projection: Of as many values as the tensor has.
    """
    scale, zero = affine(spec)
    axes = unpack_floats(projection.axes, projection.count, -1)
    mean = unpack_floats(projection.mean, -1)
    # axes @ (scale * (x - zero) - mean), with all but x computed here; in float64,
    # which nothing that a float32 tensor holds can overflow
    offset = axes @ (scale * zero + mean)
    stored_axes = axes * scale
    kept = np.zeros(mean.size)
    copyto, subtract = np.copyto, np.subtract
    is_float = spec.dtype.startswith("float")

    def look(outputs: Tensors, out: Floats) -> None:
        copyto(kept, outputs[at].reshape(-1))
        if is_float and not _isfinite(kept.dot(kept)):
            out[0] = math.nan  # a matrix times infinity would be a warning
            return
        subtract(stored_axes.dot(kept), offset, out)

    return look
