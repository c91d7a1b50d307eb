"""Features of answers: what scipy says of the same numbers, however they are stored."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy

from agent.core.drift.features import FeatureReader, build_reader
from agent.core.drift.packing import pack_floats, unpack_floats
from agent.core.manifest import Dtype, Postprocess, StateLink, TensorSpec
from agent.core.profile import Projection
from agent.core.watching import is_compared
from tests.core.profiles import describe, sealed

Tensor = NDArray[Any]
INPUT = TensorSpec("in", (1, 1), "float32")
INPUTS = [np.zeros((1, 1), np.float32)]
scores = st.lists(st.floats(-12, 12), min_size=2, max_size=60)


def answer(
    reader: FeatureReader, stored: Tensor, spec: TensorSpec
) -> tuple[float, float]:
    """Return confidence and entropy of an answer, judged as the task does."""
    index = int(stored.argmax())
    best = (spec.scale or 1.0) * (stored.item(index) - spec.zero_point)
    values = reader.read(INPUTS, [stored], index, best)
    assert values is not None
    assert reader.confidence == values[1]
    return float(values[1]), float(values[2])


def quantised(real: NDArray[np.float64], spec: TensorSpec) -> Tensor:
    """Return real values as stored ones."""
    limits = np.iinfo(np.dtype(spec.dtype))
    whole = np.rint(real / spec.scale) + spec.zero_point
    return whole.clip(limits.min, limits.max).astype(spec.dtype)[None]


@settings(max_examples=100)
@given(scores)
def test_probabilities_of_floats(drawn: list[float]) -> None:
    """Confidence is the largest; entropy that of scipy, as a share of a guess's."""
    p = softmax(drawn).astype(np.float32)
    spec = TensorSpec("y", (1, p.size), "float32")
    reader = build_reader(*describe(INPUT, spec))
    confidence, share = answer(reader, p[None], spec)
    assert p.max() == pytest.approx(confidence)
    expected = entropy(p.astype(np.float64)) / math.log(p.size)
    assert expected == pytest.approx(share, abs=1e-5)
    assert not reader.logits


@settings(max_examples=100)
@given(scores, st.sampled_from(["int8", "uint8"]))
def test_probabilities_of_bytes(drawn: list[float], dtype: Dtype) -> None:
    """A table gives what the formula gives of the same rounded probabilities."""
    zero = int(np.iinfo(np.dtype(dtype)).min)
    p = softmax(drawn)
    spec = TensorSpec("y", (1, p.size), dtype, 1 / 256, zero)
    reader = build_reader(*describe(INPUT, spec))
    stored = quantised(p, spec)
    rounded = (stored[0].astype(np.float64) - zero) / 256
    logs = np.log(np.maximum(rounded, 1e-300))
    expected = -(rounded * logs).sum() / math.log(p.size)
    confidence, share = answer(reader, stored, spec)
    assert rounded.max() == confidence
    assert expected == pytest.approx(share, abs=1e-5)
    assert not reader.logits


@settings(max_examples=100)
@given(scores, st.sampled_from(["int8", "float32"]))
def test_scores_before_softmax(drawn: list[float], dtype: Dtype) -> None:
    """They are told from probabilities, and softmax is done for them."""
    real = np.array([*drawn, 13.0])  # no probability
    scale, zero = (0.1, 2) if dtype == "int8" else (0.0, 0)
    spec = TensorSpec("y", (1, real.size), dtype, scale, zero)
    stored = quantised(real, spec) if scale else real.astype(np.float32)[None]
    reader = build_reader(*describe(INPUT, spec))
    p = softmax((scale or 1.0) * (stored[0].astype(np.float64) - zero))
    confidence, share = answer(reader, stored, spec)
    assert p.max() == pytest.approx(confidence, rel=1e-5)
    assert entropy(p) / math.log(p.size) == pytest.approx(share, abs=1e-5)
    assert reader.logits
    assert any("before softmax" in note for note in reader.notes)


def test_scores_stay_scores() -> None:
    """Once one was no probability, later ones that could be are read alike."""
    spec = TensorSpec("y", (1, 2), "float32")
    reader = build_reader(*describe(INPUT, spec))
    answer(reader, np.array([[3.0, -3.0]], np.float32), spec)
    confidence, _ = answer(reader, np.array([[1.0, 0.0]], np.float32), spec)
    assert 1 / (1 + math.exp(-1)) == pytest.approx(confidence)


@pytest.mark.parametrize(("logits", "expected"), [(False, 0.9), (True, 0.7109)])
def test_a_profile_settles_what_answers_are(logits: bool, expected: float) -> None:  # noqa: FBT001 - a parameter
    """On the board nothing is inferred that held-out data have shown."""
    spec = TensorSpec("y", (1, 2), "float32")
    reader = build_reader(*describe(INPUT, spec), sealed(kind="vector", logits=logits))
    confidence, _ = answer(reader, np.array([[0.9, 0.0]], np.float32), spec)
    assert expected == pytest.approx(confidence, abs=1e-4)
    confidence, _ = answer(reader, np.array([[9.0, 0.0]], np.float32), spec)
    assert logits == reader.logits
    assert 0.99 < confidence <= 1.0


def test_sigmoids_are_no_scores() -> None:
    """Probabilities of several things at once do not add up to 1."""
    spec = TensorSpec("y", (1, 3), "float32")
    reader = build_reader(*describe(INPUT, spec))
    confidence, _ = answer(reader, np.array([[0.9, 0.8, 0.7]], np.float32), spec)
    assert pytest.approx(confidence) == 0.9
    assert not reader.logits


@pytest.mark.parametrize("bad", [math.inf, 1e38])
def test_endless_scores_are_not_compared(bad: float) -> None:
    """Infinity is no answer to compare; a large number is as certain as can be."""
    spec = TensorSpec("y", (1, 2), "float32")
    reader = build_reader(*describe(INPUT, spec))
    stored = np.array([[bad, -bad]], np.float32)
    values = reader.read(INPUTS, [stored], 0, float(stored[0, 0]))
    assert (values is None) == math.isinf(bad)
    assert {"nan": 0, "range": int(math.isinf(bad))} == reader.invalid


@settings(max_examples=50)
@given(st.floats(-8, 8))
def test_one_output_of_two_classes(score: float) -> None:
    """As a probability, as a byte or before a sigmoid: two classes all the same."""
    p = 1 / (1 + math.exp(-score))
    spec = TensorSpec("y", (1, 1), "float32")
    stored = TensorSpec("y", (1, 1), "int8", 1 / 256, -128)
    readers = [build_reader(*describe(INPUT, one)) for one in (spec, stored)]
    assert [reader.classes for reader in readers] == [2, 2]
    for reader, value, slack in (
        (readers[0], np.array([[p]], np.float32), 1e-5),
        (readers[1], quantised(np.array([p]), stored), 1 / 256),
    ):
        values = reader.read(INPUTS, [value], int(p >= 0.5), max(p, 1 - p))
        assert values is not None
        assert max(p, 1 - p) == pytest.approx(values[1], abs=slack)
        assert entropy([p, 1 - p], base=2) == pytest.approx(values[2], abs=9 * slack)


def test_a_score_before_a_sigmoid() -> None:
    """One output that leaves 0 to 1 is a score from then on."""
    spec = TensorSpec("y", (1, 1), "float32")
    reader = build_reader(*describe(INPUT, spec))
    for score in (-4.0, 1e30, -1e30, 0.0):
        values = reader.read(INPUTS, [np.array([[score]], np.float32)], 0, 1 - score)
        assert values is not None
        expected = 1 / (1 + math.exp(-min(700.0, abs(score))))
        assert expected == pytest.approx(values[1])


@pytest.mark.parametrize("task", ["regression", "anomaly"])
def test_values_have_a_score_and_no_confidence(task: str) -> None:
    """The score is what the task's judge made of the output."""
    spec = TensorSpec("y", (1, 1), "int8", 0.5, 0)
    reader = build_reader(*describe(INPUT, spec, task=task))
    values = reader.read(INPUTS, [np.array([[9]], np.int8)], -1, 4.5)
    assert values is not None
    assert reader.names == ("x0", "score")
    assert values.tolist() == [0.0, 4.5]
    assert reader.confidence == -1.0


def ssd(order: tuple[int, int, int, int]) -> tuple[list[TensorSpec], list[Tensor]]:
    """Return the four tensors of an SSD model in an order, and what is in them."""
    tensors: list[tuple[TensorSpec, Tensor]] = [
        (TensorSpec("boxes", (1, 5, 4), "float32"), np.zeros((1, 5, 4), np.float32)),
        (TensorSpec("classes", (1, 5), "float32"), np.zeros((1, 5), np.float32)),
        (
            TensorSpec("scores", (1, 5), "uint8", 1 / 256, 0),
            np.array([[230, 140, 128, 127, 0]], np.uint8),
        ),
        (TensorSpec("count", (1,), "float32"), np.array([5], np.float32)),
    ]
    return [tensors[at][0] for at in order], [tensors[at][1] for at in order]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_detectors_have_a_score_and_boxes(order: tuple[int, int, int, int]) -> None:
    """Boxes at or above the least score are counted, without dequantising them."""
    specs, outputs = ssd(order)
    model = describe(
        INPUT,
        *specs,
        task="detection",
        labels=("a", "b", "c"),
        postprocess=Postprocess(min_score=0.5),
    )
    reader = build_reader(*model)
    values = reader.read(INPUTS, outputs, 0, 230 / 256)
    assert values is not None
    assert reader.names == ("x0", "score", "boxes")
    assert [is_compared(it, "output") for it in reader.names] == [False, True, True]
    assert values.tolist() == [0.0, 230 / 256, 3.0]
    assert reader.confidence == 230 / 256
    assert reader.classes == 3
    empty = reader.read(INPUTS, outputs, -1, 0.0)
    assert empty is not None
    assert empty.tolist() == [0.0, 0.0, 0.0]
    assert reader.confidence == -1.0


def test_the_judged_output_is_read() -> None:
    """The named one, or the first that is not state: as the judge chooses."""
    carry = TensorSpec("carry", (1, 4), "float32")
    one, two = (TensorSpec(name, (1, 2), "float32") for name in ("one", "two"))
    outputs: list[Tensor] = [
        np.full((1, 4), 9, np.float32),
        np.array([[0.75, 0.25]], np.float32),
        np.array([[0.0, 1.0]], np.float32),
    ]
    for name, expected in (("", 0.8113), ("two", 0.0)):
        model = describe(
            *(INPUT, carry, one, two),
            others=(TensorSpec("carried", (1, 4), "float32"),),
            state=(StateLink("carry", "carried"),),
            postprocess=Postprocess(output=name),
        )
        reader = build_reader(*model)
        values = reader.read(INPUTS, outputs, 0, 0.75)
        assert values is not None
        assert expected == pytest.approx(values[2], abs=1e-4)


@settings(max_examples=50)
@given(st.integers(1, 8), st.integers(8, 64), st.booleans())
def test_inner_tensors_are_projected(count: int, size: int, stored: bool) -> None:  # noqa: FBT001 - drawn
    """``axes @ (real - mean)``, whatever the tensor's type."""
    rng = np.random.default_rng(count * size)
    axes, mean = rng.normal(size=(count, size)), rng.normal(size=size)
    inner = Projection("inner", count, pack_floats(mean), pack_floats(axes))
    scale, zero = (0.25, 5) if stored else (0.0, 0)
    spec = TensorSpec("inner", (1, size), "int8" if stored else "float32", scale, zero)
    y = TensorSpec("y", (1, 2), "float32")
    reader = build_reader(
        *describe(INPUT, y, spec), sealed(kind="vector", projection=inner)
    )
    x = (rng.normal(size=(1, size)) * 20).astype(spec.dtype)
    half = np.full((1, 2), 0.5, np.float32)
    values = reader.read(INPUTS, [half, x], 0, 0.5)
    assert values is not None
    real = (scale or 1.0) * (x[0].astype(np.float64) - zero)
    expected = unpack_floats(inner.axes, count, size) @ (
        real - unpack_floats(inner.mean, size)
    )
    np.testing.assert_allclose(expected, values[3:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_inner_tensor_of_nan_is_not_compared(bad: float) -> None:
    """And no warning is raised on the way."""
    inner = Projection("inner", 1, pack_floats(np.zeros(2)), pack_floats(np.ones(2)))
    spec, y = TensorSpec("inner", (1, 2), "float32"), TensorSpec("y", (1, 2), "float32")
    reader = build_reader(
        *describe(INPUT, y, spec), sealed(kind="vector", projection=inner)
    )
    half, x = np.full((1, 2), 0.5, np.float32), np.array([[bad, 0]], np.float32)
    assert reader.read(INPUTS, [half, x], 0, 0.5) is None
    assert reader.invalid == {"nan": 0, "range": 1}
