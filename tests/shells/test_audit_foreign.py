"""A log's folder from anybody: nothing hangs, fills the memory, or passes unsigned."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from agent.audit.key import render_pem
from agent.audit.verify import Asked, LogFaultError, Verified, verify_log
from agent.cli import cli
from agent.core.audit_layout import SEGMENT_RECORDS
from agent.core.reasons import Reason
from tests.fakes.audit_logs import SETTINGS, LoggingBoard, inferences, key_from, untold

SMALL = replace(SETTINGS, quota_mb=1.0)
FIRST = "0000000000"


def live(board: LoggingBoard, count: int) -> str:
    """Let a board answer, and end well; return its last checkpoint."""
    log = board.open(SMALL)
    for first in range(0, count, 250):
        log.take(inferences(min(250, count - first), first + 1))
    asyncio.run(log.close())
    return log.durable.note


@pytest.fixture
def board(tmp_path: Path) -> LoggingBoard:
    """A board with a short log."""
    made = LoggingBoard(tmp_path / "state")
    live(made, 100)
    return made


def verify(board: LoggingBoard, last_seen: str = "") -> Verified:
    """Verify its log by its key."""
    return verify_log(board.folder, Asked(board.key.public, "", last_seen), untold)


def fault(board: LoggingBoard, last_seen: str = "") -> LogFaultError:
    """Return what is wrong with its log."""
    with pytest.raises(LogFaultError) as caught:
        verify(board, last_seen)
    return caught.value


def sparse(name: str, size: int) -> Callable[[Path], None]:
    """Return what puts a file of holes there."""

    def put(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(size)

    return put


def pipe(name: str) -> Callable[[Path], None]:
    """Return what puts a pipe there that nobody writes to."""

    def put(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return put


def link(folder: Path) -> None:
    """Put a link without an end there."""
    (folder / f"{FIRST}.records").unlink()
    (folder / f"{FIRST}.records").symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "harm",
    [
        *(
            sparse(name, 1 << 31)
            for name in (
                "roots",
                "ratchet.sealed",
                *(f"{FIRST}.{it}" for it in ("records", "notes", "events")),
            )
        ),
        *(
            pipe(name)
            for name in (
                *("log.json", "roots", "ratchet.sealed"),
                *(f"{FIRST}.{it}" for it in ("records", "notes", "events")),
            )
        ),
        link,
    ],
)
def test_hostile_files_are_refused_at_sight(
    board: LoggingBoard, harm: Callable[[Path], None]
) -> None:
    """Two gigabytes of holes, pipes and links: a fault, and no wait for anything."""
    harm(board.folder)
    assert fault(board).reason == Reason.LOG


def test_a_log_that_nobody_signed_verifies_by_no_key(board: LoggingBoard) -> None:
    """Whatever else is there: without a checkpoint there is nothing to believe."""
    for path in board.folder.iterdir():
        if path.name != "log.json":
            path.unlink()
    found = fault(board)
    assert found.reason == Reason.LOG
    assert "nothing here is signed" in str(found)
    with pytest.raises(LogFaultError, match="nothing here is signed"):
        verify_log(board.folder, Asked(key_from(9).public), untold)


def test_what_else_lies_there_is_named(board: LoggingBoard) -> None:
    """A file that is no part of a log harms nothing, and is not said to be verified."""
    assert verify(board).strangers == []
    (board.folder / "evil\x1b[2J").write_text("x", encoding="utf-8")
    assert verify(board).strangers == ["evil\x1b[2J"]
    words = ["audit", "verify", str(board.folder), "--key", str(key_file(board))]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0
    out = result.stdout
    assert "besides   evil" in out
    assert "\x1b" not in out


def key_file(board: LoggingBoard) -> Path:
    """Return a file with the board's key."""
    path = board.folder.parent / "key.pem"
    path.write_text(render_pem(board.key.public), encoding="ascii")
    return path


def test_what_the_quota_removed_accuses_nobody(tmp_path: Path) -> None:
    """An old checkpoint that ends in a segment that is gone: words, and no evidence."""
    board = LoggingBoard(tmp_path / "state")
    seen = live(board, 100)
    live(board, 5 * SEGMENT_RECORDS)
    found = fault(board, seen)
    assert found.reason == Reason.LOG
    assert "cannot be compared any more" in str(found)
    assert "accuses nobody" in found.todo
    assert "evidence" not in found.todo
    assert found.evidence == ()


@pytest.mark.parametrize("key", ["a+b+c", "/nowhere", "x" * 5000, "/dev/null"])
def test_a_key_that_is_none_is_a_matter_of_usage(board: LoggingBoard, key: str) -> None:
    """Exit code 2, and where a key comes from."""
    words = ["audit", "verify", str(board.folder), "--key", key]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert "tinyward audit key" in result.stderr


def test_who_verifies_is_not_told_to_verify(board: LoggingBoard) -> None:
    """What to do is another thing than what was just done."""
    path = board.folder / f"{FIRST}.records"
    raw = path.read_bytes()
    path.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    words = ["audit", "verify", str(board.folder), "--key", str(key_file(board))]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1
    assert "[log]" in result.stderr
    assert "audit verify" not in result.stderr
