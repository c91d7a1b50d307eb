"""``tinyward audit verify`` and ``key`` as they are typed."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.audit.archive import Archive
from agent.audit.key import load_audit_key, render_pem
from agent.cli import cli
from agent.core.log_proof import RecordProof, render_proof
from agent.core.note import render_key
from agent.core.reasons import Reason
from agent.core.receipts import Receipt, pack_receipt
from agent.errors import DeviceError
from tests.fakes.audit_logs import LoggingBoard, inferences, key_from


def tinyward(*words: object) -> tuple[int, str, str]:
    """Call the command line; return its exit code and both outputs."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def board(tmp_path: Path) -> LoggingBoard:
    """A board that answered 100 times and was stopped."""
    board = LoggingBoard(tmp_path / "state")
    live(board)
    return board


def live(board: LoggingBoard) -> str:
    """Answer 100 times; return the last checkpoint and the verifier key."""
    log = board.open()
    log.take(inferences(100))
    asyncio.run(log.close())
    return log.durable.note


def key_of(board: LoggingBoard, note: str) -> str:
    """Return a board's verifier key."""
    return render_key(board.key.named(note.partition("\n")[0]))


def test_a_good_log_is_told_in_words_and_in_json(
    board: LoggingBoard, tmp_path: Path
) -> None:
    """By a key that is typed, in a file, or as PEM; exit code 0."""
    note = live(board)
    key = key_of(board, note)
    written, pem, seen = (tmp_path / name for name in ("key", "pem", "seen"))
    written.write_text(f"{key}\n", encoding="utf-8")
    pem.write_text(render_pem(board.key.public), encoding="ascii")
    seen.write_text(note, encoding="utf-8")
    for spelled in (key, written, pem):
        words = ("audit", "verify", board.folder, "--key", spelled)
        code, out, err = tinyward(*words, "--last-seen", seen)
        assert (code, err.strip()) == (0, "")
        assert "the log is what this key signed" in out
        code, out, _ = tinyward(*words, "--json")
        assert (
            code,
            json.loads(out)["size"],
            json.loads(out)["inferences"],
        ) == (0, 204, 200)


def test_a_loss_of_power_is_told_by_who_verifies(board: LoggingBoard) -> None:
    """Nobody knows what its last moments answered: it is signed, and it is said."""
    log = board.open()
    log.miss_moments()
    asyncio.run(log.close())
    key = key_of(board, log.durable.note)
    words = ("audit", "verify", board.folder, "--key", key)
    code, out, _ = tinyward(*words)
    said = "starts    2, 1 of them after a loss of power: the last moments before"
    assert (code, said in out) == (0, True)
    found = json.loads(tinyward(*words, "--json")[1])
    assert (found["starts"], found["gaps"], found["lost"]) == (2, 1, 0)


def test_a_restored_card_is_evident_with_both_notes(
    board: LoggingBoard, tmp_path: Path
) -> None:
    """Exit code 1, the reason, and what proves it to others."""
    backup = tmp_path / "backup"
    shutil.copytree(board.folder, backup)
    seen = tmp_path / "seen.note"
    note = live(board)
    seen.write_text(note, encoding="utf-8")
    key = key_of(board, note)
    code, _, err = tinyward(
        "audit", "verify", backup, "--key", key, "--last-seen", seen
    )
    assert code == 1
    assert "[replayed]" in err
    assert err.count("evidence:\ntinyward/pi-0042/") == 2


def test_a_proof_is_verified_alone(board: LoggingBoard, tmp_path: Path) -> None:
    """One file and the key; another key, or another record, is refused."""
    log = board.open()
    asyncio.run(log.close())
    note, archive = log.durable.note, Archive(board.folder)
    record, path = archive.prove(42, log.durable.checkpoint)
    good = tmp_path / "42.tlog-proof"
    text = render_proof(RecordProof(record, 42, tuple(path), note))
    good.write_text(text, encoding="utf-8")
    key = key_of(board, note)
    code, out, err = tinyward("audit", "verify", good, "--key", key)
    assert (code, err.strip()) == (0, "")
    assert "it is in the log" in out
    assert (
        json.loads(tinyward("audit", "verify", good, "--key", key, "--json")[1])["seq"]
        == 42
    )
    other = render_key(key_from(2).named(note.partition("\n")[0]))
    assert "[signature]" in tinyward("audit", "verify", good, "--key", other)[2]
    good.write_text(text.replace("index 42", "index 43"), encoding="utf-8")
    assert "[log]" in tinyward("audit", "verify", good, "--key", key)[2]


@pytest.mark.parametrize(
    ("digests", "lines"),
    [
        ((b"\7" * 32, b"\5" * 32), (f"input     {'07' * 32}", "output    0505")),
        (
            (bytes(32), b"\5" * 32),
            ("input     not hashed (mode chain)", "output    05"),
        ),
        (
            (bytes(32), bytes(32)),
            ("input     not hashed", "output    not hashed (mode"),
        ),
    ],
)
def test_what_nobody_hashed_is_not_shown_as_a_digest(
    board: LoggingBoard, digests: tuple[bytes, bytes], lines: tuple[str, str]
) -> None:
    """Mode chain hashes no inputs, count nothing: zeros are no digest of anything."""
    log = board.open()
    log.take(memoryview(pack_receipt(Receipt(1, 1, 1, 0, 7, b"\1" * 32, *digests))))
    asyncio.run(log.close())
    signed, note = log.durable.checkpoint, log.durable.note
    assert signed is not None
    last = signed.size - 2  # before the event that it was stopped
    record, path = Archive(board.folder).prove(last, signed)
    file = board.folder.parent / "last.tlog-proof"
    text = render_proof(RecordProof(record, last, tuple(path), note))
    file.write_text(text, encoding="utf-8")
    said = tinyward("audit", "verify", file, "--key", key_of(board, note))[1]
    assert [line for line in lines if line not in said] == []


@pytest.mark.parametrize("key", ["", "a+b+c", "no/file", "tinyward/pi+00000000+AA=="])
def test_what_is_no_key_is_said(board: LoggingBoard, key: str) -> None:
    """Nothing is verified by it."""
    code, _, err = tinyward("audit", "verify", board.folder, "--key", key)
    assert code in (1, 2)
    assert "error:" in err


def test_the_boards_key_is_made_once_and_is_its_own(tmp_path: Path) -> None:
    """0600, the same again; others may not read it, and nobody gets another instead."""
    path = tmp_path / "audit.key"
    key = load_audit_key(path, may_make=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key.public == load_audit_key(path, may_make=False).public
    assert "PRIVATE" not in repr(key)
    path.chmod(0o644)
    with pytest.raises(DeviceError) as caught:
        load_audit_key(path, may_make=True)
    assert caught.value.reason == Reason.PERMISSION
    path.chmod(0o600)
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(DeviceError):
        load_audit_key(path, may_make=True)
    path.unlink()
    with pytest.raises(DeviceError, match="does not exist"):
        load_audit_key(path, may_make=False)
