"""Opinions: what a model says about a sample, in words two versions can compare.

What agrees, by task: ``classification`` the same label (the word; the number where
there are no words); ``regression`` and ``anomaly`` scores within the tolerance;
``detection`` the same labels, each as often, wherever the boxes are; ``raw`` all
outputs within the tolerance, in real units.

The rules this module keeps:
 * Two models of different tasks have nothing to compare: they agree.
 * NaN agrees with nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.worker.golden import Real, compare_outputs, real_outputs
from agent.worker.model import LoadedModel
from agent.worker.samples import Arrays


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one model says about one sample.

    Attributes:
        task: Of its manifest.
        labels: Classification: its label; detection: those of all boxes, sorted.
        score: As in a prediction line.
        outputs: Raw: every output tensor in real units.
    """

    task: str
    labels: tuple[str, ...] = ()
    score: float = 0.0
    outputs: Sequence[Real] = ()


FormOpinion = Callable[[Arrays, Arrays, int, float], Opinion]


def build_opinion(model: LoadedModel) -> FormOpinion:
    """Return what makes an opinion of (inputs, outputs, label index, score)."""
    task, labels = model.manifest.task, model.labels

    def form(inputs: Arrays, outputs: Arrays, index: int, score: float) -> Opinion:
        if task == "raw":
            return Opinion(task, outputs=real_outputs(model.variant, outputs))
        if task == "classification":
            word = labels[index] if index < len(labels) else str(index)
            return Opinion(task, (word,), score)
        if task == "detection":
            return Opinion(task, _box_labels(model, inputs, outputs), score)
        return Opinion(task, score=score)

    return form


def agree(one: Opinion, other: Opinion, tolerance: float) -> bool:
    """Whether two models say the same about a sample; see the module's docstring."""
    if one.task != other.task:
        return True
    if one.task == "raw":
        if len(one.outputs) != len(other.outputs):
            return False
        return compare_outputs(one.outputs, other.outputs) <= tolerance
    if one.task in ("classification", "detection"):
        return one.labels == other.labels
    return abs(one.score - other.score) <= tolerance


def _box_labels(model: LoadedModel, inputs: Arrays, outputs: Arrays) -> tuple[str, ...]:
    """Return the labels of all boxes, sorted."""
    boxes = model.describe(inputs, outputs, -1, 0.0)["boxes"]
    assert isinstance(boxes, list)  # noqa: S101 - typing
    return tuple(sorted(box["label"] for box in boxes))
