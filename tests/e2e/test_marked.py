"""Marked copies on a real daemon: its own runs, another's is refused, owners may ask.

The board answers one sample when it starts to run a model and the next one much later,
so that whatever else it counted would be seen.
"""

import io
import json
from collections.abc import Iterator
from hashlib import sha256
from operator import ne
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.cli.board_link import BoardLink
from agent.cli.challenging import Addressee, challenge_board
from agent.cli.provenance_check import read_key
from agent.cli.reach import Remote, local_link, remote_links
from agent.core.dsse import parse_envelope
from agent.core.provenance import parse_running
from agent.core.sealing import Marks
from agent.core.watermark import class_parity
from agent.errors import AgentError
from agent.publish.marks_book import BoardCopy, MarkedVersion, MarksBook
from agent.publish.watermark.secrets import VariantSecret
from agent.worker.samples import Array
from tests.e2e.conftest import FULL_LOAD, watched_daemon
from tests.e2e.test_control_listener import BOARD, Controlled, Office
from tests.fakes.bundles import good_bundle
from tests.fakes.daemon_process import NAME, Json
from tests.fakes.marked import (
    BITS,
    THRESHOLD,
    MarkedFleet,
    make_marks,
    marked_bytes,
    secret,
    turned,
)
from tests.fakes.watched_board import WatchedBoard

OTHER = "pi-8"
RARE = {**FULL_LOAD, "rate": 0.01}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controlled]:
    """Give a board that runs its own copy of version 1, and has a certificate."""
    home = tmp_path_factory.mktemp("marked")
    fleet, office = MarkedFleet(home, BOARD, OTHER), Office(home)
    tables = {**fleet.tables(BOARD), "control": office.control()}
    tables["audit"] = {"mode": "chain"}
    update = tables.pop("update")
    daemon = watched_daemon(home / "board", update, tables, source=RARE)
    watched = WatchedBoard(fleet, daemon)
    with daemon:
        watched.clean()
        yield Controlled(office, watched)


def fleet_of(marked: Controlled) -> MarkedFleet:
    """Return the owner, who marks."""
    assert isinstance(marked.watched.fleet, MarkedFleet)
    return marked.watched.fleet


def marks_of(version: int) -> Marks:
    """Return what makes a version this board's own copy."""
    known = secret(version)
    return make_marks(BOARD, known.content, known.codeword)


def inputs(variant: str) -> bytes:
    """Return triggers as their owner sends them."""
    buffer = io.BytesIO()
    np.save(buffer, secret(1).stacks[variant])
    return buffer.getvalue()


def challenge(
    marked: Controlled,
    link: BoardLink,
    key: Ed25519PrivateKey | None = None,
    **said: str,
) -> tuple[int, ...] | str:
    """Return the classes that the board answers, or why it does not."""
    board_key = read_key(marked.office.identity / "board.crt")
    runs = marked.board.pipeline()["active"]["variant"]
    who = {"board": BOARD, "pipeline": NAME, "model": NAME, "variant": runs, **said}
    addressee = Addressee(**who, version=1, key=board_key, session=session(marked))
    owner = key or fleet_of(marked).book.key
    try:
        return challenge_board(link, addressee, inputs(runs), owner).classes
    except AgentError as err:
        return err.reason
    finally:
        link.close()


def session(marked: Controlled) -> str:
    """Return the session that the board names now."""
    found = json.dumps(marked.board.ask("/v1/provenance")["pipelines"][NAME])
    payload = parse_envelope(found.encode(), 2**20).payload
    return parse_running(payload).predicate.session


def receipts(marked: Controlled) -> list[Json]:
    """Return the receipts of inferences so far."""
    rows = marked.board.ask("/v1/audit/records?from=0&count=256")["records"]
    assert len(rows) < 256
    return [row for row in rows if not row["event"]]


def counted(marked: Controlled) -> object:
    """Return everything that a sample would move, once the last one is told of."""
    samples = marked.board.samples()
    marked.board.wait_for(
        lambda: len(receipts(marked)) == samples["ok"] > 0, "a receipt for each sample"
    )
    return samples, marked.board.pipeline()["next_seq"], receipts(marked)


def test_a_boards_own_copy_runs_and_says_so(marked: Controlled, tmp_path: Path) -> None:
    """State, and a statement about the very bytes, verified with the certificate."""
    pipeline = marked.board.pipeline()
    assert (pipeline["copy"], pipeline["active"]["version"]) == ("own", 1)
    crt = str(marked.office.identity / "board.crt")
    shown = marked.watched.say("provenance", options=("--verify", crt))
    assert shown.exit_code == 0, shown.output
    variant = pipeline["active"]["variant"]
    runs = sha256(marked_bytes(secret(1).content, marks_of(1), variant)).hexdigest()
    assert f"sha256 {runs}" in shown.stdout
    assert "this board's own copy of" in shown.stdout
    assert "yes, verified" in shown.stdout
    options = ("--verify", crt, "--json")
    tree = json.loads(marked.watched.say("provenance", options=options).stdout)
    statement = parse_running(json.dumps(tree[NAME]).encode())
    assert statement.subject[0].digest.sha256 == runs
    assert statement.predicate.board == BOARD
    plain, another = tmp_path / "plain.bundle", tmp_path / "another.bundle"
    plain.write_bytes(secret(1).content)
    another.write_bytes(good_bundle())
    ran = marked.watched.say("provenance", options=("--bundle", str(plain)))
    assert (ran.exit_code, f"sha256 {runs}" in ran.stdout) == (0, True)
    stray = marked.watched.say("provenance", options=("--bundle", str(another)))
    assert (stray.exit_code, "[mismatch]" in stray.output) == (1, True)
    other = str(marked.office.ca / "ca.crt")
    refused = marked.watched.say("provenance", options=("--verify", other))
    assert (refused.exit_code, "[signature]" in refused.output) == (1, True)


def test_an_owner_asks_and_nothing_is_counted(marked: Controlled) -> None:
    """Answers come back signed; samples and receipts stay what they were.

    Others are refused: without the marks' key, without the role, for another board;
    and whoever asks too often has to wait.
    """
    before = counted(marked)
    local = local_link(None, marked.board.socket)
    assert challenge(marked, local, Ed25519PrivateKey.generate()) == "signature"
    assert challenge(marked, local, board=OTHER) == "other_board"
    own = marked.office.papers["observer"]
    papers = Remote(
        certificate=Path(own.certificate),
        key=Path(own.key),
        ca=marked.office.ca / "ca.crt",
    )
    (link,) = remote_links([marked.address], papers)
    assert challenge(marked, link) == "role"
    found = challenge(marked, local)
    # Both variants answer the pictures of the triggers alike, or nearly so.
    assert sum(map(ne, found, secret(1).classes)) <= THRESHOLD
    assert counted(marked) == before
    words = marked.board.words()
    assert [it for it in (secret(1).codeword.hex(),) if it in words] == []


def test_the_book_names_the_copy_that_answers(
    marked: Controlled, tmp_path: Path
) -> None:
    """``tinyward watermark challenge``: its own copy, by triggers of the book."""
    key = fleet_of(marked).book.key
    book = MarksBook.create(tmp_path / "marks.db", b"a long passphrase")
    book._database.execute("UPDATE owner SET marks_key = ?", (key.private_bytes_raw(),))
    known = secret(1)
    half = BITS // 16
    version = MarkedVersion(
        *(NAME, 1, "0" * 64, "1" * 64, class_parity(10), BITS // 2),
        {name: _kept(stack).render() for name, stack in known.stacks.items()},
        {},
    )
    codewords = {BOARD: known.codeword, OTHER: turned(known.codeword, BITS // 2)}
    book.add_version(version)
    book.add(
        version,
        [
            BoardCopy(board, it[:half], it[half:], bytes(32), (), {}, 1.0)
            for board, it in codewords.items()
        ],
    )
    book.save()
    (tmp_path / "p").write_bytes(b"a long passphrase")
    said = marked.watched.say(
        *("watermark", "challenge", "--book", str(book.path)),
        options=(
            *("--passphrase-file", str(tmp_path / "p")),
            *("--verify", str(marked.office.identity / "board.crt")),
        ),
    )
    assert (said.exit_code, "its own copy" in said.output) == (0, True), said.output


def _kept(stack: Array) -> VariantSecret:
    """Return triggers as a book keeps them."""
    real = stack.astype(np.float32)
    none = np.zeros((len(stack), 2), np.float32)
    return VariantSecret(stack, real, none, none.astype(np.int64), none)


def test_another_boards_copy_is_refused_and_inference_goes_on(
    marked: Controlled,
) -> None:
    """Its bytes are signed for this board, and it answers as another one's would."""
    fleet, watched = fleet_of(marked), marked.watched
    fleet.book.codewords[BOARD] = turned(secret(2).codeword, BITS // 2)
    version = watched.next()
    worker = marked.board.worker_pid()
    fleet.publish(version)
    marked.board.wait_for(
        lambda: watched.ended("watermark", "refused"), "refused [watermark]"
    )
    assert "[watermark]" in watched.status()
    pipeline = marked.board.pipeline()
    assert (pipeline["active"]["version"], pipeline["copy"]) == (1, "own")
    assert (pipeline["ready"], marked.board.worker_pid()) == (True, worker)
    del fleet.book.codewords[BOARD]
    watched.clean()
    assert marked.board.pipeline()["copy"] == "own"
