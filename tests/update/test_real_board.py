"""Store, TUF and update machine together: what a board does without its repository."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from tests.fakes.bundle_factory import NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle
from tests.update.real_board import RealBoard


@pytest.fixture
def published(tmp_path: Path) -> SpoiledRepository:
    """Give a repository that wants kws 1 on the door, and holds 2 and 3, too."""
    bundles = {("kws", version): good_bundle(version) for version in (1, 2, 3)}
    wanted = {"all": {"door": ("kws", 1)}}
    return make_repository(tmp_path / "repository", bundles, wanted)


def assign(published: SpoiledRepository, version: int) -> None:
    """Publish another desired version."""
    published.repository.assign("all", {"door": ("kws", version)})
    published.repository.publish(NOW)


def test_from_signed_repository_to_disk(
    tmp_path: Path, published: SpoiledRepository
) -> None:
    """Polls, verifies, stores; then again for the next version; then the way back."""
    board = RealBoard(tmp_path, published.root)
    board.look()
    found = [board.active()]
    for version in (2, 1, 3):
        assign(published, version)
        board.look()
        found.append(board.active())
    assert found == [1, 2, 1, 3]
    assert board.store.version_floor("kws") == 3
    assert board.poller.snapshot().results == {("committed", ""): 4}
    board.close()


def test_it_boots_without_its_repository(
    tmp_path: Path, published: SpoiledRepository
) -> None:
    """A committed model starts with the repository gone, and the refusal says so."""
    board = RealBoard(tmp_path, published.root)
    board.look()
    board.close()
    shutil.rmtree(published.path)
    board = RealBoard(tmp_path, published.root)
    assert board.active() == 1
    board.look()
    assert board.active() == 1
    assert board.poller.snapshot().results == {("failed", Reason.UNREACHABLE): 1}
    board.close()


def test_flipped_and_strange(tmp_path: Path, published: SpoiledRepository) -> None:
    """One flipped bit and a stranger's signature: refused, version 1 stays."""
    board = RealBoard(tmp_path, published.root)
    board.look()
    assign(published, 2)
    published.flip_bit(published.bundle_file("kws", 2))
    board.look()
    assert board.poller.snapshot().last_refusal is not None
    published.sign_by_stranger("timestamp")
    board.look()
    assert board.active() == 1
    results = board.poller.snapshot().results
    refused = {reason for result, reason in results if result == "refused"}
    assert refused == {Reason.DIGEST, Reason.SIGNATURE}
    board.close()


def test_killed_at_every_change(
    tmp_path: Path, repository: Path, published: SpoiledRepository
) -> None:
    """kill -9 before and after every durable change of an update.

    The next life finds a whole, committed model; only a COMMIT that was on record is
    finished; and the next look ends with version 2 at the latest.
    """
    board = RealBoard(tmp_path, published.root)
    board.look()
    board.close()
    assign(published, 2)
    (tmp_path / "root.json").write_bytes(published.root)
    done = subprocess.run(
        [sys.executable, "-m", "tests.update.real_board", str(tmp_path)],
        cwd=repository,
        stdout=subprocess.PIPE,
        check=True,
    )
    # Seven phases are saved, each with a moment before and after it; then COMMIT.
    up_to_probation = [[1, 1, 2]] * 13
    commit_on_record = [[1, 2, 2]] * 2
    committed = [[2, 2, 2]]
    found = json.loads(done.stdout)
    assert found == up_to_probation + commit_on_record + committed
