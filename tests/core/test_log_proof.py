"""Proofs of records and of growth: they prove one thing, to whoever has the key."""

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.audit.key import verify_ed25519
from agent.core.audit_events import event_record
from agent.core.checkpoint import Checkpoint, render_checkpoint
from agent.core.log_proof import (
    RecordProof,
    judge_growth,
    judge_proof,
    pack_path,
    parse_proof,
    render_proof,
    unpack_path,
)
from agent.core.merkle import (
    fold_peaks,
    leaf_hash,
    levels_of,
    peaks_of,
    prove_consistency,
    prove_inclusion,
)
from agent.core.note import sign_note
from agent.core.reasons import Reason
from agent.core.receipts import parse_receipt
from agent.errors import BundleRefusedError
from tests.fakes.audit_logs import SOME_KEY, inference, key_from, refusal

ORIGIN = "tinyward/pi/00000000"
KEY = SOME_KEY.named(ORIGIN)
EVENT = b'{"event":"log.started","time_s":0.0,"facts":{}}'


def records_of(count: int) -> list[bytes]:
    """Return the records of a log: an event, then inferences."""
    return [event_record(EVENT, 1), *(inference(it) for it in range(1, count))]


def proof_of(index: int, count: int) -> RecordProof:
    """Return the proof of a record in a log of ``count``."""
    records = records_of(count)
    levels = levels_of([leaf_hash(it) for it in records])

    def node(level: int, at: int) -> bytes:
        return levels[level][at]

    root = fold_peaks(peaks_of(count, node))
    text = render_checkpoint(Checkpoint(ORIGIN, count, root, bytes(32)))
    note = sign_note(text, KEY, SOME_KEY.sign)
    path = tuple(prove_inclusion(index, count, node))
    return RecordProof(records[index], index, path, note, b"" if index else EVENT)


@given(st.integers(1, 70), st.data())
def test_a_proof_proves_its_record(count: int, data: st.DataObject) -> None:
    """Law: parse_proof(render_proof(p)) == p, and it is judged to be one."""
    proof = proof_of(data.draw(st.integers(0, count - 1)), count)
    again = parse_proof(render_proof(proof).encode())
    assert proof == again
    proven = judge_proof(again, KEY, verify_ed25519)
    assert parse_receipt(proof.record) == proven.receipt
    assert count == proven.checkpoint.size


@given(st.data())
def test_one_flipped_bit_and_it_proves_nothing(data: st.DataObject) -> None:
    """Wherever a bit of a proof is turned, nothing is proven by it."""
    index = data.draw(st.integers(0, 20))
    raw = bytearray(render_proof(proof_of(index, 21)).encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BundleRefusedError) as caught:
        judge_proof(parse_proof(bytes(raw)), KEY, verify_ed25519)
    assert caught.value.reason in (Reason.SIGNATURE, Reason.MALFORMED, Reason.LOG)


def test_an_event_is_proven_with_what_it_says() -> None:
    """Nobody can put other words to it, or leave them out."""
    proof = proof_of(0, 9)
    assert judge_proof(proof, KEY, verify_ed25519).event == EVENT
    for event in (b"", b'{"event":"log.stopped"}'):
        with pytest.raises(BundleRefusedError, match="event"):
            judge_proof(replace(proof, event=event), KEY, verify_ed25519)
    with pytest.raises(BundleRefusedError, match="event"):
        judge_proof(replace(proof_of(1, 9), event=EVENT), KEY, verify_ed25519)


def test_another_key_proves_nothing() -> None:
    """Neither that of another board, nor the right one under another name."""
    proof = proof_of(3, 9)
    for key in (key_from(2).named(ORIGIN), SOME_KEY.named("tinyward/pi/00000001")):
        with pytest.raises(BundleRefusedError) as caught:
            judge_proof(proof, key, verify_ed25519)
        assert caught.value.reason == Reason.SIGNATURE


@given(st.binary(max_size=400))
def test_strange_bytes_are_malformed(raw: bytes) -> None:
    """Fuzz: what is no proof raises one error and no other."""
    for parse in (parse_proof, unpack_path):
        for spoilt in (raw, b"c2sp.org/tlog-proof@v1\n" + raw):
            why = refusal(partial(parse, spoilt))
            assert why in ("", Reason.MALFORMED)


@given(
    st.integers(0, 2**40), st.lists(st.binary(min_size=32, max_size=32), max_size=40)
)
def test_a_path_has_a_short_form(index: int, path: list[bytes]) -> None:
    """Law: unpack_path(pack_path(...)) is the same; 20 hashes are below 700 bytes."""
    packed = pack_path(index, index + 1, path)
    assert (index, index + 1, tuple(path)) == unpack_path(packed)
    assert len(packed) == 16 + 32 * len(path)


def test_growth_is_told_from_a_fork_and_from_a_restored_card() -> None:
    """The same history, another one, a shorter one, another log of the same key."""
    leaves = [leaf_hash(it) for it in records_of(40)]
    levels = levels_of(leaves)

    def checkpoint(size: int, origin: str = ORIGIN) -> Checkpoint:
        root = fold_peaks(peaks_of(size, lambda level, at: levels[level][at]))
        return Checkpoint(origin, size, root, bytes(32))

    old, new = checkpoint(13), checkpoint(40)
    path = prove_consistency(13, 40, lambda level, at: levels[level][at])
    judge_growth(old, new, path)
    judge_growth(new, new, [])
    for before, after, reason in (
        (replace(old, root=bytes(32)), new, Reason.FORKED),
        (replace(new, root=bytes(32)), new, Reason.FORKED),
        (new, old, Reason.REPLAYED),
        (checkpoint(13, "tinyward/pi-2/00000000"), new, Reason.FORKED),
    ):
        with pytest.raises(BundleRefusedError) as caught:
            judge_growth(before, after, [] if before.size == after.size else path)
        assert reason == caught.value.reason
