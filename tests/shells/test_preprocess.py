"""Preprocess: steps do what the manifest says, and the result is the tensor."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from agent.core.manifest import TensorSpec
from agent.core.reasons import Reason
from agent.core.steps import Cast, Fill, Normalise, Scale, Step, Window
from agent.errors import TrialFailedError
from agent.worker.preprocess import build_preprocess
from agent.worker.samples import Array, InputError, check_finite

INT8 = TensorSpec("x", (1, 2, 3), "int8", 0.5, -10)
FLOAT = TensorSpec("x", (1, 2, 3), "float32")
IDS = TensorSpec("ids", (1, 3), "int32")


def only(result: list[Array] | None) -> Array:
    """Return the one array of a result."""
    assert result is not None
    assert len(result) == 1
    return result[0]


def apply(step: Step, x: Array) -> Array:
    """Perform one step on an array into a float tensor of the same shape."""
    spec = TensorSpec("x", x.shape, "float32")
    return only(build_preprocess((step,), (spec,), "float")(x))


def test_a_tensor_passes_untouched() -> None:
    """A sample of the tensor's own dtype and shape is used as it is."""
    sample = np.arange(6, dtype=np.int8).reshape(1, 2, 3)
    assert only(build_preprocess((), (INT8,))(sample)) is sample


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (2, 3, 1), (1, 1, 2, 3)])
def test_axes_of_one_are_added_or_left_out(shape: tuple[int, ...]) -> None:
    """The batch and other axes of length 1 never matter."""
    sample = np.arange(6, dtype=np.int8).reshape(shape)
    tensor = only(build_preprocess((), (INT8,))(sample))
    assert tensor.tolist() == [[[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 2), (1, 2, 3, 2), (0,)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """Nothing is cut, padded or turned to make a sample fit."""
    preprocess = build_preprocess((), (INT8,))
    with pytest.raises(InputError, match=r"the model takes int8\[1, 2, 3\]") as caught:
        preprocess(np.zeros(shape, np.int8))
    assert caught.value.reason == Reason.INPUT


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "bool", "complex64"])
def test_another_dtype_is_refused(dtype: str) -> None:
    """With raw io, integers of another type are no stored values of the tensor."""
    with pytest.raises(InputError, match="the model takes int8"):
        build_preprocess((), (INT8,))(np.zeros((2, 3), dtype))


def test_floats_are_quantised() -> None:
    """A float is divided by the scale, rounded half to even, shifted and clipped."""
    sample = np.array([[0.0, 0.5, 0.75], [0.25, 1000.0, -1000.0]], np.float32)
    tensor = only(build_preprocess((), (INT8,))(sample))
    assert np.int8 == tensor.dtype
    assert tensor.tolist() == [[[-10, -9, -8], [-10, 127, -128]]]


@given(
    values=stn.arrays(
        np.float32, (2, 3), elements=st.floats(-50.0, 50.0, width=32, allow_nan=False)
    )
)
def test_quantising_is_off_by_half_a_step_at_most(values: Array) -> None:
    """Law: dequantised values are within half a scale of the real ones."""
    tensor = only(build_preprocess((), (INT8,))(values))
    real = 0.5 * (tensor[0].astype(np.float64) + 10)
    assert np.abs(real - values).max() <= 0.25 + 1e-6


def test_float_io_takes_integers_as_real_values() -> None:
    """With float io a uint8 picture means the same to int8 and float variants."""
    sample = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)
    quantised = only(build_preprocess((), (INT8,), "float")(sample))
    real = only(build_preprocess((), (FLOAT,), "float")(sample))
    assert quantised.tolist() == [[[-10, -8, -6], [-4, -2, 0]]]
    assert real.tolist() == [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]
    own = only(build_preprocess((), (INT8,), "float")(sample.astype(np.int8)))
    assert quantised.tolist() == own.tolist()


def test_unquantised_integers_take_whole_floats() -> None:
    """Token ids read from text are floats; halves and giants are refused."""
    preprocess = build_preprocess((), (IDS,))
    assert only(preprocess(np.array([1.0, 2, 3], np.float32))).tolist() == [[1, 2, 3]]
    for bad in (0.5, 3e9):
        with pytest.raises(InputError, match="whole numbers"):
            preprocess(np.array([1.0, bad, 3.0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [6, 20_000])
def test_values_that_are_not_finite_are_refused(bad: float, size: int) -> None:
    """The message names the value and where it stands, in small and large samples."""
    sample = np.zeros(size, np.float32)
    sample[4] = bad
    spec = TensorSpec("x", (1, size), "float32")
    name = "NaN" if np.isnan(bad) else "infinity"
    with pytest.raises(InputError, match=f"{name} at position 4"):
        build_preprocess((), (spec,))(sample)
    with pytest.raises(InputError, match=f"{name} at position 4"):
        build_preprocess((Scale(),), (spec,))(sample)


def test_task_raw_lets_nan_through_to_float_tensors_only() -> None:
    """Without the check NaN is a value of a float tensor, and of no integer."""
    sample = np.full((2, 3), np.nan, np.float32)
    kept = only(build_preprocess((), (FLOAT,), finite=False)(sample))
    assert np.isnan(kept).all()
    with pytest.raises(InputError, match="NaN"):
        build_preprocess((), (INT8,), finite=False)(sample)


@given(
    stn.arrays(
        np.float32,
        stn.array_shapes(max_dims=2, max_side=30),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_check_finite(values: Array) -> None:
    """Law: it refuses exactly the arrays that hold NaN or infinity."""
    if np.isfinite(values).all():
        check_finite(values, "it")
    else:
        with pytest.raises(InputError, match="not finite"):
            check_finite(values, "it")


def test_inputs_by_name() -> None:
    """Several inputs come as a dict, in any order, and leave in the model's."""
    two = (TensorSpec("a", (1, 2), "float32"), TensorSpec("b", (1, 1), "int8", 1.0))
    preprocess = build_preprocess((Scale(factor=2.0, input="a"),), two)
    tensors = preprocess({"b": np.ones(1, np.int8), "a": np.ones(2, np.float32)})
    assert tensors is not None
    assert [tensor.tolist() for tensor in tensors] == [[[2.0, 2.0]], [[1]]]


def test_wrong_names_are_refused() -> None:
    """Missing, unknown and absent names say what the model takes."""
    two = (TensorSpec("a", (1,), "float32"), TensorSpec("b", (1,), "float32"))
    preprocess = build_preprocess((), two)
    one = np.zeros(1, np.float32)
    for bad in ({"a": one}, {"a": one, "b": one, "c": one}, {}, one):
        with pytest.raises(InputError, match="a, b"):
            preprocess(bad)


def test_steps_for_no_input_are_refused() -> None:
    """A step that names an input the model lacks is its author's mistake."""
    with pytest.raises(TrialFailedError, match="no input 'y'") as caught:
        build_preprocess((Scale(input="y"),), (FLOAT,))
    assert caught.value.reason == Reason.CONTRACT
    with pytest.raises(TrialFailedError, match="no input is left"):
        build_preprocess((), ())


@given(
    values=stn.arrays(np.uint8, (3, 4)),
    factor=st.floats(-10, 10, width=32),
    offset=st.floats(-300, 300, width=32),
)
def test_scale(values: Array, factor: float, offset: float) -> None:
    """Law: ``(x - offset) * factor``, to the precision of float32."""
    expected = (values.astype(np.float64) - offset) * factor
    actual = apply(Scale(factor=factor, offset=offset), values)
    assert np.float32 == actual.dtype
    assert np.allclose(expected, actual, rtol=1e-5, atol=1e-4)


def test_fill_mends_what_is_not_finite() -> None:
    """A sensor that is absent becomes a number; finite samples pass as they are."""
    sample = np.array([[1.0, np.nan], [-np.inf, 4.0]], np.float32)
    assert apply(Fill(value=7.0), sample).tolist() == [[1.0, 7.0], [7.0, 4.0]]
    assert np.isnan(sample[0, 1])
    whole = np.ones((2, 2), np.float32)
    assert apply(Fill(), whole) is whole


def test_without_fill_what_is_not_finite_is_refused() -> None:
    """NaN that no step mends ends the sample, not the answer."""
    with pytest.raises(InputError, match="NaN"):
        apply(Scale(), np.array([np.nan], np.float32))


def test_normalise_by_channel() -> None:
    """The last axis has its own means and stds; one value serves all."""
    image = np.full((2, 2, 3), 10, np.uint8)
    step = Normalise(mean=(0.0, 10.0, 20.0), std=(1.0, 2.0, 5.0))
    assert apply(step, image)[0, 0].tolist() == [10.0, 0.0, -2.0]
    step = Normalise(mean=(10.0,), std=(1.0, 2.0, 4.0))
    assert apply(step, image)[0, 0].tolist() == [0.0, 0.0, 0.0]


def test_normalise_refuses_what_does_not_fit() -> None:
    """Other channels are a bad sample; std 0 and unequal lists are a bad manifest."""
    preprocess = build_preprocess((Normalise(mean=(1.0, 2.0)),), (FLOAT,))
    with pytest.raises(InputError, match="2 channels"):
        preprocess(np.zeros((2, 3), np.float32))
    for step in (Normalise(std=(0.0,)), Normalise(mean=(1.0,) * 3, std=(1.0,) * 2)):
        with pytest.raises(TrialFailedError, match="normalise"):
            build_preprocess((step,), (FLOAT,))


@given(
    values=stn.arrays(np.float32, (5,), elements=st.floats(-1e6, 1e6, width=32)),
    dtype=st.sampled_from(["int8", "uint8", "int16"]),
)
def test_cast(values: Array, dtype: str) -> None:
    """Law: rounds half to even like Python and clips to the range."""
    spec = TensorSpec("x", (5,), dtype)  # type: ignore[arg-type] # str is a Dtype here
    step = Cast(dtype=dtype)  # type: ignore[arg-type] # likewise
    limits = np.iinfo(dtype)
    expected = [min(max(round(v), limits.min), limits.max) for v in values.tolist()]
    assert expected == only(build_preprocess((step,), (spec,))(values)).tolist()


def test_cast_clips_integers_and_refuses_nan() -> None:
    """int16 to int8 clips; NaN has no integer."""
    spec = TensorSpec("x", (2,), "int8")
    cast = build_preprocess((Cast(dtype="int8"),), (spec,), finite=False)
    assert only(cast(np.array([300, -300], np.int16))).tolist() == [127, -128]
    with pytest.raises(InputError, match="NaN"):
        cast(np.array([np.nan, 0.0], np.float32))


def test_what_numpy_refuses_is_a_bad_sample() -> None:
    """An error of numpy inside a step counts as failed/input, not as a bug."""
    preprocess = build_preprocess((Scale(),), (FLOAT,))
    with pytest.raises(InputError, match=r"^x: "):
        preprocess(np.array([["a", "b", "c"]] * 2))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_results_are_never_written_again(dtype: Literal["float32", "int8"]) -> None:
    """Callers may keep what they got: the next sample leaves it alone."""
    spec = TensorSpec("x", (3, 1), dtype, 0.5)
    preprocess = build_preprocess((Scale(factor=2.0), Window(length=3)), (spec,))
    results = []
    for value in range(6):
        tensors = preprocess(np.array([value], np.float32))
        if tensors is not None:
            results.append((tensors[0], tensors[0].copy()))
    assert len(results) == 4
    assert all(np.array_equal(kept, copy) for kept, copy in results)


@given(
    length=st.integers(1, 7),
    hop=st.integers(1, 9),
    chunks=st.lists(st.integers(0, 12), max_size=20),
)
def test_sliding_window(length: int, hop: int, chunks: list[int]) -> None:
    """Law: an answer is the last rows, due once full and then every ``hop`` rows."""
    spec = TensorSpec("x", (length, 1), "float32")
    step = Window(length=length, hop=hop, sample_is="rows")
    preprocess = build_preprocess((step,), (spec,))
    seen: list[float] = []
    due = length
    for chunk in chunks:
        rows = np.arange(len(seen), len(seen) + chunk, dtype=np.float32)
        seen += rows.tolist()
        result = preprocess(rows)
        assert (len(seen) >= due) == (result is not None)
        if result is not None:
            assert seen[-length:] == result[0].reshape(-1).tolist()
            due += hop * (1 + (len(seen) - due) // hop)


def test_window_of_single_rows() -> None:
    """A sample of readings is one row; reset makes the next sample the first."""
    spec = TensorSpec("x", (1, 2, 3), "float32")
    preprocess = build_preprocess((Window(length=2),), (spec,))
    row = np.ones(3, np.float32)
    assert preprocess(row) is None
    assert only(preprocess(2 * row)).tolist() == [[[1.0] * 3, [2.0] * 3]]
    preprocess.reset()
    assert preprocess(row) is None


def test_window_refuses_another_row() -> None:
    """A row of another shape or type is a bad sample and changes nothing."""
    spec = TensorSpec("x", (2, 1), "float32")
    preprocess = build_preprocess((Window(length=2),), (spec,))
    assert preprocess(np.zeros(1, np.float32)) is None
    for bad in (np.zeros(2, np.float32), np.zeros(1, np.int8)):
        with pytest.raises(InputError, match="window"):
            preprocess(bad)
    assert only(preprocess(np.ones(1, np.float32))).tolist() == [[0.0], [1.0]]


def test_windows_of_all_inputs_advance_together() -> None:
    """While one input's window fills, the other's rows are not lost."""
    two = (TensorSpec("a", (2, 1), "float32"), TensorSpec("b", (1, 1), "float32"))
    preprocess = build_preprocess((Window(length=2, input="a"),), two)
    one = np.ones(1, np.float32)
    assert preprocess({"a": one, "b": one}) is None
    assert preprocess({"a": one, "b": one}) is not None
