"""Copies that were really marked, on real daemons: from the book to the trace."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from agent.cli import TopGroup
from agent.core.sealing_keys import PublicKey
from agent.publish.marks_book import MarksBook
from agent.publish.seal import Order, seal_bundle
from agent.trust.seal_key import load_seal_key
from tests.e2e.conftest import watched_daemon
from tests.fakes.fleet import GROUP, MODEL, bundle
from tests.fakes.sealed import SealedFleet, take_in
from tests.fakes.watched_board import WatchedBoard
from tests.fakes.watermarked import pictures

BOARD, OTHER = "pi-7", "pi-8"
WORDS = "five random words of mine"


class Owner(SealedFleet):
    """An owner who marks the second version with ``tinyward watermark``."""

    def mark(self, home: Path, version: int) -> tuple[bytes, MarksBook]:
        """Type the command; return the bundle to seal, and the book."""
        home.mkdir()
        (home / "d.bundle").write_bytes(bundle(version))
        (home / "boards.csv").write_text(f"{BOARD}\n{OTHER}\n")
        (home / "passphrase").write_text(WORDS)
        np.savez(home / "clean.npz", images=pictures()[:300])
        arguments = [
            *("watermark", "instances", str(home / "d.bundle")),
            *("--boards", str(home / "boards.csv")),
            *("--data", str(home / "clean.npz"), "--book", str(home / "marks.db")),
            *("--passphrase-file", str(home / "passphrase")),
            *("--bits", "64", "--steps", "40", "--jobs", "1", "--floor", "0.9"),
            *("-o", str(home / "marked.bundle")),
        ]
        done = CliRunner().invoke(TopGroup("tinyward"), arguments)
        assert done.exit_code == 0, done.output
        book = MarksBook.open(home / "marks.db", WORDS.encode())
        return (home / "marked.bundle").read_bytes(), book

    def publish_marked(self, version: int, content: bytes, book: MarksBook) -> None:
        """Seal, mark, list and assign a version."""
        folder = self.path.parent / f"marked-{version}.sealed"
        order = Order(MODEL, version, self._keys(), self.algorithm, book=book)
        seal_bundle(content, order, folder)
        self.folders[version] = folder
        repository = self.spoiled.repository
        take_in(repository, folder)
        repository.assign(GROUP, {MODEL: (MODEL, version)})
        self.sign()

    def _keys(self) -> list[PublicKey]:
        """Return the public keys of all boards."""
        return [load_seal_key(self.owner.key(it)).public(it) for it in self.boards]


def test_a_really_marked_copy_passes_its_trial_and_answers(tmp_path: Path) -> None:
    """Golden samples, the activation check and everything else, on the board's copy."""
    owner = Owner(tmp_path, BOARD, OTHER)
    tables = owner.tables(BOARD)
    board = watched_daemon(tmp_path / "board", tables.pop("update"), tables)
    watched = WatchedBoard(owner, board)
    content, book = owner.mark(tmp_path / "office", 2)
    with board:
        watched.clean()
        owner.publish_marked(2, content, book)
        board.wait_version(2)
        watched.answers()
