"""Features of inputs: the same as plain arithmetic gives, and they move with the input.

The oracle is numpy in float64 on all values, without tricks.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis

from agent.core.drift.features import build_reader
from agent.core.drift.features_kinds import (
    LOOKED_AT,
    MAX_RUN,
    find_runs,
    find_table,
    infer_kind,
)
from agent.core.drift.features_limits import find_limits
from agent.core.drift.packing import pack_floats, pack_triangle, unpack_triangle
from agent.core.manifest import Dtype, Task, TensorSpec
from agent.core.profile import Kind
from agent.core.steps import (
    Cast,
    Colour,
    LogMel,
    Mfcc,
    Normalise,
    Resize,
    Scale,
    Step,
    Window,
)
from tests.core.profiles import describe, sealed

Tensor = NDArray[Any]
SCORES = np.array([[-128, 100, -120, -100]], np.int8)
sides = st.integers(16, 40)


def features(
    spec: TensorSpec,
    x: Tensor,
    kind: Kind | None = None,
    preprocess: tuple[Step, ...] = (),
) -> dict[str, float]:
    """Return the input's features by name."""
    reference = sealed(kind=kind) if kind else None
    reader = build_reader(*describe(spec, preprocess=preprocess), reference)
    values = reader.read([x], [SCORES], 1, 0.9)
    assert values is not None
    named = dict(zip(reader.names, values.tolist(), strict=True))
    return {reader.names[at]: named[reader.names[at]] for at in reader.columns["input"]}


def real(spec: TensorSpec, x: Tensor) -> NDArray[np.float64]:
    """Return stored values as real ones."""
    return (spec.scale or 1.0) * (x.astype(np.float64) - (spec.zero_point or 0))


@settings(max_examples=60)
@given(sides, sides, st.sampled_from([1, 3, 4]), st.sampled_from(["uint8", "int8"]))
def test_pictures(height: int, width: int, channels: int, dtype: Dtype) -> None:
    """Mean, deviation and differences of neighbours of one channel, in real units."""
    low = int(np.iinfo(np.dtype(dtype)).min)
    spec = TensorSpec("x", (1, height, width, channels), dtype, 1 / 255, low)
    rng = np.random.default_rng(height * width)
    x = rng.integers(low, low + 256, spec.shape).astype(dtype)
    found = features(spec, x, "image")
    y = real(spec, x)[0]
    apart = np.diff(y, axis=1)
    byte = x.astype(np.int64) - low
    expected = {
        "mean": y.mean(),
        "sd": y.std(),
        "gradient": np.abs(apart).mean(),
        "sharpness": np.square(apart).mean(),
        "clipped": ((byte <= 16) | (byte >= 235)).mean(),
    }
    assert pytest.approx(expected, rel=1e-4, abs=1e-6) == found


@settings(max_examples=60)
@given(st.integers(2, 60), st.integers(1, 12), st.sampled_from(["int8", "float32"]))
def test_spectrograms(rows: int, columns: int, dtype: Dtype) -> None:
    """Means of bands, deviation, and mean squared change in time, in real units."""
    scale, zero = (0.5, 3) if dtype == "int8" else (0.0, 0)
    spec = TensorSpec("x", (1, rows, columns, 1), dtype, scale, zero)
    rng = np.random.default_rng(rows)
    x = rng.normal(-20, 30, spec.shape).clip(-128, 127).astype(dtype)
    step: tuple[Step, ...] = (Mfcc(count=columns),)
    y = real(spec, x).reshape(rows, columns)
    parts = np.array_split(np.arange(columns), min(5, columns))
    expected = {f"band{at}": y[:, part].mean() for at, part in enumerate(parts)}
    expected["sd"] = y.std()
    expected["roughness"] = np.square(np.diff(y, axis=0)).mean()
    flat = TensorSpec("x", (1, rows * columns), dtype, scale, zero)
    if columns > 1:
        found = features(spec, x, "spectrogram")
        assert pytest.approx(expected, rel=1e-4, abs=1e-4) == found
    found = features(flat, x.reshape(flat.shape), "spectrogram", preprocess=step)
    assert pytest.approx(expected, rel=1e-4, abs=1e-4) == found


@settings(max_examples=60)
@given(st.integers(2, 900), st.floats(-1e4, 1e4), st.floats(1e-2, 1e4))
def test_other_inputs(size: int, centre: float, spread: float) -> None:
    """Mean, deviation, roughness, wherever the values lie: nothing cancels out."""
    x = np.random.default_rng(size).normal(centre, spread, (1, size))
    x = x.astype(np.float32)
    y = x.astype(np.float64)
    expected = {
        "mean": y.mean(),
        "sd": y.std(),
        "roughness": np.square(np.diff(y)).mean(),
    }
    found = features(TensorSpec("x", (1, size), "float32"), x, "other")
    slack = 1e-5 * (abs(centre) + spread)  # of float32 itself
    assert expected["mean"] == pytest.approx(found["mean"], abs=slack)
    assert expected["sd"] == pytest.approx(found["sd"], rel=1e-2, abs=slack)
    assert expected["roughness"] == pytest.approx(
        found["roughness"], rel=1e-3, abs=slack * slack
    )


@settings(max_examples=60)
@given(st.integers(1, 32), st.booleans())
def test_vectors(channels: int, quantised: bool) -> None:  # noqa: FBT001 - drawn
    """The values themselves, and scipy's Mahalanobis distance from the centre."""
    rng = np.random.default_rng(channels)
    root = rng.normal(size=(channels, channels))
    precision = unpack_triangle(pack_triangle(root @ root.T), symmetric=True)
    centre = rng.normal(size=channels).astype(np.float32).astype(np.float64)
    scale, zero = (0.25, -7) if quantised else (0.0, 0)
    spec = TensorSpec(
        "x", (1, channels), "int8" if quantised else "float32", scale, zero
    )
    x = (rng.normal(size=(1, channels)) * 9).astype(spec.dtype)
    reference = sealed(
        kind="vector",
        centre=pack_floats(centre),
        precision=pack_triangle(precision),
    )
    reader = build_reader(*describe(spec), reference)
    values = reader.read([x], [SCORES], 1, 0.9)
    assert values is not None
    y = real(spec, x)[0]
    assert y.tolist() == values[:channels].tolist()
    expected = mahalanobis(y, centre, precision)
    assert expected == pytest.approx(values[channels], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda x: np.minimum(x + 40, 255), "mean"),
        (lambda x: x * 0.5 + 60, "sd"),
        (lambda x: (x + np.roll(x, 1, axis=2)) / 2, "sharpness"),
        (lambda x: np.where(x > 128, 255, x), "clipped"),
    ],
)
def test_pictures_that_move_show_it(change: Any, moved: str) -> None:  # noqa: ANN401 - a function
    """Brighter, flatter, blurred, burnt out: the feature made for it moves most."""
    spec = TensorSpec("x", (1, 32, 32, 3), "uint8")
    rng = np.random.default_rng(7)
    frames = rng.normal(128, 40, (40, 1, 32, 32, 3)).clip(0, 255)
    calm = [features(spec, frame.astype(np.uint8)) for frame in frames[:39]]
    after = features(spec, change(frames[39]).astype(np.uint8))
    spread = {name: np.std([one[name] for one in calm]) for name in after}
    mean = {name: np.mean([one[name] for one in calm]) for name in after}
    shifts = {name: abs(after[name] - mean[name]) / spread[name] for name in after}
    assert shifts[moved] > 10
    assert shifts[moved] >= 0.5 * max(shifts.values())


BYTES_TO_ONE = (Normalise(mean=(127.5,), std=(127.5,)),)
CENTRED = (Scale(factor=1 / 127.5, offset=127.5),)
NORMALISED = (Scale(factor=1 / 255), Normalise(mean=(0.5, 0.4, 0.3), std=(0.2,) * 3))


@pytest.mark.parametrize(
    ("dtype", "scale", "zero", "steps", "expected"),
    [
        ("uint8", 1 / 255, 0, (), (16, 235)),
        ("int8", 1 / 255, -128, (), (-112, 107)),
        ("int8", 0.0, 0, (Cast(dtype="int8"),), (-112, 107)),
        ("float32", 0.0, 0, (Scale(factor=1 / 255),), (16 / 255, 235 / 255)),
        ("float32", 0.0, 0, (Scale(factor=-1.0),), (-235, -16)),
        ("float32", 0.0, 0, BYTES_TO_ONE, (-0.8745, 0.8431)),
        ("float32", 0.0, 0, (Normalise(mean=(0.5,), std=(0.5,)),), (-0.8745, 0.8431)),
        ("int8", 1 / 127, 0, CENTRED, (-111.0627, 107.0784)),
        ("float32", 0.0, 0, NORMALISED, (-2.1863, 2.1078)),
    ],
)
def test_black_and_white_follow_the_preprocessing(
    dtype: Dtype,
    scale: float,
    zero: int,
    steps: tuple[Step, ...],
    expected: tuple[float, float],
) -> None:
    """Studio black and white (16 and 235) in the numbers that the tensor stores."""
    spec = TensorSpec("x", (1, 16, 16, 3), dtype, scale, zero)
    runs = find_runs(spec, "image")
    assert runs is not None
    limits = find_limits(spec, steps, runs)
    assert limits is not None
    assert expected == pytest.approx((limits[0][0], limits[1][0]), abs=2e-4)


@pytest.mark.parametrize("steps", [(), (Normalise(mean=(1.0, 2.0), std=(1.0,)),)])
def test_without_a_range_what_is_flat_is_clipped(steps: tuple[Step, ...]) -> None:
    """Floats that may be 0 to 1 or 0 to 255: the darkest and brightest are counted."""
    spec = TensorSpec("x", (1, 20, 20, 3), "float32")
    x = np.random.default_rng(1).normal(size=spec.shape).astype(np.float32)
    few = features(spec, x, "image", preprocess=steps)["clipped"]
    many = features(spec, x.clip(-1, 1), "image", preprocess=steps)["clipped"]
    assert few == pytest.approx(2 / x.size)
    assert many == pytest.approx((np.abs(x) >= 1).mean())


@pytest.mark.parametrize(
    ("shape", "dtype", "steps", "expected"),
    [
        ((1, 96, 96, 3), "int8", (), "image"),
        ((1, 3, 224, 224), "float32", (), "image"),
        ((1, 28, 28, 1), "float32", (), "image"),
        ((96, 128), "uint8", (), "image"),
        ((1, 10, 60), "float32", (Resize(width=60, height=10),), "image"),
        ((1, 10, 60), "float32", (Colour(to="gray"),), "image"),
        ((1, 49, 10, 1), "int8", (), "spectrogram"),
        ((1, 49, 40), "float32", (LogMel(),), "spectrogram"),
        ((1, 40, 40), "float32", (LogMel(),), "spectrogram"),
        ((1, 1960), "int8", (LogMel(mels=40),), "spectrogram"),
        ((1, 490), "int8", (LogMel(), Mfcc(count=10)), "spectrogram"),
        ((1, 128, 9), "float32", (Window(length=128),), "spectrogram"),
        ((1, 491), "int8", (LogMel(), Mfcc(count=10)), "other"),
        ((1, 40), "float32", (LogMel(mels=40),), "other"),
        ((1, 32), "float32", (), "vector"),
        ((4, 4), "float32", (), "vector"),
        ((), "float32", (), "vector"),
        ((1, 1), "float32", (), "vector"),
        ((1, 33), "float32", (), "other"),
        ((1, 16000), "float32", (), "other"),
        ((2, 5, 5, 7), "float32", (), "other"),
    ],
)
def test_kinds_are_inferred(
    shape: tuple[int, ...], dtype: Dtype, steps: tuple[Step, ...], expected: Kind
) -> None:
    """From audio and picture steps first, then from shape and type."""
    assert expected == infer_kind(TensorSpec("x", shape, dtype), steps)


@pytest.mark.parametrize(
    ("shape", "steps", "task", "expected"),
    [
        ((1, 8, 8, 1), (), "classification", "image"),
        ((1, 8, 16), (), "classification", "image"),
        ((1, 8, 17), (), "classification", "spectrogram"),
        ((1, 7, 7), (), "classification", "spectrogram"),
        ((1, 8, 8, 1), (), "anomaly", "spectrogram"),
        ((1, 49, 10, 1), (), "classification", "spectrogram"),
        ((1, 12, 9), (Window(length=12),), "classification", "spectrogram"),
        ((1, 10, 10), (LogMel(), Mfcc(count=10)), "classification", "spectrogram"),
    ],
)
def test_small_pictures_that_are_classified_are_pictures(
    shape: tuple[int, ...], steps: tuple[Step, ...], task: Task, expected: Kind
) -> None:
    """Digits of 8 x 8 have no frequency bands; sounds and windows of sensors do."""
    assert expected == infer_kind(TensorSpec("x", shape, "float32"), steps, task)


@settings(max_examples=300)
@given(
    st.integers(1, 700),
    st.integers(2, 700),
    st.sampled_from([1, 3, 4]),
)
def test_runs_stay_within_the_tensor_and_are_bounded(
    height: int, width: int, channels: int
) -> None:
    """Runs are whole pixels of one row, spread over the picture; few enough to copy."""
    spec = TensorSpec("x", (1, height, width, channels), "uint8")
    runs = find_runs(spec, "image")
    if runs is None:
        return
    pixels = np.arange(height * width * channels).reshape(-1)[: runs.used]
    seen = pixels.reshape(-1, runs.length)[:: runs.step]
    assert (runs.count, runs.length) == seen.shape
    row = width * channels if height > 1 else seen.size
    assert (seen[:, 0] // row == seen[:, -1] // row).all()
    assert seen.size <= max(2 * LOOKED_AT, 2 * max(MAX_RUN, row))
    assert seen.size >= min(height * width * channels, LOOKED_AT) / 2


def test_wide_pictures_are_seen_on_both_sides() -> None:
    """Where a row has two runs, every 150th would always be the left one."""
    spec = TensorSpec("x", (1, 640, 640, 3), "uint8")
    runs = find_runs(spec, "image")
    assert runs is not None
    starts = np.arange(0, runs.used, runs.length)[:: runs.step] % (640 * 3)
    assert {0, 960} == set(starts.tolist())


def test_a_long_recording_is_looked_at_in_pieces() -> None:
    """Ten minutes of spectrogram cost no more than a second of it."""
    spec = TensorSpec("x", (1, 60_000, 40), "float32")
    table = find_table(spec, ())
    assert table is not None
    assert table.columns == 40
    assert table.count * table.columns <= LOOKED_AT + table.columns
    assert np.arange(60_000)[:: table.step].size == table.count
