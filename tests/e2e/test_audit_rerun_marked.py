"""Audits of a board that runs its own marked copy, which no file of its owner holds."""

import json
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from agent.audit.key import load_audit_key
from agent.cli.audit_rerun import command
from agent.core.note import NoteKey, render_key
from agent.core.reasons import Reason
from agent.core.sealing_keys import render_public_key
from agent.errors import AgentError, SettingsError
from agent.publish.marks_book import BoardCopy, MarkedVersion, MarksBook
from agent.publish.seal import Order, seal_bundle
from agent.publish.seal_owner import make_owner
from agent.trust.seal_key import load_seal_key
from tests.e2e.conftest import FULL_LOAD, QUICK
from tests.fakes.daemon_process import DaemonProcess
from tests.fakes.fleet import GROUP, MODEL, bundle
from tests.fakes.marked import BITS, make_marks, secret
from tests.fakes.sealed import SealedFleet, take_in

BOARD, OTHER = "pi-7", "pi-8"
KEPT = 4  # of a recording at 200 a second, one in ten
KEYS_WORDS, BOOK_WORDS = b"five words of the keys", b"and others of the book"


def copy_of(board: str) -> BoardCopy:
    """Return a board's copy of version 1, different in a byte that nobody reads."""
    known = secret(1)
    marks = make_marks(board, known.content, known.codeword)
    return BoardCopy(
        board, known.codeword, b"", marks.salt, marks.blocks, marks.results, 1.0
    )


def write_book(
    path: Path, copies: list[BoardCopy], words: bytes = BOOK_WORDS
) -> MarksBook:
    """Write a book that has copies of version 1."""
    digest = sha256(secret(1).content).hexdigest()
    version = MarkedVersion(MODEL, 1, "0" * 64, digest, "01" * 5, BITS, {}, {})
    book = MarksBook.create(path, words)
    book.add_version(version)
    book.add(version, copies)
    book.save()
    return book


class Desk:
    """What the owner of a stopped board has, as files below one folder.

    Attributes:
        state: The board's state directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder
        public = make_owner(folder / "owner", KEYS_WORDS)
        (folder / "owner.pub").write_text(f"{render_public_key(public)}\n")
        (folder / "keys.txt").write_bytes(KEYS_WORDS)
        (folder / "book.txt").write_bytes(BOOK_WORDS)
        (folder / "marked.bundle").write_bytes(secret(1).content)
        (folder / "plain.bundle").write_bytes(bundle(1))

    def publish(self, fleet: SealedFleet) -> None:
        """Seal version 1, marked for two boards, and assign it."""
        book = write_book(self.folder / "marks.db", [copy_of(BOARD), copy_of(OTHER)])
        keys = [load_seal_key(fleet.owner.key(it)).public(it) for it in fleet.boards]
        folder = self.folder / "marked.sealed"
        order = Order(MODEL, 1, keys, fleet.algorithm, book=book)
        seal_bundle(secret(1).content, order, folder)
        take_in(fleet.spoiled.repository, folder)
        fleet.spoiled.repository.assign(GROUP, {MODEL: (MODEL, 1)})
        fleet.sign()

    def answer(self, fleet: SealedFleet) -> None:
        """Let a real board answer and keep, and stop."""
        audit = {
            "mode": "inputs",
            "owner_key": self.folder / "owner.pub",
            "keep_one_in": 10,
            "checkpoint_records": 64,
        }
        board = DaemonProcess(
            self.folder / "board",
            {**FULL_LOAD, "rate": 200.0},
            tables={**fleet.tables(BOARD), "audit": audit},
            pipeline=QUICK,
        )
        self.state = board.state_dir
        with board:
            board.wait_version(1)
            kept = board.state_dir / "audit-kept"
            board.wait_for(
                lambda: kept.is_dir() and len(list(kept.glob("*.kept"))) >= KEPT,
                "kept inputs",
            )
            board.signal(signal.SIGTERM)
            board.wait()
        public = load_audit_key(self.state / "audit.key", may_make=False).public
        (self.folder / "board.vkey").write_text(render_key(NoteKey("any", public)))

    def rerun(self, *more: str) -> Result:
        """Call ``tinyward audit rerun``; names are those of files of the desk."""
        named = ["--log", str(self.state / "audit"), "--samples", "4", "--json"]
        words = ["--vkey", "board.vkey", "--owner-key", "owner", *more]
        places = [it if it.startswith("-") else str(self.folder / it) for it in words]
        return CliRunner().invoke(command, [*named, *places])

    def asked_for(self, result: Result) -> str:
        """Return the digest of the only model that was to be brought: a copy's own."""
        ((digest, receipts),) = json.loads(result.stdout)["absent"].items()
        assert receipts == 4
        assert digest in copy_of(BOARD).results.values()
        return str(digest)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Let a board run its own copy for a while, and stop."""
    folder = tmp_path_factory.mktemp("marked")
    found = Desk(folder)
    fleet = SealedFleet(folder / "fleet", BOARD, OTHER)
    found.publish(fleet)
    found.answer(fleet)
    return found


SECRETS = ("--passphrase-file", "keys.txt", "--passphrase-file", "book.txt")


def refusal(result: Result) -> AgentError:
    """Return what the command ended with."""
    assert isinstance(result.exception, AgentError), result.output
    return result.exception


def test_a_marked_copy_is_computed_from_bundle_and_book(desk: Desk) -> None:
    """The board's own copy is made of both, and gives each answer to the bit."""
    files = {it.name for it in desk.folder.iterdir()}
    bundles = ("--bundle", "plain.bundle", "--bundle", "marked.bundle")
    result = desk.rerun(*bundles, "--book", "marks.db", *SECRETS)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["good"], told["results"], told["absent"]) == (True, {"exact": 4}, {})
    assert {it.name for it in desk.folder.iterdir()} == files


def test_without_the_book_it_is_named(desk: Desk) -> None:
    """Not an alarm but what to bring: the plain marked bundle is not what ran."""
    result = desk.rerun("--bundle", "marked.bundle", *SECRETS[:2])
    err = refusal(result)
    assert isinstance(err, SettingsError)
    assert (err.reason, err.exit_code) == (Reason.SETTINGS, 2)
    assert "--book" in err.todo
    assert desk.asked_for(result) in err.todo


def test_another_bundle_is_told_the_digest_that_ran(desk: Desk) -> None:
    """The auditor is told what to bring, and what it means to have no such model."""
    result = desk.rerun("--bundle", "plain.bundle", *SECRETS[:2])
    err = refusal(result)
    assert (err.reason, err.exit_code) == (Reason.SETTINGS, 2)
    assert desk.asked_for(result) in err.todo
    assert "evidence" in err.todo


def _of_another_board(desk: Desk) -> list[str]:
    write_book(desk.folder / "other.db", [copy_of(OTHER)])
    return ["--bundle", "marked.bundle", "--book", "other.db", *SECRETS]


def _of_no_marked_bundle(desk: Desk) -> list[str]:
    del desk
    return ["--bundle", "plain.bundle", "--book", "marks.db", *SECRETS]


def _of_a_book_that_contradicts_itself(desk: Desk) -> list[str]:
    copy = copy_of(BOARD)
    results = dict.fromkeys(copy.results, "0" * 64)
    write_book(desk.folder / "odd.db", [replace(copy, results=results)])
    return ["--bundle", "marked.bundle", "--book", "odd.db", *SECRETS]


def _of_another_passphrase(desk: Desk) -> list[str]:
    del desk
    one = ("--passphrase-file", "keys.txt")
    return ["--bundle", "marked.bundle", "--book", "marks.db", *one]


def _of_a_sealed_folder(desk: Desk) -> list[str]:
    del desk
    return ["--bundle", "marked.sealed", *SECRETS[:2]]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (_of_another_board, f"no copy of models/digits/1.bundle for {BOARD}"),
        (_of_no_marked_bundle, "none of the bundles is marked"),
        (_of_a_book_that_contradicts_itself, "not whole"),
        (_of_another_passphrase, "the passphrase does not open"),
        (_of_a_sealed_folder, "sealed"),
    ],
)
def test_what_does_not_fit_is_said(
    desk: Desk, call: Callable[[Desk], list[str]], said: str
) -> None:
    """Each is refused as a call that does not fit, with what to do."""
    err = refusal(desk.rerun(*call(desk)))
    assert said in str(err)
    assert (err.reason, bool(err.todo)) == (Reason.SETTINGS, True)


def test_one_passphrase_opens_both(desk: Desk) -> None:
    """Whoever has one passphrase for keys and book names it once."""
    write_book(desk.folder / "same.db", [copy_of(BOARD)], KEYS_WORDS)
    named = ("--bundle", "marked.bundle", "--book", "same.db", *SECRETS[:2])
    result = desk.rerun(*named)
    assert result.exit_code == 0, result.output
