"""Postprocess: outputs become predictions, by task."""

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from agent.core.manifest import (
    Golden,
    Manifest,
    Postprocess,
    StateLink,
    TensorSpec,
    Variant,
)
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.postprocess import MAX_LISTED_VALUES, build_postprocess
from agent.worker.samples import Array, OutputError

SAMPLE = TensorSpec("in", (1, 4), "float32")
INT8 = TensorSpec("out", (1, 3), "int8", 0.5, -10)
FLOAT = TensorSpec("out", (1, 3), "float32")
DIGEST = "0" * 64


def manifest(
    task: str, *outputs: TensorSpec, inputs: tuple[TensorSpec, ...] = (SAMPLE,)
) -> Manifest:
    """Return the smallest manifest with these tensors."""
    variant = Variant("v", "variants/v.tflite", DIGEST, 1, inputs, outputs, 0.0)
    return Manifest(1, "m", 1, task, (variant,), Golden(DIGEST, 1, 1))  # type: ignore[arg-type] # names of tasks


def predict(stated: Manifest, *outputs: Array) -> dict[str, object]:
    """Judge and describe outputs of a sample of zeros."""
    task = build_postprocess(stated, stated.variants[0])
    inputs = [np.zeros(4, np.float32)]
    index, score = task.judge(inputs, outputs)
    assert (int, float) == (type(index), type(score))
    return {"index": index, **task.describe(inputs, outputs, index, score)}


def test_classification_of_stored_values() -> None:
    """The largest stored value wins; its score is real, outputs stay stored."""
    stated = msgspec.structs.replace(
        manifest("classification", INT8), labels=("a", "b", "c")
    )
    answer = predict(stated, np.array([[-128, 7, -10]], np.int8))
    expected = {
        "index": 1,
        "label": "b",
        "score": 8.5,
        "outputs": {"out": [-128, 7, -10]},
    }
    assert expected == answer


def test_float_io_dequantises_what_is_described() -> None:
    """With float io outputs are real values; raw io keeps stored ones."""
    stated = msgspec.structs.replace(manifest("classification", INT8), io="float")
    answer = predict(stated, np.array([[-128, 7, -10]], np.int8))
    assert answer["outputs"] == {"out": [-59.0, 8.5, 0.0]}
    assert answer["label"] == "1"


def test_top_labels() -> None:
    """``top_k`` names the best labels in order; of equals the first comes first."""
    stated = msgspec.structs.replace(
        manifest("classification", FLOAT),
        labels=("a", "b", "c"),
        postprocess=Postprocess(top_k=5),
    )
    answer = predict(stated, np.array([[0.25, 0.5, 0.25]], np.float32))
    expected = [
        {"label": "b", "score": 0.5},
        {"label": "a", "score": 0.25},
        {"label": "c", "score": 0.25},
    ]
    assert expected == answer["top"]


@given(values=stn.arrays(np.int8, (1, 3)))
def test_top_one_is_the_prediction(values: Array) -> None:
    """Law: ``top`` begins with the label and score of ``judge``."""
    stated = msgspec.structs.replace(
        manifest("classification", INT8), postprocess=Postprocess(top_k=2)
    )
    answer = predict(stated, values)
    top = answer["top"]
    assert isinstance(top, list)
    assert {"label": answer["label"], "score": answer["score"]} == top[0]


@pytest.mark.parametrize(
    ("probability", "label", "score"), [(0.75, "yes", 0.75), (0.25, "no", 0.75)]
)
def test_one_output_is_the_second_class(
    probability: float, label: str, score: float
) -> None:
    """A single probability decides between two labels."""
    spec = TensorSpec("out", (1, 1), "float32")
    stated = msgspec.structs.replace(
        manifest("classification", spec),
        labels=("no", "yes"),
        postprocess=Postprocess(top_k=2),
    )
    answer = predict(stated, np.array([[probability]], np.float32))
    assert (label, score) == (answer["label"], answer["score"])
    top = answer["top"]
    assert isinstance(top, list)
    assert {"label": label, "score": score} == top[0]


def test_labels_have_to_fit() -> None:
    """A list of labels of another length is the author's mistake."""
    stated = msgspec.structs.replace(manifest("classification", INT8), labels=("a",))
    with pytest.raises(TrialFailedError, match="1 labels for 3 classes") as caught:
        build_postprocess(stated, stated.variants[0])
    assert caught.value.reason == Reason.CONTRACT


@pytest.mark.parametrize("task", ["classification", "regression", "anomaly"])
def test_nan_is_no_prediction(task: str) -> None:
    """A model that answers NaN fails the sample, with reason ``output``."""
    stated = manifest(task, TensorSpec("out", (1, 4), "float32"))
    with pytest.raises(OutputError) as caught:
        predict(stated, np.array([[math.nan, 0.0, 0.0, 0.0]], np.float32))
    assert caught.value.reason == Reason.OUTPUT


def test_regression() -> None:
    """The score is the first value in real units; there is no label."""
    answer = predict(manifest("regression", INT8), np.array([[10, 1, 2]], np.int8))
    assert (answer["index"], answer["label"], answer["score"]) == (-1, "", 10.0)
    assert answer["outputs"] == {"out": [10, 1, 2]}


@given(
    given_=stn.arrays(np.int8, (1, 8)),
    answered=stn.arrays(np.int8, (1, 8)),
)
def test_reconstruction_error(given_: Array, answered: Array) -> None:
    """Law: the mean of squared differences in real units, each by its own scale."""
    before = TensorSpec("in", (1, 8), "int8", 0.25, 3)
    after = TensorSpec("out", (1, 8), "int8", 0.5, -10)
    stated = manifest("anomaly", after, inputs=(before,))
    task = build_postprocess(stated, stated.variants[0])
    real_in = 0.25 * (given_.astype(np.float64) - 3)
    real_out = 0.5 * (answered.astype(np.float64) + 10)
    expected = float(np.mean((real_in - real_out) ** 2))
    index, score = task.judge([given_], [answered])
    assert index == -1
    assert pytest.approx(expected, rel=1e-5) == score


def test_anomaly_score_of_the_models_own() -> None:
    """One output value is taken as the score; any other size is no reconstruction."""
    own = manifest("anomaly", TensorSpec("out", (1, 1), "float32"))
    assert predict(own, np.array([[2.5]], np.float32))["score"] == 2.5
    stated = manifest("anomaly", INT8)
    with pytest.raises(TrialFailedError, match="3 values"):
        build_postprocess(stated, stated.variants[0])


def test_raw_has_no_opinion() -> None:
    """Task raw passes outputs on, NaN as null, in JSON's own types."""
    answer = predict(
        manifest("raw", FLOAT, TensorSpec("flag", (1, 1), "bool")),
        np.array([[1.0, math.nan, math.inf]], np.float32),
        np.array([[True]]),
    )
    assert (answer["index"], answer["label"], answer["score"]) == (-1, "", 0.0)
    assert answer["outputs"] == {"out": [1.0, None, None], "flag": [True]}
    assert answer == json.loads(json.dumps(answer, allow_nan=False))


def test_large_outputs_are_not_listed() -> None:
    """A segmentation mask is no line of text: null says that it was left out."""
    mask = TensorSpec("out", (1, MAX_LISTED_VALUES + 1), "uint8")
    answer = predict(manifest("raw", mask), np.zeros(mask.shape, np.uint8))
    assert answer["outputs"] == {"out": None}


def test_state_is_no_prediction() -> None:
    """The first output that is not fed back is read, and state is not described."""
    state = TensorSpec("state", (1, 4), "float32")
    stated = msgspec.structs.replace(
        manifest("classification", state, FLOAT),
        state=(StateLink(output="state", input="in"),),
    )
    answer = predict(
        stated, np.ones((1, 4), np.float32), np.array([[0, 1, 0]], np.float32)
    )
    assert answer["label"] == "1"
    assert answer["outputs"] == {"out": [0.0, 1.0, 0.0]}


def test_a_named_output() -> None:
    """``output`` chooses the tensor; a name that is none is the author's mistake."""
    second = TensorSpec("second", (1, 3), "float32")
    stated = manifest("classification", FLOAT, second)
    named = msgspec.structs.replace(stated, postprocess=Postprocess(output="second"))
    values = np.array([[0, 0, 1]], np.float32)
    assert predict(named, values[:, ::-1], values)["label"] == "2"
    wrong = msgspec.structs.replace(stated, postprocess=Postprocess(output="third"))
    with pytest.raises(TrialFailedError, match="'third'"):
        build_postprocess(wrong, wrong.variants[0])


@given(
    stn.arrays(
        np.float32,
        (1, 3),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_descriptions_are_json(values: Array) -> None:
    """Law: whatever a model answers, its description is strict JSON."""
    answer = predict(manifest("raw", FLOAT), values)
    assert answer == json.loads(json.dumps(answer, allow_nan=False))
