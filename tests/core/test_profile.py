"""The reference profile: strict, one spelling, and only refusals for bad bytes."""

import contextlib
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.profile import (
    BINS,
    FEATURES_VERSION,
    MAX_CHANNELS,
    MAX_PROFILE_BYTES,
    Profile,
    Projection,
    Reference,
    check_profile,
    find_reference,
    parse_profile,
    preprocessing_digest,
    render_profile,
)
from agent.core.profile_numbers import triangle
from agent.core.reasons import Reason
from agent.core.steps import Normalise, Scale
from agent.core.watching import MAX_FEATURES
from agent.errors import BundleRefusedError
from tests.core.profiles import COUNT, describe, floats, profile_of, sealed

MANIFEST, VARIANT = describe()
LARGE = 2.0**99  # a float32 just below what is allowed
numbers = st.floats(-LARGE, LARGE, width=32)
names = st.from_regex(r"[a-z0-9_]{1,32}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def packed(count: int, values: st.SearchStrategy[float]) -> st.SearchStrategy[bytes]:
    """Return float32 bytes of so many values."""
    drawn = st.lists(values, min_size=count, max_size=count)
    return drawn.map(lambda row: floats(*row))


@st.composite
def edges(draw: st.DrawFn, d: int) -> bytes:
    """Return rows of quantiles: none below the one before."""
    rows = [
        sorted(draw(st.lists(numbers, min_size=BINS - 1, max_size=BINS - 1)))
        for _ in range(d)
    ]
    return b"".join(floats(*row) for row in rows)


@st.composite
def counts(draw: st.DrawFn, d: int) -> bytes:
    """Return rows of counts, each of ``COUNT`` in all."""
    rows = []
    for _ in range(d):
        row = [0] * BINS
        for at in draw(st.lists(st.integers(0, BINS - 1), max_size=9)):
            row[at] += 1
        row[0] += COUNT - sum(row)
        rows.append(struct.pack(f"<{BINS}I", *row))
    return b"".join(rows)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    """Return any reference that does not contradict itself."""
    features = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    d, channels = len(features), draw(st.integers(0, 3))
    positive = st.floats(0.0, LARGE, width=32)
    inner = st.builds(
        Projection,
        output=texts,
        count=st.just(2),
        mean=packed(3, numbers),
        axes=packed(6, numbers),
    )
    thresholds = st.dictionaries(
        st.sampled_from(["input", "output", "prediction"]), st.floats(1e-3, 1e9)
    )
    return sealed(
        tuple(features),
        kind=draw(st.sampled_from(["image", "spectrogram", "vector", "other"])),
        mean=draw(packed(d, numbers)),
        sd=floats(*[1.0] * d),
        abs_sd=draw(packed(d, positive)),
        whitening=draw(packed(triangle(2 * d), numbers)),
        edges=draw(edges(d)),
        counts=draw(counts(d)),
        eps=draw(packed(d, st.floats(0, 1, width=32))),
        thresholds={"all": 9.0, **draw(thresholds)},
        site_thresholds=draw(thresholds),
        classes=tuple(draw(st.lists(st.integers(0, 2), max_size=65))),
        centre=draw(packed(channels, numbers)),
        precision=draw(packed(triangle(channels), numbers)),
        projection=draw(st.none() | inner),
        logits=draw(st.booleans()),
        autocorrelation=draw(st.floats(-1, 1)),
        confidence=draw(st.floats(-1, 1)),
        notes=tuple(draw(st.lists(texts, max_size=3))),
    )


profiles = st.builds(
    Profile,
    schema=st.just(1),
    model=texts,
    preprocessing=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    features_version=st.integers(1, 2**31),
    references=st.lists(references(), min_size=1, max_size=1).map(tuple),
)


def good() -> Profile:
    """Return a profile with every optional part in it."""
    inner = Projection("inner", 2, floats(0, 0, 0), floats(*[0.5] * 6))
    return profile_of(
        MANIFEST,
        sealed(
            centre=floats(0, 0),
            precision=floats(1, 0, 1),
            projection=inner,
            classes=(COUNT,),
            notes=("no ordered recording",),
        ),
    )


def tree() -> dict[str, Any]:
    """Return a good profile as JSON values, to be spoiled."""
    parsed: dict[str, Any] = json.loads(render_profile(good()))
    return parsed


def spoiled(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a profile whose first reference was changed."""
    whole = tree()
    change(whole["references"][0])
    return json.dumps(whole).encode()


def refusal(raw: bytes) -> str:
    """Return what the error says that refuses these bytes."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_profile(raw)
    assert caught.value.reason == Reason.PROFILE
    return str(caught.value)


@settings(max_examples=60)
@given(profiles)
def test_parse_undoes_render(profile: Profile) -> None:
    """``parse_profile(render_profile(p)) == p``."""
    assert profile == parse_profile(render_profile(profile))


@settings(max_examples=30)
@given(profiles)
def test_render_is_canonical(profile: Profile) -> None:
    """What was parsed renders to the bytes it was parsed from."""
    raw = render_profile(profile)
    assert raw == render_profile(parse_profile(raw))


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused(raw: bytes) -> None:
    """Arbitrary bytes raise nothing but a refusal."""
    refusal(raw)


@settings(max_examples=500)
@given(st.data())
def test_a_changed_byte_is_parsed_or_refused(data: st.DataObject) -> None:
    """A profile with a few bytes replaced raises nothing but a refusal."""
    raw = bytearray(render_profile(good()))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleRefusedError):
        check_profile(parse_profile(bytes(raw)))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=500)
@given(st.sampled_from(sorted(tree()["references"][0])), values)
def test_any_value_in_any_place_is_parsed_or_refused(key: str, value: object) -> None:
    """A reference with one value replaced by any JSON is parsed or refused."""
    raw = spoiled(lambda reference: reference.update({key: value}))
    with contextlib.suppress(BundleRefusedError):
        check_profile(parse_profile(raw))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_is_not_finite(number: str) -> None:
    """NaN and infinity are refused wherever JSON can spell a number."""
    raw = render_profile(good()).replace(
        b'"target":0.05', b'"target":' + number.encode()
    )
    refusal(raw)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e38])
@pytest.mark.parametrize("name", ["mean", "sd", "abs_mean", "abs_sd", "eps"])
def test_arrays_are_finite(name: str, bad: float) -> None:
    """NaN, infinity and what cannot be squared is refused in an array, too."""
    profile = profile_of(MANIFEST, replace(sealed(), **{name: floats(1.0, bad)}))
    with pytest.raises(BundleRefusedError, match=f"{name}: a value is not"):
        check_profile(profile)


@pytest.mark.parametrize(
    "name",
    ["mean", "sd", "abs_mean", "abs_sd", "whitening", "edges", "counts", "eps"],
)
@pytest.mark.parametrize("extra", [b"", b"\0", b"\0" * 4])
def test_arrays_have_the_size_of_the_feature_list(name: str, extra: bytes) -> None:
    """One value more or fewer, or a part of one, is refused."""
    whole = getattr(sealed(), name)
    wrong = whole + extra if extra else whole[:-4]
    with pytest.raises(BundleRefusedError, match=f"{name}: .* bytes, .* are needed"):
        check_profile(profile_of(MANIFEST, replace(sealed(), **{name: wrong})))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sd": floats(1, -1)}, "sd: a value is not within"),
        ({"sd": floats(0, 0)}, "no feature ever moved"),
        ({"abs_sd": floats(1, -1)}, "abs_sd: a value is not within"),
        ({"eps": floats(0.1, 1.5)}, "eps: a value is not within 0 to 1"),
        ({"features": ("mean", "mean")}, "a name stands twice"),
        ({"edges": floats(*range(29, -1, -1))}, "edges: row 0 falls"),
        ({"counts": struct.pack("<32I", *range(32))}, "counts: row 0 has 120 of 160"),
        ({"thresholds": {}}, "there is none for all features"),
        ({"thresholds": {"all": 1.0, "half": 1.0}}, "'half' is no scope"),
        ({"site_thresholds": {"some": 1.0}}, "'some' is no scope"),
        ({"classes": (COUNT, 1)}, "more answers than 160 samples"),
        ({"centre": b"\0" * 6}, "6 bytes are no float32 values"),
        ({"centre": floats(*[0.0] * (MAX_CHANNELS + 1))}, "33 channels"),
        ({"centre": floats(0, 0)}, "precision: 0 bytes, 3 values"),
        ({"precision": floats(0, 0)}, "precision: 8 bytes, 0 values"),
        (
            {"projection": Projection("x", 2, floats(0, 0), floats(0, 0))},
            "projection.axes: 8 bytes, 4 values",
        ),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], said: str) -> None:
    """What types alone allow and sense does not is refused, and the place is named."""
    with pytest.raises(BundleRefusedError, match=said):
        check_profile(profile_of(MANIFEST, sealed(**changes)))


def test_constant_features_stay() -> None:
    """A feature that never moved is no reason to refuse the others."""
    profile = profile_of(MANIFEST, sealed(sd=floats(1, 0), abs_sd=floats(1, 0)))
    assert profile == parse_profile(render_profile(profile))


def test_two_references_of_one_variant_are_refused() -> None:
    """Which of them is meant could not be known."""
    with pytest.raises(BundleRefusedError, match="two references are of one variant"):
        check_profile(profile_of(MANIFEST, sealed(), sealed()))


def test_the_same_key_twice_is_refused() -> None:
    """Two readers would believe two different things."""
    raw = render_profile(good()).replace(b'"schema":1', b'"schema":1,"schema":1')
    assert "stands twice" in refusal(raw)


def test_deep_json_is_refused() -> None:
    """Nesting beyond the interpreter's depth ends as a refusal."""
    refusal(b"[" * 30_000 + b"]" * 30_000)


def test_more_than_64_kb_are_refused() -> None:
    """Nothing is parsed of what is too large; blanks count, too."""
    assert "at most 65536" in refusal(b" " * (MAX_PROFILE_BYTES + 1))
    raw = render_profile(good())
    padded = raw + b" " * (MAX_PROFILE_BYTES - len(raw))
    assert good() == parse_profile(padded)


def test_a_newer_schema_is_named() -> None:
    """What a newer agent's keys mean is not guessed at."""
    raw = json.dumps({**tree(), "schema": 2, "new": 1}).encode()
    assert "schema 2 is newer than 1" in refusal(raw)


def test_half_a_character_is_refused() -> None:
    """A lone surrogate, which JSON can spell, would end whoever prints it."""
    refusal(spoiled(lambda reference: reference.update(notes=["\ud800"])))


def test_what_cannot_be_parsed_is_not_rendered() -> None:
    """A builder's mistake shows when it writes, not on a board."""
    with pytest.raises(BundleRefusedError, match="Expected `int` >= 50"):
        render_profile(profile_of(MANIFEST, sealed(count=3)))


def test_too_much_is_not_rendered() -> None:
    """Inner axes that do not fit are told of when they are written."""
    size = 1500
    inner = Projection("x", 8, b"\0" * 4 * size, b"\0" * 32 * size)
    with pytest.raises(BundleRefusedError, match="look along fewer axes"):
        render_profile(profile_of(MANIFEST, sealed(projection=inner)))


def test_two_variants_of_the_widest_model_fit() -> None:
    """Forty features, a sensor vector's distance among them, fit twice."""
    features = tuple(f"f{number}" for number in range(MAX_FEATURES))
    centre = floats(*[0.123] * MAX_CHANNELS)
    precision = floats(*[0.123] * triangle(MAX_CHANNELS))
    wide = sealed(features, centre=centre, precision=precision)
    both = (wide, replace(wide, variant="cd" * 32))
    raw = render_profile(profile_of(MANIFEST, *both))
    assert len(raw) < MAX_PROFILE_BYTES


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "other"}, "of model 'other', not 'kws'"),
        ({"features_version": FEATURES_VERSION + 1}, "made by feature code 2"),
        ({"preprocessing": "0" * 64}, "other preprocess steps"),
    ],
)
def test_another_models_profile_is_refused(changes: dict[str, Any], said: str) -> None:
    """A profile of another model, feature code or preprocessing compares nothing."""
    profile = replace(profile_of(MANIFEST, sealed()), **changes)
    with pytest.raises(BundleRefusedError, match=said):
        find_reference(profile, MANIFEST, VARIANT.sha256)


def test_another_variants_reference_is_refused() -> None:
    """A float model's features are not those of its int8 variant."""
    profile = profile_of(MANIFEST, sealed())
    assert sealed() == find_reference(profile, MANIFEST, VARIANT.sha256)
    with pytest.raises(
        BundleRefusedError, match="no reference of variant 000000000000"
    ):
        find_reference(profile, MANIFEST, "0" * 64)


def test_the_digest_covers_all_that_stands_before_the_model() -> None:
    """Steps, their order, their numbers and io each change it; the version does not."""
    one, two = Scale(factor=0.5), Normalise(mean=(1.0,))
    digests = [
        preprocessing_digest(replace(MANIFEST, preprocess=steps, io=io))
        for steps in ((), (one,), (two,), (one, two), (two, one), (Scale(factor=2.0),))
        for io in ("raw", "float")
    ]
    assert len(digests) == len(set(digests))
    newer = replace(MANIFEST, version=8, labels=("a", "b"))
    assert preprocessing_digest(MANIFEST) == preprocessing_digest(newer)


@pytest.mark.parametrize("raw", [b'{"schema": 1, "model": "dig', b"\xff\xfe", b""])
def test_a_damaged_file_is_called_damaged(raw: bytes) -> None:
    """The words of a JSON parser, its columns and bytes, stay out of a page."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_profile(raw)
    assert str(caught.value) == "profile.json: it is cut off or damaged"
