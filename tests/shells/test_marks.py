"""Marked copies: who may mark a model, and that nothing but its head is altered."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.marking import HeadPlace
from agent.core.sealing import MARKS_DOMAIN, HeadBlock, Marks, SignedMarks
from agent.errors import BundleRefusedError
from agent.trust.bundle import open_bundle
from tests.fakes.bundles import VARIANTS, good_bundle, markable_bundle
from tests.fakes.sealed_bytes import Marker, SealedBytes, marks_of, seal_bytes

OWNER, STRANGER = (Marker(Ed25519PrivateKey.generate()) for _ in range(2))
HEADS = (
    HeadPlace("int8", 0, 100),
    HeadPlace("int8", 3_900, 300),
    HeadPlace("float", 6_000, 3_000),
)
MADE = seal_bytes(plain=markable_bundle(*HEADS), marks_key=OWNER.public_key)
UNMARKED = seal_bytes()
HEAD = HeadBlock("int8", 4_000, b"the head of this board")


def refused(
    made: SealedBytes, signed: SignedMarks | None, reason: str = "envelope"
) -> str:
    """Return what is said about an envelope with these marks."""
    with pytest.raises(BundleRefusedError) as caught:
        made.open(envelope=made.envelope(signed))
    assert caught.value.reason == reason
    return str(caught.value)


def test_a_board_runs_its_own_copy() -> None:
    """The head differs, everything else is as it was sealed; the digests say so."""
    opened = MADE.open(envelope=MADE.envelope(OWNER.sign(marks_of(MADE.plain, HEAD))))
    plain = open_bundle(MADE.plain, max_bytes=2**20)
    content = bytes(opened.variant_bytes("int8"))
    expected = bytearray(VARIANTS["int8"])
    expected[4_000 : 4_000 + len(HEAD.content)] = HEAD.content
    assert bytes(expected) == content
    assert hashlib.sha256(content).hexdigest() == opened.variant_sha256("int8")
    assert plain.variant_sha256("float") == opened.variant_sha256("float")
    assert plain.variant_bytes("float") == opened.variant_bytes("float")
    assert (plain.raw_manifest, plain.golden) == (opened.raw_manifest, opened.golden)
    assert opened.marks == marks_of(MADE.plain, HEAD)
    assert opened.golden.readonly


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(VARIANTS)),
    st.integers(0, 10_000),
    st.binary(min_size=1, max_size=3_000),
)
def test_a_block_stays_inside_of_a_declared_head(
    variant: str, offset: int, content: bytes
) -> None:
    """Law: it changes exactly what it says, inside of a head, or is refused."""
    block = HeadBlock(variant, offset, content)
    signed = OWNER.sign(marks_of(MADE.plain, block))
    end = offset + len(content)
    inside = (
        it.variant == variant and it.offset <= offset and end <= it.offset + it.length
        for it in HEADS
    )
    if not any(inside):
        assert "no head" in refused(MADE, signed, "watermark")
        return
    opened = MADE.open(envelope=MADE.envelope(signed))
    expected = {name: bytearray(it) for name, it in VARIANTS.items()}
    expected[variant][offset : offset + len(content)] = content
    found = {name: bytes(opened.variant_bytes(name)) for name in VARIANTS}
    assert found == expected


def test_who_signs_marks_cannot_swap_the_model() -> None:
    """The whole file, rightly signed and with its digest: it is no head."""
    whole = HeadBlock("int8", 0, bytes(len(VARIANTS["int8"])))
    signed = OWNER.sign(marks_of(MADE.plain, whole))
    assert "no head" in refused(MADE, signed, "watermark")
    # Nor in pieces that begin in a head and go on behind it.
    pieces = HeadBlock("int8", 0, bytes(100)), HeadBlock("int8", 100, bytes(100))
    signed = OWNER.sign(marks_of(MADE.plain, *pieces))
    assert "bytes 100 to 200" in refused(MADE, signed, "watermark")


def test_without_declared_heads_nothing_is_altered() -> None:
    """A version with triggers and no heads, or without a watermark, has no copies."""
    for plain in (markable_bundle(), good_bundle()):
        made = seal_bytes(plain=plain, marks_key=OWNER.public_key)
        signed = OWNER.sign(marks_of(plain, HEAD))
        assert "no head" in refused(made, signed, "watermark")


def test_blocks_may_touch_and_not_overlap() -> None:
    """One behind the other, in any order; a byte that is marked twice is refused."""
    one, two = HeadBlock("int8", 10, b"abcd"), HeadBlock("int8", 14, b"efgh")
    signed = OWNER.sign(marks_of(MADE.plain, two, one))
    opened = MADE.open(envelope=MADE.envelope(signed))
    assert bytes(opened.variant_bytes("int8")[10:18]) == b"abcdefgh"
    over = HeadBlock("int8", 13, b"efgh")
    assert "overlap" in refused(MADE, OWNER.sign(marks_of(MADE.plain, one, over)))


def test_marks_of_another_key_or_domain_are_refused() -> None:
    """A stranger's, an unsigned one's, or what the owner signed for something else."""
    marks = marks_of(MADE.plain, HEAD)
    stranger, elsewhere = STRANGER.sign(marks), OWNER.sign(marks, b"tinyward/log\0")
    right = OWNER.sign(marks)
    changed = replace(right, marks=right.marks[:-1] + b"\1")
    for signed in (stranger, elsewhere, replace(right, signature=bytes(64)), changed):
        assert "not signed by the key" in refused(MADE, signed)


@pytest.mark.parametrize(
    "changes",
    [
        {"board": "pi-8"},
        {"target": "models/kws/8.bundle"},
        {"plain_sha256": "b" * 64},
    ],
)
def test_marks_for_somebody_else_are_refused(changes: dict[str, str]) -> None:
    """Rightly signed, for another board, another version or other bytes."""
    marks = replace(marks_of(MADE.plain, HEAD), **changes)
    said = refused(MADE, OWNER.sign(marks))
    assert "another version" in said or "this board is pi-7" in said


def test_marks_are_where_they_are_announced_and_nowhere_else() -> None:
    """A marked version needs them; in an unmarked one they are refused."""
    signed = OWNER.sign(marks_of(UNMARKED.plain, HEAD))
    assert "unannounced" in refused(UNMARKED, signed)
    assert "lacks" in refused(MADE, None)


def spoiled_results() -> list[Marks]:
    """Return marks whose digests are not those of the blocks."""
    marks = marks_of(MADE.plain, HEAD)
    other = hashlib.sha256(b"another model").hexdigest()
    unmarked = hashlib.sha256(VARIANTS["float"]).hexdigest()
    return [
        replace(marks, results={"int8": other}),
        replace(marks, results={**marks.results, "float": other}),
        replace(marks, results={"float": marks.results["int8"]}),
        replace(marks, blocks=(*marks.blocks, HeadBlock("tiny", 0, b"x"))),
        replace(marks, blocks=(*marks.blocks, HeadBlock("float", 0, b"x"))),
        replace(marks, results={**marks.results, "float": unmarked}),
    ]


@pytest.mark.parametrize("marks", spoiled_results())
def test_a_result_that_is_not_what_was_signed_is_refused(marks: Marks) -> None:
    """Also where a variant has a digest and no block, or a block and no digest."""
    refused(MADE, OWNER.sign(marks))


def test_a_variant_that_does_not_exist_cannot_be_marked() -> None:
    """Rightly signed, and still nothing that a bundle declares."""
    marks = marks_of(MADE.plain, HEAD)
    block = HeadBlock("golden", 0, b"x")
    marks = replace(marks, blocks=(block,), results={"golden": "d" * 64})
    with pytest.raises(BundleRefusedError) as caught:
        MADE.open(envelope=MADE.envelope(OWNER.sign(marks)))
    assert caught.value.reason == "envelope"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_behind_a_key_are_marks_or_refused(raw: bytes) -> None:
    """The parser of marks lets nothing but ``envelope`` out."""
    held = MADE.key + raw
    with pytest.raises(BundleRefusedError) as caught:
        MADE.open(envelope=MADE.envelope(held=held))
    assert caught.value.reason == "envelope"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_signed_bytes_are_marks_or_refused(raw: bytes) -> None:
    """Even what the owner signed may make no sense."""
    signed = SignedMarks(raw, OWNER.private.sign(MARKS_DOMAIN + raw))
    assert "make no sense" in refused(MADE, signed)
