"""References: what was sealed opens again; what is not of this model does not open."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.drift.features import build_reader
from agent.core.drift.packing import (
    lower_factor,
    pack_floats,
    pack_triangle,
    unpack_floats,
    unpack_triangle,
)
from agent.core.drift.reference import (
    Origin,
    build_distance,
    build_projection,
    fold_classes,
    open_reference,
    open_shipped,
    seal_reference,
)
from agent.core.manifest import TensorSpec
from agent.core.profile import MAX_PROFILE_BYTES, Profile, Reference, render_profile
from agent.core.reasons import Reason
from agent.core.steps import Scale
from agent.errors import BundleRefusedError
from tests.core.profiles import describe, floats, opened, profile_of

SPEC = TensorSpec("in", (1, 3), "float32")
NAMES = ("x0", "x1", "x2", "confidence", "entropy")
MANIFEST, VARIANT = describe(SPEC)
ORIGIN = Origin(variant=VARIANT.sha256, kind="vector", groups=5)


def good(**changes: object) -> Profile:
    """Return a profile of the model, its only reference changed."""
    reference = seal_reference(opened(NAMES, np.random.default_rng(3)), ORIGIN)
    return profile_of(MANIFEST, replace(reference, **changes))


def open_it(profile: Profile) -> object:
    """Open a profile's reference for the model."""
    reader = build_reader(MANIFEST, VARIANT)
    return open_reference(profile, MANIFEST, VARIANT, reader)


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(1, 6))
def test_opening_undoes_sealing(seed: int, width: int) -> None:
    """All numbers come back, rounded to float32; whitened distances are the same."""
    rng = np.random.default_rng(seed)
    spec = TensorSpec("in", (1, width), "float32")
    model = describe(spec, task="raw")
    names = tuple(f"x{number}" for number in range(width))
    whole = opened(names, rng)
    sealed = seal_reference(whole, replace_origin(kind="vector"))
    again = open_reference(profile_of(model[0], sealed), *model, build_reader(*model))
    for name in ("mean", "sd", "abs_mean", "abs_sd", "edges", "counts", "eps"):
        expected = getattr(whole, name).astype(np.float32)
        np.testing.assert_array_equal(expected, getattr(again, name))
    x = rng.normal(size=2 * width)
    expected = np.linalg.norm(x @ whole.whitening)
    assert expected == pytest.approx(np.linalg.norm(x @ again.whitening), rel=1e-4)
    for name in ("features", "thresholds", "site_thresholds", "classes", "target"):
        assert getattr(whole, name) == getattr(again, name)


def replace_origin(**changes: object) -> Origin:
    """Return the origin of the tests' references, changed."""
    kept: dict[str, object] = {"variant": VARIANT.sha256, "kind": "vector", "groups": 5}
    return Origin(**{**kept, **changes})  # type: ignore[arg-type] # a test's own words


@given(st.integers(1, 9), st.booleans())
def test_triangles_are_unpacked(side: int, symmetric: bool) -> None:  # noqa: FBT001 - drawn
    """Law: what is unpacked was packed, rounded to float32."""
    matrix = np.random.default_rng(side).normal(size=(side, side))
    whole = matrix + matrix.T if symmetric else np.tril(matrix)
    again = unpack_triangle(pack_triangle(whole), symmetric=symmetric)
    np.testing.assert_array_equal(whole.astype(np.float32), again)


@given(st.integers(1, 9))
def test_any_whitening_has_a_triangle(side: int) -> None:
    """``L @ L.T == W @ W.T``, and a triangle stays what it is, to the bit."""
    matrix = np.random.default_rng(side).normal(size=(side, side))
    lower = lower_factor(matrix)
    np.testing.assert_allclose(matrix @ matrix.T, lower @ lower.T, atol=1e-9)
    np.testing.assert_allclose(np.triu(lower, 1), 0.0, atol=1e-12)
    triangle = np.tril(matrix)
    np.testing.assert_array_equal(triangle, lower_factor(triangle))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: replace(p, model="other"), "of model 'other'"),
        (lambda p: replace(p, features_version=9), "feature code 9"),
        (lambda p: replace(p, preprocessing="0" * 64), "other preprocess steps"),
        (lambda p: with_reference(p, variant="0" * 64), "no reference of variant abab"),
        (lambda p: with_reference(p, kind="other"), "looked at as other, here as vec"),
        (
            lambda p: with_reference(p, features=("x0", "x1", "x2", "confidence", "y")),
            r"without \['entropy'\], with unknown \['y'\]",
        ),
        (
            lambda p: with_reference(p, features=NAMES[::-1]),
            r"other features",
        ),
        (
            lambda p: with_reference(p, whitening=b"\0" * 220),
            "whitening is none of any samples",
        ),
        (
            lambda p: with_reference(p, whitening=floats(*[5e29] * 55)),
            "whitening is none of any samples",
        ),
        (
            lambda p: with_reference(p, thresholds={"all": 1.0, "input": 1.0}),
            "no threshold for output",
        ),
        (
            lambda p: with_reference(p, sd=floats(0, 0, 0, 0, 0)),
            "no feature ever moved",
        ),
        (
            lambda p: with_reference(p, mean=floats(0, 0, 0, 0, float("nan"))),
            "mean: a value is not finite",
        ),
        (
            lambda p: with_reference(p, whitening=b"\0\0\xc0\x7f" * 55),
            "whitening: a value is not finite",
        ),
    ],
)
def test_what_is_not_of_this_model_is_refused(
    change: Callable[[Profile], Profile], said: str
) -> None:
    """Comparing with it would alarm for ever, or never; the words say what differs."""
    with pytest.raises(BundleRefusedError, match=said) as caught:
        open_it(change(good()))
    assert caught.value.reason == Reason.PROFILE


def with_reference(profile: Profile, **changes: object) -> Profile:
    """Return a profile whose only reference is changed."""
    (reference,) = profile.references
    return replace(profile, references=(replace(reference, **changes),))


def test_constant_features_are_left_out() -> None:
    """They stay in the list and are no longer looked at; others are."""
    sd = floats(1, 0, 1, 1, 1)
    reader = build_reader(MANIFEST, VARIANT)
    found = open_reference(good(sd=sd), MANIFEST, VARIANT, reader)
    assert found.moving.tolist() == [True, False, True, True, True]


def test_a_good_profile_opens_with_its_reader() -> None:
    """The reader is made with the reference, so that it has a distance, too."""
    centre, precision = build_distance(np.random.default_rng(1).normal(size=(99, 3)))
    names = (*NAMES[:3], "distance", *NAMES[3:])
    reference = replace(
        seal_reference(opened(names, np.random.default_rng(3)), ORIGIN),
        centre=centre,
        precision=precision,
    )
    raw = render_profile(profile_of(MANIFEST, reference))
    shipped = open_shipped(raw, MANIFEST, VARIANT)
    assert (names, "", "") == (shipped.reader.names, shipped.reason, shipped.detail)
    assert shipped.reference is not None
    assert len(shipped.reference.digest) == 64


def test_no_profile_is_no_mistake() -> None:
    """The reader works without; the word says that there is only a site baseline."""
    shipped = open_shipped(b"", MANIFEST, VARIANT)
    assert (*(shipped.reader.names, shipped.reference, shipped.reason),) == (
        NAMES,
        None,
        Reason.UNWATCHED,
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b"\xff" * 100,
        b" " * (MAX_PROFILE_BYTES + 1),
        render_profile(good(kind="image")),
        render_profile(good(features=("a", "b", "c", "d", "e"))),
        render_profile(replace(good(), model="other")),
        render_profile(good(centre=floats(0), precision=floats(1))),
    ],
)
def test_a_bad_profile_stops_nothing(raw: bytes) -> None:
    """The model answers and is watched without it; the word and a detail say why."""
    shipped = open_shipped(raw, MANIFEST, VARIANT)
    assert (*(shipped.reader.names, shipped.reference, shipped.reason),) == (
        NAMES,
        None,
        Reason.PROFILE,
    )
    assert shipped.detail.startswith("profile.json: ")


def test_a_profile_made_before_a_step_changed_is_refused() -> None:
    """The features of pictures that are scaled otherwise are others."""
    scaled = replace(MANIFEST, preprocess=(Scale(factor=0.5),))
    shipped = open_shipped(render_profile(good()), scaled, VARIANT)
    assert "other preprocess steps" in shipped.detail


def test_a_contradiction_is_not_sealed() -> None:
    """What a builder computed wrongly is refused where it was made."""
    whole = opened(NAMES, np.random.default_rng(3))
    whole.mean[2] = np.nan
    with pytest.raises(BundleRefusedError, match="mean: a value is not finite"):
        seal_reference(whole, ORIGIN)


def test_many_classes_are_folded() -> None:
    """As the statistics block counts them: 64, and one for all others."""
    assert fold_classes((3,) * 64) == (3,) * 64
    assert (*(3,) * 64, 3) == fold_classes((3,) * 65)
    assert (*(3,) * 64, 2808) == fold_classes((3,) * 1000)


def test_the_digest_tells_references_apart() -> None:
    """Two profiles that compare otherwise have two digests."""
    one, other = open_it(good()), open_it(good(mean=floats(9, 9, 9, 9, 9)))
    assert getattr(one, "digest", "") != getattr(other, "digest", "")


def test_projections_are_principal_axes() -> None:
    """The axes along which values spread most, at right angles, most first."""
    rng = np.random.default_rng(4)
    values = rng.normal(size=(500, 6)) * [1, 9, 1, 3, 1, 1] + 5
    inner = build_projection("inner", values, 2)
    axes = unpack_floats(inner.axes, 2, 6)
    np.testing.assert_allclose(np.eye(2), axes @ axes.T, atol=1e-6)
    assert np.abs(axes).argmax(axis=1).tolist() == [1, 3]
    np.testing.assert_allclose(values.mean(0), unpack_floats(inner.mean, 6), rtol=1e-6)
    assert build_projection("inner", values[:, :1], 8).count == 1


def test_distances_bear_channels_that_are_one_or_none() -> None:
    """A sensor read twice, and one that is not connected, divide by nothing."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(300, 4))
    values[:, 1], values[:, 3] = values[:, 0], 7.0
    centre, precision = build_distance(values)
    matrix = unpack_triangle(precision, symmetric=True)
    assert (np.linalg.eigvalsh(matrix) > 0).all()
    apart = values - unpack_floats(centre, 4)
    squares = np.einsum("ni,ij,nj->n", apart, matrix, apart)
    assert squares.mean() == pytest.approx(2.0, abs=0.1)  # two that move on their own
    broken = values[:100].copy()
    broken[:, 1] = -broken[:, 1]
    apart = broken - unpack_floats(centre, 4)
    assert np.median(np.einsum("ni,ij,nj->n", apart, matrix, apart)) > 100


def test_floats_are_little_endian() -> None:
    """A profile made on one machine is read on any other."""
    assert floats(1.5, -2.0) == pack_floats(np.array([1.5, -2.0]))
    assert isinstance(good().references[0], Reference)
