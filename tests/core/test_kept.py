"""Kept samples: their format, what binds them to receipts, and which are asked for."""

import contextlib
import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.kept import (
    KeptSample,
    choose,
    cpu_print,
    fits_receipt,
    hash_tensors,
    kept_name,
    kept_seq,
    parse_kept,
    render_kept,
    seal_context,
)
from agent.core.receipts import BLAKE2B, InputHash, Receipt

tensors = st.lists(st.binary(max_size=40), min_size=1, max_size=4).map(tuple)
samples = st.builds(
    KeptSample, st.integers(0, 2**62 - 1), tensors, tensors, st.text(max_size=20)
)


def receipt_of(sample: KeptSample, hashed: InputHash = "sha256") -> Receipt:
    """Return the receipt that a worker gives of a sample."""
    flags = BLAKE2B if hashed == "blake2b" else 0
    given = hash_tensors(sample.inputs, hashed)
    return Receipt(0, 1, 1, flags, 7, bytes(32), given, hash_tensors(sample.outputs))


@given(samples)
def test_parsing_gives_the_sample_back(sample: KeptSample) -> None:
    """``parse_kept(render_kept(s)) == s``."""
    assert sample == parse_kept(render_kept(sample))


@given(st.binary(max_size=200))
def test_anything_else_is_a_value_error(content: bytes) -> None:
    """Bytes of anybody's are a sample or refused."""
    with contextlib.suppress(ValueError):
        assert render_kept(parse_kept(content))


@given(samples, st.sampled_from(["sha256", "blake2b"]), st.data())
def test_a_receipt_fits_its_own_sample_alone(
    sample: KeptSample, hashed: InputHash, data: st.DataObject
) -> None:
    """One changed bit on either side is another sample."""
    receipt = receipt_of(sample, hashed)
    assert fits_receipt(sample, receipt)
    for side in ("inputs", "outputs"):
        whole = b"".join(getattr(sample, side))
        if not whole:
            continue
        at = data.draw(st.integers(0, len(whole) - 1))
        other = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        changed = replace(sample, **{side: (other,)})
        assert not fits_receipt(changed, receipt)


def test_hashes_are_the_standard_ones() -> None:
    """Tensors are hashed one after the other, by what everybody has."""
    assert hashlib.sha256(b"abc").digest() == hash_tensors([b"a", b"bc"])
    expected = hashlib.blake2b(b"abc", digest_size=32).digest()
    assert expected == hash_tensors([b"ab", b"c"], "blake2b")


@given(st.integers(0, 10**19))
def test_names_sort_as_receipts_do(seq: int) -> None:
    """``kept_seq(kept_name(seq)) == seq``."""
    assert seq == kept_seq(kept_name(seq))


@pytest.mark.parametrize(
    "name", ["", "1.kept", f"{7:020d}.kept.tmp", f"{7:020d}", "x" * 20 + ".kept"]
)
def test_other_names_are_no_kept_inputs(name: str) -> None:
    """Half-written files and strangers are nothing."""
    assert kept_seq(name) is None


@given(
    st.lists(st.integers(0, 10**6), unique=True, max_size=30),
    st.binary(max_size=64),
    st.integers(0, 40),
)
def test_a_choice_is_the_same_for_everyone(
    seqs: list[int], seed: bytes, samples: int
) -> None:
    """Order does not matter, nothing is asked twice, and more holds what fewer does."""
    chosen = choose(seqs, seed, b"root", samples)
    assert chosen == choose(seqs[::-1], seed, b"root", samples)
    assert sorted(set(chosen)) == chosen
    assert len(chosen) == min(samples, len(seqs))
    assert set(chosen) <= set(choose(seqs, seed, b"root", samples + 1))


def test_a_choice_follows_seed_and_root() -> None:
    """Over many seeds, and over many roots, each one is asked for about as often."""
    for by_seed in (True, False):
        counts: Counter[int] = Counter()
        for number in range(2000):
            drawn = number.to_bytes(2)
            pair = (drawn, b"root") if by_seed else (b"seed", drawn)
            counts.update(choose(range(20), *pair, 2))
        assert set(counts) == set(range(20))
        # 200 expected of each, with a deviation of 13; seeds here are fixed.
        assert all(130 < count < 270 for count in counts.values())


def test_seed_and_root_do_not_run_into_each_other() -> None:
    """Moving a byte from one to the other asks for others."""
    one, other = (choose(range(50), *it, 9) for it in ((b"ab", b"c"), (b"a", b"bc")))
    assert one != other


def test_what_is_sealed_for_one_receipt_is_for_no_other() -> None:
    """Board, pipeline and number each change the context."""
    contexts = {seal_context(*it) for it in (("a", 1, 2), ("b", 1, 2), ("a", 2, 1))}
    assert len(contexts) == 3


def test_a_cpu_without_a_word_still_has_a_print() -> None:
    """Other machines, and other abilities, are other prints."""
    words = ("", "flags: a b", "flags: a", "Features: a b c")
    assert len({cpu_print("m", it) for it in words}) == len(words)
