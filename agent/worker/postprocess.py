"""Postprocess: the model's outputs become a prediction, by task.

``judge`` answers in numbers and is part of the sample path; ``describe`` says the same
in words that JSON has, and is only called where a sink wants to hear them.

The rules this module keeps:
 * Scores are real (dequantised) numbers whatever the tensor's dtype; ``io`` decides
   only how ``describe`` spells ``outputs``.
 * An output of NaN is no prediction: ``OutputError``, counted as failed/output.
 * ``describe`` returns JSON's own types; NaN and infinity become null.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from agent.core.manifest import Manifest, TensorSpec, Variant
from agent.worker.postprocess_boxes import Box, BoxReader, build_box_reader
from agent.worker.postprocess_tensors import (
    affine,
    believed,
    chosen_output,
    dequantise,
    listed,
    misfit,
)
from agent.worker.samples import Array, Arrays, OutputError

# Tensors above it are no reading matter and would not fit a pipe: 4,096 values are
# about 80 kB of JSON.
MAX_LISTED_VALUES = 4096


Judge = Callable[[Arrays, Arrays], tuple[int, float]]


class Postprocess(Protocol):
    """What a task makes of outputs; ``build_postprocess`` chooses one."""

    def judge(self, inputs: Arrays, outputs: Arrays) -> tuple[int, float]:
        """Return (label index or -1, score).

        Raises:
            OutputError: The output is NaN.
        """

    def describe(
        self, inputs: Arrays, outputs: Arrays, index: int, score: float
    ) -> dict[str, object]:
        """Return ``label``, ``score`` and ``outputs`` of what ``judge`` answered."""


class Described:
    """What all tasks share: labels, and outputs spelt for JSON."""

    def __init__(self, manifest: Manifest, variant: Variant) -> None:
        fed_back = {link.output for link in manifest.state}
        self._labels = manifest.labels
        self._listed = [
            (position, spec)
            for position, spec in enumerate(variant.outputs)
            if spec.name not in fed_back
        ]
        self._real = manifest.io == "float"

    def describe(
        self, inputs: Arrays, outputs: Arrays, index: int, score: float
    ) -> dict[str, object]:
        """Return ``label``, ``score`` and ``outputs`` of what ``judge`` answered.

        A prediction without a label has an empty one; an output of more than
        ``MAX_LISTED_VALUES`` values is null.
        """
        del inputs
        return {
            "label": self.label(index),
            "score": score,
            "outputs": {
                spec.name: self._spell(outputs[position], spec)
                for position, spec in self._listed
            },
        }

    def label(self, index: int) -> str:
        """Return the name of a class, its number where there is none, "" for -1."""
        if index < 0:
            return ""
        return self._labels[index] if index < len(self._labels) else str(index)

    def _spell(self, tensor: Array, spec: TensorSpec) -> object:
        """Return a tensor as nested lists, without its batch axis."""
        if tensor.size > MAX_LISTED_VALUES:
            return None
        if tensor.ndim > 1 and tensor.shape[0] == 1:
            tensor = tensor[0]
        return listed(dequantise(tensor, spec) if self._real else tensor)


class RawTask(Described):
    """No opinion: outputs are passed on."""

    def judge(self, inputs: Arrays, outputs: Arrays) -> tuple[int, float]:
        """Return (-1, 0.0)."""
        del inputs, outputs
        return -1, 0.0


class ValueTask(Described):
    """Regression: the score is the output's first value."""

    def __init__(self, manifest: Manifest, variant: Variant) -> None:
        super().__init__(manifest, variant)
        self._at = chosen_output(manifest, variant)
        self._scale, self._zero = affine(variant.outputs[self._at])

    def judge(self, inputs: Arrays, outputs: Arrays) -> tuple[int, float]:
        """Return (-1, the value in real units)."""
        del inputs
        value = self._scale * (outputs[self._at].item(0) - self._zero)
        return -1, believed(float(value))


class ClassTask(Described):
    """Classification: the label of the largest output.

    An output of one value is the probability of the second of two classes.
    """

    def __init__(self, manifest: Manifest, variant: Variant) -> None:
        super().__init__(manifest, variant)
        self._at = chosen_output(manifest, variant)
        spec = variant.outputs[self._at]
        classes = int(np.prod(spec.shape, dtype=np.int64))
        self._binary = classes == 1
        expected = 2 if self._binary else classes
        if manifest.labels and len(manifest.labels) != expected:
            raise misfit(
                f"{len(manifest.labels)} labels for {expected} classes of {spec.name}"
            )
        self._scale, self._zero = affine(spec)
        self._spec = spec
        self._top_k = min(manifest.postprocess.top_k, expected)

        build = _build_binary_judge if self._binary else _build_class_judge
        self.judge = build(self._at, self._scale, self._zero)

    def describe(
        self, inputs: Arrays, outputs: Arrays, index: int, score: float
    ) -> dict[str, object]:
        """Add ``top``, the best ``top_k`` labels, where more than one is wanted."""
        record = super().describe(inputs, outputs, index, score)
        if self._top_k > 1:
            record["top"] = self._top(outputs[self._at])
        return record

    def _top(self, raw: Array) -> list[dict[str, object]]:
        """Return the best labels with their scores; of equals, the first."""
        scores = dequantise(raw, self._spec).reshape(-1).astype(np.float64)
        if self._binary:
            scores = np.array([1.0 - scores[0], scores[0]])
        best = np.argsort(-scores, kind="stable")[: self._top_k]
        return [
            {"label": self.label(index), "score": number}
            for index, number in zip(best.tolist(), scores[best].tolist(), strict=True)
        ]


class AnomalyTask(Described):
    """Anomaly: how badly the model reproduces its input.

    The score is the mean squared difference of input and output in real units. A
    model whose output is one value computes its own score, which is taken as it is.
    """

    def __init__(self, manifest: Manifest, variant: Variant) -> None:
        super().__init__(manifest, variant)
        fed = {link.input for link in manifest.state}
        before = next((spec for spec in variant.inputs if spec.name not in fed), None)
        self._at = chosen_output(manifest, variant)
        after = variant.outputs[self._at]
        size = int(np.prod(after.shape, dtype=np.int64))
        if before is None or size not in (1, int(np.prod(before.shape))):
            raise misfit(f"{after.name} has {size} values: no score, no reconstruction")
        self._own_score = size == 1
        self._before, self._after = affine(before), affine(after)
        # Kept: two buffers of the sample's size that never leave ``judge``.
        self._input = np.zeros(size, np.float32)
        self._difference = np.zeros(size, np.float32)

    def judge(self, inputs: Arrays, outputs: Arrays) -> tuple[int, float]:
        """Return (-1, reconstruction error)."""
        scale, zero = self._after
        if self._own_score:
            return -1, believed(float(scale * (outputs[self._at].item(0) - zero)))
        difference, real = self._difference, self._input
        np.multiply(outputs[self._at].reshape(-1), scale, out=difference)
        scale_in, zero_in = self._before
        np.multiply(inputs[0].reshape(-1), scale_in, out=real)
        difference -= real
        difference -= scale * zero - scale_in * zero_in
        return -1, believed(float(np.vdot(difference, difference)) / difference.size)


class BoxTask(Described):
    """Detection: boxes above a score; the prediction is the best one's label."""

    def __init__(self, manifest: Manifest, variant: Variant) -> None:
        super().__init__(manifest, variant)
        self._read: BoxReader = build_box_reader(manifest, variant)
        self._boxes: list[Box] = []
        self._of: Arrays | None = None

    def judge(self, inputs: Arrays, outputs: Arrays) -> tuple[int, float]:
        """Return (class, score) of the best box, or (-1, 0.0) without any."""
        del inputs
        self._boxes, self._of = self._read(outputs), outputs
        if not self._boxes:
            return -1, 0.0
        best = self._boxes[0]
        return best.index, best.score

    def describe(
        self, inputs: Arrays, outputs: Arrays, index: int, score: float
    ) -> dict[str, object]:
        """Return the boxes, best first, instead of tensors that nobody can read."""
        if outputs is not self._of:
            self.judge(inputs, outputs)
        boxes = [
            {"label": self.label(box.index), "score": box.score, "box": list(box.edges)}
            for box in self._boxes
        ]
        return {
            "label": self.label(index),
            "score": score,
            "outputs": {},
            "boxes": boxes,
        }


# Any: classes of one constructor, which the Protocol does not speak about.
_TASKS: dict[str, Any] = {
    "raw": RawTask,
    "regression": ValueTask,
    "classification": ClassTask,
    "anomaly": AnomalyTask,
    "detection": BoxTask,
}


def _build_class_judge(at: int, scale: float, zero: float) -> Judge:
    """Return what finds the largest value and its score; bare, for the sample path."""

    def judge(inputs: Arrays, outputs: Arrays) -> tuple[int, float]:
        del inputs
        raw = outputs[at]
        index = int(raw.argmax())  # of NaN there is no larger: it would be found
        score: float = scale * (raw.item(index) - zero)
        if score != score:  # noqa: PLR0124 - NaN
            raise OutputError("the largest output is NaN")
        return index, score

    return judge


def _build_binary_judge(at: int, scale: float, zero: float) -> Judge:
    """Return what takes the one output for the probability of the second class."""

    def judge(inputs: Arrays, outputs: Arrays) -> tuple[int, float]:
        del inputs
        second = believed(float(scale * (outputs[at].item(0) - zero)))
        index = int(second >= 0.5)
        return index, second if index else 1.0 - second

    return judge


def build_postprocess(manifest: Manifest, variant: Variant) -> Postprocess:
    """Return what the manifest's task makes of this variant's outputs.

    ``judge`` takes all outputs of the variant in the model's order, state included,
    and the inputs without state, as ``build_preprocess`` returns them.

    Raises:
        TrialFailedError: The outputs do not suit the task (``contract``).
    """
    task: Postprocess = _TASKS[manifest.task](manifest, variant)
    return task
