"""Deltas as they are signed: what is one, which is chosen, what it may take."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.deltas import (
    MAX_WINDOW_LOG,
    DeltaFields,
    SignedDelta,
    apply_bytes,
    best_delta,
    delta_path,
    ends_of,
    fits_memory,
    is_worth,
    leads_to,
    parse_delta,
    window_log,
)
from agent.core.reasons import Reason
from agent.core.targets import BundleFields, SignedTarget, bundle_path
from agent.errors import BundleRefusedError

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
FIELDS = DeltaFields("kws", 2, 1, OLD, NEW, 1000)
HASHES = {"sha256": "d" * 64}
DELTA = SignedDelta(delta_path(OLD, NEW), 40, "d" * 64, FIELDS)
TARGET = SignedTarget(
    bundle_path("kws", 2), 1000, NEW, BundleFields("kws", 2, NEW, 1000)
)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
BYTES = st.integers(1, 2**40)


@given(DIGESTS, DIGESTS)
def test_a_name_says_both_ends(before: str, after: str) -> None:
    """Law: ends_of(delta_path(a, b)) == (a, b); the name fits a slice and a file."""
    path = delta_path(before, after)
    assert ends_of(path) == (before, after)
    assert len(f"{before}.{path.rpartition('/')[2]}") <= 200


def test_what_was_signed_comes_back() -> None:
    """Law: parsing what is written into ``custom`` gives the same fields."""
    custom = msgspec.to_builtins(FIELDS)
    assert parse_delta(DELTA.path, 40, HASHES, custom) == DELTA


@pytest.mark.parametrize(
    ("path", "hashes", "custom"),
    [
        (delta_path(OLD, OTHER), HASHES, {}),
        (delta_path(OTHER, NEW), HASHES, {}),
        (delta_path(NEW, OLD), HASHES, {}),
        (delta_path(OLD, NEW), {"sha512": "d" * 128}, {}),
        (delta_path(OLD, NEW), HASHES, {"bytes": 0}),
        (delta_path(OLD, NEW), HASHES, {"version": "2"}),
        (delta_path(OLD, NEW), HASHES, {"engine": "bsdiff"}),
        (delta_path(OLD, NEW), HASHES, {"from_sha256": "A" * 64}),
    ],
)
def test_72_a_delta_whose_fields_make_no_sense_is_none(
    path: str, hashes: dict[str, str], custom: dict[str, object]
) -> None:
    """Another pair than its name says, fields that are unknown or of another type."""
    said = {**msgspec.to_builtins(FIELDS), **custom}
    with pytest.raises(BundleRefusedError) as caught:
        parse_delta(path, 40, hashes, said)
    assert caught.value.reason == Reason.METADATA


@pytest.mark.parametrize(
    "fields",
    [{"model": "vww"}, {"version": 3}, {"to_sha256": OTHER}, {"bytes": 999}],
)
def test_72_a_delta_to_another_bundle_is_not_used(fields: dict[str, object]) -> None:
    """Whatever it is signed for has to be what is wanted."""
    assert leads_to(DELTA, TARGET)
    other = replace(DELTA, fields=replace(FIELDS, **fields))
    assert not leads_to(other, TARGET)
    assert best_delta([other], TARGET, 1000) is None


def test_what_is_sealed_is_never_built_from_a_delta() -> None:
    """Its plain bytes are not the target's: nobody has them outside memory."""
    sealed = replace(TARGET, fields=replace(TARGET.fields, plain_sha256=OTHER))
    assert best_delta([DELTA], sealed, 1000) is None


def test_the_shortest_delta_wins_unless_less_is_missing() -> None:
    """With most of the bundle here already, the rest of it is fetched."""
    longer = replace(DELTA, length=60)
    assert best_delta([longer, DELTA], TARGET, 1000) == DELTA
    assert best_delta([longer], TARGET, 61) == longer
    assert best_delta([longer], TARGET, 60) is None
    assert best_delta([], TARGET, 1000) is None


@given(BYTES, BYTES)
def test_the_window_sees_all_of_both(old: int, new: int) -> None:
    """Law: 2^log >= old + new, up to zstd's own limit; and no wider than twice that."""
    log = window_log(old, new)
    if log < MAX_WINDOW_LOG:
        assert 2**log > old + new
        assert 2**log <= max(2 * (old + new), 2**10)


@given(BYTES, BYTES)
def test_only_what_is_below_the_share_is_worth_it(delta: int, whole: int) -> None:
    """Law: a delta is never worth it where the whole is not larger."""
    assert is_worth(delta, whole) == (delta < 0.6 * whole)
    assert not (is_worth(delta, whole) and delta >= whole)


@given(BYTES, BYTES, BYTES)
def test_memory_is_a_share_of_what_a_model_could_get(
    old: int, new: int, ram: int
) -> None:
    """Law: what fits leaves half of it, and more memory never makes it not fit."""
    if fits_memory(old, new, ram):
        assert apply_bytes(old, new) * 2 <= ram
        assert fits_memory(old, new, 2 * ram)
    assert fits_memory(old, new, 2 * apply_bytes(old, new))
