"""Detection: boxes of both layouts, and the laws of suppression."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from agent.core.manifest import Golden, Manifest, Postprocess, TensorSpec, Variant
from agent.errors import TrialFailedError
from agent.worker.postprocess import build_postprocess
from agent.worker.postprocess_boxes import overlap, suppress
from agent.worker.samples import Array

DIGEST = "0" * 64
SAMPLE = TensorSpec("in", (1, 4), "uint8")
SSD = (
    TensorSpec("boxes", (1, 3, 4), "float32"),
    TensorSpec("classes", (1, 3), "float32"),
    TensorSpec("scores", (1, 3), "float32"),
    TensorSpec("count", (1,), "float32"),
)
# Two columns overlap (0 and 1), one is elsewhere (2), one is weak (3).
COLUMNS = np.array(
    [
        [0.25, 0.25, 0.75, 0.5],
        [0.25, 0.28, 0.75, 0.5],
        [0.2, 0.2, 0.1, 0.1],
        [0.2, 0.2, 0.1, 0.1],
        [0.9, 0.8, 0.1, 0.3],
        [0.1, 0.1, 0.7, 0.2],
    ],
    np.float32,
)[None]


def manifest(rules: Postprocess, *outputs: TensorSpec) -> Manifest:
    """Return the smallest detection manifest with these outputs."""
    variant = Variant("v", "variants/v.tflite", DIGEST, 1, (SAMPLE,), outputs, 0.0)
    golden = Golden(DIGEST, 1, 1)
    return Manifest(1, "m", 1, "detection", (variant,), golden, postprocess=rules)


def detect(stated: Manifest, *outputs: Array) -> tuple[int, list[dict[str, object]]]:
    """Return the best class and the described boxes."""
    task = build_postprocess(stated, stated.variants[0])
    index, score = task.judge([], outputs)
    record = task.describe([], outputs, index, score)
    boxes = record["boxes"]
    assert isinstance(boxes, list)
    return index, boxes


def ssd_tensors() -> list[Array]:
    """Return three boxes of which the model says that two count."""
    edges = [[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], [0.0, 0.0, 1.0, 1.0]]
    return [
        np.array([edges], np.float32),
        np.array([[1.0, 0.0, 0.0]], np.float32),
        np.array([[0.5, 0.75, 0.99]], np.float32),
        np.array([2.0], np.float32),
    ]


def test_ssd() -> None:
    """Boxes come best first as left, top, right, bottom; those beyond count do not."""
    stated = msgspec.structs.replace(
        manifest(Postprocess(), *SSD), labels=("cat", "dog")
    )
    index, boxes = detect(stated, *ssd_tensors())
    assert index == 0
    assert [box["label"] for box in boxes] == ["cat", "dog"]
    assert [box["score"] for box in boxes] == [0.75, 0.5]
    assert boxes[0]["box"] == pytest.approx([0.6, 0.5, 0.8, 0.7])


def test_ssd_in_the_order_of_tensorflow_2() -> None:
    """Scores, boxes, count, classes are recognised by their shapes."""
    order = (2, 0, 3, 1)
    stated = manifest(Postprocess(), *(SSD[at] for at in order))
    tensors = ssd_tensors()
    expected = detect(manifest(Postprocess(), *SSD), *tensors)
    assert detect(stated, *(tensors[at] for at in order)) == expected


def test_rules_bound_what_is_reported() -> None:
    """``min_score`` and ``max_boxes`` hold; without boxes there is no class."""
    tensors = ssd_tensors()
    strict = manifest(Postprocess(min_score=0.6), *SSD)
    assert len(detect(strict, *tensors)[1]) == 1
    one = manifest(Postprocess(max_boxes=1), *SSD)
    assert detect(one, *tensors)[1][0]["score"] == 0.75
    none = manifest(Postprocess(min_score=1.0), *SSD)
    assert detect(none, *tensors) == (-1, [])


@pytest.mark.parametrize("count", [math.nan, math.inf, -1.0, 1e30])
def test_an_impossible_count(count: float) -> None:
    """A count that cannot be reads no box that is not there."""
    tensors = ssd_tensors()
    tensors[3][0] = count
    _, boxes = detect(manifest(Postprocess(), *SSD), *tensors)
    assert len(boxes) == (3 if count == 1e30 else 0)


def test_nan_is_never_a_box() -> None:
    """NaN in an edge, a score or a class loses that box only."""
    for at, where in ((0, (0, 1, 2)), (1, (0, 1)), (2, (0, 1))):
        tensors = ssd_tensors()
        tensors[at][where] = math.nan
        _, boxes = detect(manifest(Postprocess(), *SSD), *tensors)
        assert [box["score"] for box in boxes] == [0.5]
    columns = COLUMNS.copy()
    columns[0, 0, 0] = math.nan
    spec = TensorSpec("out", (1, 6, 4), "float32")
    _, boxes = detect(manifest(Postprocess(layout="yolov8"), spec), columns)
    assert [box["label"] for box in boxes] == ["0", "1"]


@pytest.mark.parametrize(
    "outputs",
    [SSD[:3], (SSD[1], SSD[0], SSD[2], SSD[3]), (*SSD[:3], SSD[2])],
)
def test_what_is_not_ssd(outputs: tuple[TensorSpec, ...]) -> None:
    """Other tensors than the four are the author's mistake."""
    stated = manifest(Postprocess(), *outputs)
    with pytest.raises(TrialFailedError, match="not four SSD tensors"):
        build_postprocess(stated, stated.variants[0])


def test_yolov8() -> None:
    """Overlapping boxes of one class become one; centres become edges."""
    spec = TensorSpec("out", (1, 6, 4), "float32")
    stated = manifest(Postprocess(layout="yolov8"), spec)
    index, boxes = detect(stated, COLUMNS)
    assert index == 0
    assert [box["label"] for box in boxes] == ["0", "1"]
    assert boxes[0]["box"] == pytest.approx([0.15, 0.15, 0.35, 0.35])
    assert boxes[1]["box"] == pytest.approx([0.7, 0.7, 0.8, 0.8])


def test_yolov8_of_stored_values() -> None:
    """An int8 export finds the same boxes as its float twin, within a step."""
    spec = TensorSpec("out", (1, 6, 4), "int8", 1 / 255, -128)
    stored = np.round(COLUMNS * 255 - 128).astype(np.int8)
    stated = manifest(Postprocess(layout="yolov8"), spec)
    _, boxes = detect(stated, stored)
    assert [box["label"] for box in boxes] == ["0", "1"]
    assert boxes[0]["box"] == pytest.approx([0.15, 0.15, 0.35, 0.35], abs=0.01)


def test_boxes_of_different_classes_do_not_compete() -> None:
    """Suppression is per class."""
    columns = COLUMNS.copy()
    columns[0, 4:, 1] = (0.1, 0.8)
    spec = TensorSpec("out", (1, 6, 4), "float32")
    _, boxes = detect(manifest(Postprocess(layout="yolov8"), spec), columns)
    assert len(boxes) == 3


def test_what_is_not_yolov8() -> None:
    """Another shape or number of labels is the author's mistake."""
    rules = Postprocess(layout="yolov8")
    for shape in ((6, 4), (1, 4, 6), (2, 6, 4)):
        stated = manifest(rules, TensorSpec("out", shape, "float32"))
        with pytest.raises(TrialFailedError, match="YOLOv8"):
            build_postprocess(stated, stated.variants[0])
    spec = TensorSpec("out", (1, 6, 4), "float32")
    stated = msgspec.structs.replace(manifest(rules, spec), labels=("a",))
    with pytest.raises(TrialFailedError, match="1 labels, 2 classes"):
        build_postprocess(stated, stated.variants[0])


def test_describe_of_other_outputs_reads_them_again() -> None:
    """Boxes of the last judgement are not told of other outputs."""
    stated = manifest(Postprocess(), *SSD)
    task = build_postprocess(stated, stated.variants[0])
    task.judge([], ssd_tensors())
    empty = ssd_tensors()
    empty[3][0] = 0
    assert task.describe([], empty, -1, 0.0)["boxes"] == []


BOXES = stn.arrays(
    np.float32,
    st.tuples(st.integers(0, 12), st.just(4)),
    elements=st.floats(0, 1, width=16),
)


@given(BOXES, st.data())
def test_suppress(edges: Array, data: st.DataObject) -> None:
    """Law: survivors of a class do not overlap, and who goes had to."""
    count = len(edges)
    scores = data.draw(
        stn.arrays(np.float32, count, elements=st.floats(0, 1, width=16))
    )
    classes = data.draw(stn.arrays(np.int64, count, elements=st.integers(0, 1)))
    rules = Postprocess(max_overlap=0.4, max_boxes=5)
    kept = suppress(edges, scores, classes, rules).tolist()
    assert sorted(scores[kept].tolist(), reverse=True) == scores[kept].tolist()
    ratio = np.array([overlap(box, edges) for box in edges]).reshape(count, count)
    rivals = (ratio > 0.4) & (classes[:, None] == classes)
    for place, one in enumerate(kept):
        assert not rivals[one, kept[:place]].any()
    for gone in set(range(count)) - set(kept):
        better = [one for one in kept if scores[one] >= scores[gone]]
        assert rivals[gone, better].any() or len(kept) == 5


@given(BOXES.filter(len))
def test_overlap(edges: Array) -> None:
    """Law: within 0..1, symmetric, and 1 of a box with itself if it has an area."""
    for index, box in enumerate(edges):
        ratio = overlap(box, edges)
        assert ((ratio >= 0) & (ratio <= 1 + 1e-5)).all()
        mirrored = [overlap(other, edges[index : index + 1])[0] for other in edges]
        assert ratio.tolist() == pytest.approx(mirrored)
        width, height = box[2:] - box[:2]
        itself = 1.0 if width > 0 and height > 0 and width * height > 0 else 0.0
        assert ratio[index] == pytest.approx(itself)
