"""Features: every model gets a reader, no sample raises, and what is odd is counted."""

import contextlib
import math
import zlib
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from agent.core.drift.features import RANGE_SDS, FeatureReader, build_reader
from agent.core.drift.packing import pack_floats, pack_triangle
from agent.core.manifest import Dtype, Postprocess, StateLink, TensorSpec
from agent.core.profile import MAX_CHANNELS, Kind, Projection
from agent.core.watching import MAX_FEATURES, is_compared
from agent.errors import BundleRefusedError
from tests.core.profiles import SOFTMAX, describe, floats, kinds, sealed

Tensor = NDArray[Any]
DTYPES = get_args(Dtype)
SCORES = np.array([[-128, 100, -120, -100]], np.int8)  # 0, .89, .03, .11
BEST = 1, 228 / 256
dimensions = st.lists(st.integers(1, 40), min_size=0, max_size=4)


@st.composite
def specs(draw: st.DrawFn) -> TensorSpec:
    """Return any input tensor."""
    dtype: Dtype = draw(st.sampled_from(DTYPES))
    quantised = dtype in {"int8", "uint8", "int16"} and draw(st.booleans())
    shape = tuple(draw(dimensions))
    return TensorSpec("in", shape, dtype, 0.25 if quantised else 0.0, 3)


def numbers(spec: TensorSpec, seed: int = 0) -> Tensor:
    """Return a random tensor of a contract."""
    rng = np.random.default_rng(seed)
    if spec.dtype == "bool":
        return np.array(rng.random(spec.shape) < 0.5)
    if spec.dtype.startswith("float"):
        return np.asarray(rng.normal(size=spec.shape), spec.dtype)
    low = 0 if spec.dtype == "uint8" else -100
    return np.asarray(rng.integers(low, 100, spec.shape), spec.dtype)


def read(reader: FeatureReader, x: Tensor) -> NDArray[np.float64] | None:
    """Return the features of an input that was answered with certainty."""
    return reader.read([x], [SCORES], *BEST)


def scopes_by_their_names(reader: FeatureReader) -> None:
    """Law: who knows only names finds the columns that a scope's detectors look at."""
    for scope, columns in reader.columns.items():
        found = [at for at, it in enumerate(reader.names) if is_compared(it, scope)]
        assert columns.tolist() == found
    assert not any(is_compared(it, "prediction") for it in reader.names)


@settings(max_examples=300)
@given(specs(), st.integers(0, 9))
def test_every_input_has_a_reader(spec: TensorSpec, seed: int) -> None:
    """Whatever shape and type: finite features, each with a name, none of them odd."""
    reader = build_reader(*describe(spec))
    values = read(reader, numbers(spec, seed))
    assert values is not None
    assert len(reader.names) == len(values) == len(set(reader.names)) <= MAX_FEATURES
    assert np.isfinite(values).all()
    assert reader.invalid == {"nan": 0, "range": 0}
    scopes_by_their_names(reader)


@settings(max_examples=300)
@given(st.data())
def test_no_sample_raises(data: st.DataObject) -> None:
    """Any floats at all, NaN and infinity among them: features, or a count and None."""
    shape = data.draw(st.sampled_from([(1, 7), (1, 20, 20), (9, 8), (2, 3, 5, 7)]))
    dtype = data.draw(st.sampled_from([np.float32, np.float16]))
    spec = TensorSpec("in", shape, np.dtype(dtype).name)  # type: ignore[arg-type] # one of two
    x = data.draw(arrays.arrays(dtype, shape))
    reader = build_reader(*describe(spec))
    values = read(reader, x)
    expected = "" if values is not None else "range" if np.isfinite(x).all() else "nan"
    assert {"": 0, expected: 1}.get("nan", 0) == reader.invalid["nan"]
    assert {"": 0, expected: 1}.get("range", 0) == reader.invalid["range"]
    if values is not None:
        assert np.isfinite(values).all()


@settings(max_examples=100)
@given(specs(), st.sampled_from(kinds()))
def test_a_stated_kind_is_obeyed_or_refused(spec: TensorSpec, kind: Kind) -> None:
    """A profile says how an input is looked at; what cannot be is refused at once."""
    reference = sealed(kind=kind)
    with contextlib.suppress(BundleRefusedError):
        reader = build_reader(*describe(spec), reference)
        assert kind == reader.kind
        assert read(reader, numbers(spec)) is not None


@settings(max_examples=50)
@given(specs())
def test_the_same_sample_has_the_same_features(spec: TensorSpec) -> None:
    """Nothing of one sample is left in the next one's features."""
    reader = build_reader(*describe(spec))
    first = np.array(read(reader, numbers(spec, 1)))
    read(reader, numbers(spec, 2))
    np.testing.assert_array_equal(first, read(reader, numbers(spec, 1)))


@settings(max_examples=50)
@given(specs())
def test_samples_are_not_written_to(spec: TensorSpec) -> None:
    """What preprocess returned may be kept by others."""
    reader, x = build_reader(*describe(spec)), numbers(spec)
    x.flags.writeable = False
    read(reader, x)
    np.testing.assert_array_equal(numbers(spec), x)


def test_columns_say_which_features_are_of_what() -> None:
    """Input first, then the answer, then the inner tensor, which is in neither."""
    inner = Projection("inner", 2, floats(0, 0, 0), floats(*range(6)))
    spec = TensorSpec("in", (1, 4), "float32")
    model = describe(spec, SOFTMAX, TensorSpec("inner", (1, 3), "float32"))
    reader = build_reader(*model, sealed(kind="vector", projection=inner))
    names = "x0 x1 x2 x3 confidence entropy axis0 axis1"
    assert names == " ".join(reader.names)
    scopes_by_their_names(reader)
    assert reader.columns["input"].tolist() == [0, 1, 2, 3]
    assert reader.columns["output"].tolist() == [4, 5]
    assert list(range(8)) == reader.columns["all"].tolist()


def test_state_is_not_watched() -> None:
    """Of a streaming model the first input that a sample fills is looked at."""
    carried = TensorSpec("carried", (1, 900), "float32")
    spec = TensorSpec("in", (1, 3), "float32")
    model = describe(
        *(carried, TensorSpec("carry", (1, 900), "float32"), SOFTMAX),
        others=(spec,),
        state=(StateLink("carry", "carried"),),
    )
    reader = build_reader(*model)
    x = np.array([[1, 2, 3]], np.float32)
    outputs: list[Tensor] = [np.zeros((1, 900), np.float32), SCORES]
    values = reader.read([x], outputs, *BEST)
    assert reader.names == ("x0", "x1", "x2", "confidence", "entropy")
    assert values is not None
    assert [1, 2, 3, BEST[1]] == values[:4].tolist()
    assert reader.notes == ()


def test_of_several_inputs_the_first_is_watched() -> None:
    """And the reader says so."""
    spec = TensorSpec("in", (1, 3), "float32")
    reader = build_reader(*describe(spec, others=(TensorSpec("b", (4,), "int8"),)))
    assert reader.notes == ("of several inputs only 'in' is watched",)
    assert len(reader.columns["input"]) == 3


def test_a_raw_task_has_input_features_only() -> None:
    """It has no answer to look at, and NaN in its input is no mistake but counted."""
    spec = TensorSpec("in", (1, 3), "float32")
    reader = build_reader(*describe(spec, task="raw"))
    assert reader.names == ("x0", "x1", "x2")
    assert reader.columns["output"].tolist() == []
    values = reader.read([np.ones((1, 3), np.float32)], [SCORES], -1, 0.0)
    assert values is not None
    assert reader.confidence == -1.0
    assert reader.read([np.full((1, 3), np.nan, np.float32)], [SCORES], -1, 0.0) is None
    assert reader.invalid == {"nan": 1, "range": 0}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(1, 8), (1, 40, 40, 3), (1, 49, 10), (1, 999)])
def test_a_storm_of_nan_is_counted(shape: tuple[int, ...], bad: float) -> None:
    """One bad value among good ones drops each sample; the next good one is read."""
    spec = TensorSpec("in", shape, "float32")
    reader, good = build_reader(*describe(spec)), numbers(spec)
    expected = np.array(read(reader, good))
    spoilt = good.copy()
    spoilt.reshape(-1)[1] = bad
    assert [read(reader, spoilt) for _ in range(100)] == [None] * 100
    assert reader.invalid == {"nan": 100, "range": 0}
    np.testing.assert_array_equal(expected, read(reader, good))


@pytest.mark.parametrize("shape", [(1, 40, 40, 3), (1, 49, 10), (1, 999)])
def test_numbers_too_large_to_be_squared_are_out_of_range(
    shape: tuple[int, ...],
) -> None:
    """They are finite, and yet nothing can be said about them."""
    reader = build_reader(*describe(TensorSpec("in", shape, "float32")))
    assert read(reader, np.full(shape, 3e38, np.float32)) is None
    assert reader.invalid == {"nan": 0, "range": 1}


def test_what_is_far_beyond_the_reference_is_counted_and_read() -> None:
    """A sensor at the end of its wire is out of range, and drifts all the same."""
    spec = TensorSpec("in", (1, 2), "float32")
    names = ("x0", "x1", "confidence", "entropy")
    mean, sd = floats(5, 0, 0, 0), floats(2, 0, 1, 1)
    reference = sealed(names, kind="vector", mean=mean, sd=sd)
    reader = build_reader(*describe(spec), reference)
    edge = 5 + 2 * RANGE_SDS
    seen = [(edge - 1, 0, 0), (edge + 1, 0, 1), (0, 1e9, 1), (-edge, 0, 2)]
    for x0, x1, count in seen:
        assert read(reader, np.array([[x0, x1]], np.float32)) is not None
        assert {"nan": 0, "range": count} == reader.invalid


def test_a_far_answer_is_no_input_out_of_range() -> None:
    """A regression may say what it never said before."""
    spec = TensorSpec("in", (1, 1), "float32")
    model = describe(spec, TensorSpec("y", (1, 1), "float32"), task="regression")
    reader = build_reader(*model, sealed(("x0", "score"), kind="vector"))
    x, y = np.zeros((1, 1), np.float32), np.full((1, 1), 1e6, np.float32)
    values = reader.read([x], [y], -1, 1e6)
    assert values is not None
    assert values.tolist() == [0.0, 1e6]
    assert reader.invalid == {"nan": 0, "range": 0}


@pytest.mark.parametrize("shape", [(1, 8), (1, 96, 96, 3), (1, 300, 301, 3)])
def test_checksums_tell_inputs_apart(shape: tuple[int, ...]) -> None:
    """Equal arrays have equal sums, wherever they lie; noise in a value changes it."""
    spec = TensorSpec("in", shape, "uint8")
    reader, x = build_reader(*describe(spec)), numbers(spec)
    same = np.repeat(x, 2, axis=-1)[..., ::2]  # equal, and not contiguous
    assert reader.checksum([x]) == reader.checksum([same])
    x.reshape(-1)[0] ^= 1
    assert reader.checksum([x]) != reader.checksum([same])


def test_small_inputs_are_summed_whole() -> None:
    """Not only the pieces whose features are read: one still pixel is no proof."""
    spec = TensorSpec("in", (1, 96, 96, 3), "uint8")
    reader, x = build_reader(*describe(spec)), numbers(spec)
    assert zlib.crc32(x.tobytes()) == reader.checksum([x])


def test_a_draft_is_enough_to_read() -> None:
    """Kind, centre and precision do: a builder has nothing else before it has read."""
    spec = TensorSpec("in", (1, 2), "float32")
    centre, precision = pack_floats(np.array([1.0, 2.0])), pack_triangle(np.eye(2))
    draft = sealed(kind="vector", mean=b"", sd=b"", centre=centre, precision=precision)
    values = read(build_reader(*describe(spec), draft), np.array([[4, 6]], np.float32))
    assert values is not None
    assert values[:3].tolist() == [4.0, 6.0, 5.0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "image"}, "is no image"),
        ({"kind": "spectrogram"}, "is no spectrogram"),
        ({"centre": floats(1), "precision": floats(1)}, "a centre of 1 values for 4"),
        ({"projection": Projection("no", 1, b"", b"")}, "there is no output 'no'"),
        (
            {"projection": Projection("scores", 1, floats(1), floats(1))},
            "axes of 1 values for 4",
        ),
        (
            {"projection": Projection("scores", 2, floats(*[0] * 4), floats(1))},
            "not 2 axes of 4 values",
        ),
    ],
)
def test_what_does_not_suit_the_tensors_is_refused(
    changes: dict[str, Any], said: str
) -> None:
    """Before a sample comes, with words for whoever made the profile."""
    model = describe(TensorSpec("in", (1, 4), "float32"))
    with pytest.raises(BundleRefusedError, match=said):
        build_reader(*model, sealed(**{"kind": "vector", **changes}))


def test_wide_vectors_are_looked_at_as_a_whole() -> None:
    """As features, channels have room up to 32."""
    widest = build_reader(*describe(TensorSpec("in", (1, MAX_CHANNELS), "float32")))
    wider = build_reader(*describe(TensorSpec("in", (1, MAX_CHANNELS + 1), "float32")))
    assert (widest.kind, wider.kind) == ("vector", "other")
    with pytest.raises(BundleRefusedError, match="a vector of 33 values"):
        build_reader(
            *describe(TensorSpec("in", (1, MAX_CHANNELS + 1), "float32")),
            sealed(kind="vector"),
        )


def test_detectors_of_yolo_have_a_score_only() -> None:
    """Counting boxes again would cost more than everything else; the reader says so."""
    model = describe(
        TensorSpec("in", (1, 32, 32, 3), "uint8"),
        TensorSpec("y", (1, 6, 20), "float32"),
        task="detection",
        labels=("a", "b"),
        postprocess=Postprocess(layout="yolov8"),
    )
    reader = build_reader(*model)
    assert reader.names[-1:] == ("score",)
    assert reader.classes == 2
    assert [note[:21] for note in reader.notes] == ["boxes are not counted"]
