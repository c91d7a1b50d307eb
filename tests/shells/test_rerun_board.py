"""Evidence of a board that runs: whatever it tells, only what it signed is believed."""

from base64 import b64encode
from typing import TypeVar

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.rerun_board import BoardEvidence, left_peaks
from agent.core.checkpoint import Checkpoint, render_checkpoint
from agent.core.log_proof import RecordProof, render_proof
from agent.core.merkle import Tree, leaf_hash, levels_of, prove_inclusion
from agent.core.note import NoteKey, sign_note
from agent.core.reasons import Reason
from agent.core.receipts import KEPT, NO_HASH, Receipt, pack_receipt
from agent.errors import AgentError

Answer = TypeVar("Answer")
SIZE, PAGE = 300, 128
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()


def tree_of(leaves: list[bytes]) -> Tree:
    """Return the tree over some leaves."""
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


class Board:
    """A board that answers from a list of records, and signs what it likes.

    Attributes:
        told: What it tells of its records; ``signed`` what its checkpoint is of.
        first: The oldest one that it still has.
    """

    def __init__(self, size: int = SIZE, first: int = 0) -> None:
        self.signed = [
            pack_receipt(Receipt(at, at, at, KEPT * (at % 7 == 0), 1, *[NO_HASH] * 3))
            for at in range(size)
        ]
        self.told = list(self.signed)
        self.first = first
        self.origin = "tinyward/pi-1/0000"
        self.seqs = [at for at in range(first, size) if at % 7 == 0]

    def note(self) -> str:
        """Return the signed checkpoint."""
        tree = tree_of([leaf_hash(it) for it in self.signed])
        checkpoint = Checkpoint(self.origin, tree.size, tree.root(), NO_HASH)
        key = NoteKey(self.origin, PUBLIC)
        return sign_note(render_checkpoint(checkpoint), key, KEY.sign)

    def read_text(self, path: str) -> str:
        """Return the checkpoint, or a proof."""
        if path == "/v1/audit/checkpoint":
            return self.note()
        index = int(path.rpartition("/")[2])
        levels = levels_of([leaf_hash(it) for it in self.signed])

        def node(level: int, at: int) -> bytes:
            return levels[level][at]

        proof = prove_inclusion(index, len(self.signed), node)
        return render_proof(
            RecordProof(self.signed[index], index, tuple(proof), self.note())
        )

    def read_raw(self, path: str) -> bytes | None:
        """Return what is sealed."""
        seq = int(path.rpartition("/")[2])
        return b"sealed" if seq in self.seqs else None

    def read_as(self, path: str, kind: type[Answer]) -> Answer:
        """Return a page of records, or of numbers."""
        numbers = [
            int(it.partition("=")[2]) for it in path.partition("?")[2].split("&")
        ]
        start = numbers[0]
        if "/kept" in path:
            within = [it for it in self.seqs if start <= it < numbers[1]]
            return msgspec.convert({"seqs": within[:5]}, kind)
        rows = [{"record": b64encode(it).decode()} for it in self.told[start:][:PAGE]]
        whole = {"first": self.first, "size": len(self.told), "records": rows}
        return msgspec.convert(whole, kind)


def read(board: Board, since: int = 0, whose: str = "pi-1") -> BoardEvidence:
    """Return the evidence of a board."""
    return BoardEvidence(board, PUBLIC, whose, since, lambda *_: None)


@given(st.integers(1, 70), st.data())
def test_left_peaks_are_those_of_the_tree_before(
    size: int, data: st.DataObject
) -> None:
    """One proof of inclusion covers all that lies before its leaf."""
    index = data.draw(st.integers(0, size - 1))
    leaves = [leaf_hash(bytes([at])) for at in range(size)]
    levels = levels_of(leaves)
    path = prove_inclusion(index, size, lambda level, at: levels[level][at])
    expected = list(tree_of(leaves[:index]).peaks)
    assert expected == left_peaks(index, size, path)


@pytest.mark.parametrize(("first", "since"), [(0, 0), (0, 77), (128, 0), (128, 200)])
def test_what_was_signed_is_believed(first: int, since: int) -> None:
    """From wherever it begins, all receipts to the end are there, and what was kept."""
    evidence = read(Board(first=first), since)
    begins = max(first, since)
    assert evidence.first == begins
    seqs = [it.seq for it in evidence.receipts(begins, SIZE)]
    assert seqs == list(range(begins, SIZE))
    kept = evidence.kept(begins, SIZE)
    assert kept == [at for at in range(begins, SIZE) if at % 7 == 0]
    assert evidence.sealed(kept[0]) == b"sealed"
    assert evidence.sealed(kept[0] + 1) is None
    assert evidence.prove(kept[1]).seq == kept[1]


@pytest.mark.parametrize("at", [0, 130, SIZE - 1])
@pytest.mark.parametrize("since", [0, 50])
def test_a_changed_record_is_found_out(at: int, since: int) -> None:
    """A flag that is taken away, to be asked for less, breaks the root."""
    board = Board()
    record = bytearray(board.told[at])
    record[27] ^= KEPT
    board.told[at] = bytes(record)
    if at < since:
        assert read(board, since).first == since
        return
    with pytest.raises(AgentError, match="signed") as refused:
        read(board, since)
    assert refused.value.reason == Reason.LOG


def test_a_record_that_is_left_out_is_found_out() -> None:
    """The others move up, and are not those that were signed."""
    board = Board()
    del board.told[150]
    board.told.append(board.told[-1])
    with pytest.raises(AgentError, match="signed"):
        read(board)


@pytest.mark.parametrize("told", [[], [b""], [b"short"]])
def test_what_is_no_record_is_refused(told: list[bytes]) -> None:
    """Empty pages and half records end the audit."""
    board = Board()
    board.told[140:] = told
    with pytest.raises(AgentError) as refused:
        read(board)
    assert refused.value.reason == Reason.LOG


def test_another_board_or_key_is_refused() -> None:
    """The key's own name says whose log it is."""
    with pytest.raises(AgentError, match="pi-1") as refused:
        read(Board(), whose="pi-2")
    assert refused.value.reason == Reason.LOG
    with pytest.raises(AgentError) as unsigned:
        BoardEvidence(Board(), bytes(range(1, 33)), "", 0, lambda *_: None)
    assert unsigned.value.reason == Reason.SIGNATURE


def test_an_empty_log_is_no_evidence() -> None:
    """There is nothing to ask for."""
    with pytest.raises(AgentError, match="no record"):
        read(Board(size=0))
