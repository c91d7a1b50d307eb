"""The book of marks: encrypted, whole after any crash, and what it gives to seal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent.core.sealing import HeadBlock, Marks
from agent.core.watermark import commit_codeword
from agent.errors import SettingsError
from agent.publish.marks_book import BoardCopy, MarkedVersion, MarksBook
from agent.trust.marks import check_marks, parse_signed_marks

PASSPHRASE = b"five random words of mine"
TARGET, PLAIN = "models/digits/2.bundle", "2" * 64
VERSION = MarkedVersion(
    model="digits",
    version=2,
    source_sha256="1" * 64,
    plain_sha256=PLAIN,
    groups="0101010101",
    bits=32,
    secrets={"int8": b"the very triggers"},
    tolerances={"int8": 0.5},
)


def copy(board: str, filling: int = 7) -> BoardCopy:
    """Return a board's copy."""
    return BoardCopy(
        board=board,
        codeword=bytes([filling] * 4),
        tracing=bytes(4),
        salt=bytes(32),
        blocks=(HeadBlock("int8", 10, b"head"),),
        results={"int8": "3" * 64},
        agreement=0.995,
    )


@pytest.fixture
def book(tmp_path: Path) -> MarksBook:
    """Give a book with one version and two copies, saved."""
    made = MarksBook.create(tmp_path / "marks.db", PASSPHRASE)
    made.add_version(VERSION)
    made.add(VERSION, [copy("pi-0001"), copy("pi-0002", 8)])
    made.save()
    return made


def test_a_book_reads_what_was_saved(book: MarksBook) -> None:
    """Versions, copies and the key that signs marks."""
    again = MarksBook.open(book.path, PASSPHRASE)
    assert list(again.versions()) == [VERSION]
    assert [copy("pi-0001"), copy("pi-0002", 8)] == list(again.copies(VERSION))
    assert book.public_key == again.public_key
    assert again.version("digits", 2) == VERSION
    assert again.version("digits", 3) is None


def test_nothing_of_a_book_can_be_read_in_its_file(book: MarksBook) -> None:
    """Neither board, trigger nor table; and only the owner may open the file."""
    raw = book.path.read_bytes()
    for secret in (b"pi-0001", b"the very triggers", b"SQLite", b"digits"):
        assert secret not in raw
    assert book.path.stat().st_mode & 0o777 == 0o600


def test_another_passphrase_opens_nothing(book: MarksBook) -> None:
    """Nor does it say what would be inside."""
    with pytest.raises(SettingsError, match="does not open"):
        MarksBook.open(book.path, PASSPHRASE + b"!")


@pytest.mark.parametrize("place", [3, 20, 40, 60, -1])
def test_a_book_that_was_changed_does_not_open(book: MarksBook, place: int) -> None:
    """One flipped bit anywhere: name, salt, nonce, content or tag."""
    raw = bytearray(book.path.read_bytes())
    raw[place] ^= 4
    book.path.write_bytes(raw)
    with pytest.raises(SettingsError):
        MarksBook.open(book.path, PASSPHRASE)


@pytest.mark.parametrize("size", [0, 10, 30, 44, 50, -1])
def test_a_book_cut_short_does_not_open(book: MarksBook, size: int) -> None:
    """Wherever it ends."""
    book.path.write_bytes(book.path.read_bytes()[:size])
    with pytest.raises(SettingsError):
        MarksBook.open(book.path, PASSPHRASE)


def test_a_board_keeps_the_copy_that_it_has(book: MarksBook) -> None:
    """What is made anew for it is not taken."""
    book.add(VERSION, [copy("pi-0001", 99), copy("pi-0003")])
    kept = {it.board: it.codeword[0] for it in book.copies(VERSION)}
    assert kept == {"pi-0001": 7, "pi-0002": 8, "pi-0003": 7}
    assert book.boards(VERSION) == {"pi-0001", "pi-0002", "pi-0003"}


def test_a_version_is_written_down_once(book: MarksBook) -> None:
    """Its triggers are out in the world: others would tell nobody."""
    with pytest.raises(SettingsError, match="already"):
        book.add_version(VERSION)


def test_a_book_overwrites_no_file(tmp_path: Path) -> None:
    """Whatever it is."""
    path = tmp_path / "marks.db"
    path.write_bytes(b"something dear")
    with pytest.raises(SettingsError, match="exists"):
        MarksBook.create(path, PASSPHRASE)
    assert path.read_bytes() == b"something dear"
    with pytest.raises(SettingsError, match="no book"):
        MarksBook.open(path, PASSPHRASE)


def test_marks_are_those_that_a_board_believes(book: MarksBook) -> None:
    """Signed by the book's key, for this board and bundle, with its commitment."""
    signed = book.marks("pi-0002", TARGET, PLAIN)
    marks = parse_signed_marks(msgspec.msgpack.encode(signed), book.public_key)
    check_marks(marks, "pi-0002", TARGET, PLAIN)
    expected = copy("pi-0002", 8)
    assert marks == Marks(
        board="pi-0002",
        target=TARGET,
        plain_sha256=PLAIN,
        blocks=expected.blocks,
        results=expected.results,
        salt=expected.salt,
        commitment=commit_codeword(expected.salt, "pi-0002", expected.codeword),
        codeword=expected.codeword,
    )


@pytest.mark.parametrize(
    ("board", "target", "plain"),
    [
        ("pi-0009", TARGET, PLAIN),
        ("pi-0001", "models/digits/3.bundle", PLAIN),
        ("pi-0001", TARGET, "4" * 64),
    ],
)
def test_nobody_gets_marks_that_are_not_in_the_book(
    book: MarksBook, board: str, target: str, plain: str
) -> None:
    """Another board, version or bundle."""
    with pytest.raises(SettingsError):
        book.marks(board, target, plain)


def test_nothing_secret_is_printed(book: MarksBook) -> None:
    """Copies and versions say whose they are, marks likewise."""
    assert repr(copy("pi-0001")) == "<copy of pi-0001>"
    assert repr(VERSION) == "<marked version digits 2>"
    assert repr(book.marks("pi-0001", TARGET, PLAIN)) == "<signed marks>"


WRITER = """
import sys
from pathlib import Path
from agent.publish.marks_book import BoardCopy, MarksBook
from agent.core.sealing import HeadBlock
book = MarksBook.open(Path(sys.argv[1]), b"five random words of mine")
version = next(book.versions())
for number in range(100000):
    block = HeadBlock("int8", 10, bytes(20000))
    book.add(version, [BoardCopy(f"new-{number}", b"abcd", b"efgh", bytes(32), (block,),
             {"int8": "3" * 64}, 1.0)])
    book.save()
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_time_leaves_a_whole_book(book: MarksBook) -> None:
    """What was saved before is there, and at most one copy more than it said."""
    for said in (1, 4, 9):
        before = len(book.boards(VERSION))
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(book.path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            heard = [writer.stdout.readline() for _ in range(said)]
            os.kill(writer.pid, signal.SIGKILL)
            heard += writer.stdout.readlines()
        again = MarksBook.open(book.path, PASSPHRASE)
        new = {it for it in again.boards(VERSION) if it.startswith("new-")}
        finished = sum(line.endswith(b"\n") for line in heard)
        assert max(finished, before - 2) <= len(new) <= max(finished + 1, before - 2)
        book = again
