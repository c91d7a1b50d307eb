"""Boards before an update, with their fleet: what every fault starts from.

The rules this module keeps:
 * ``install`` has no state yet and is to get version 1; ``update`` runs version 1 and
   is to get 2; ``delta`` likewise, and its fleet has deltas from 1 to 2 and 2 to 3;
   ``sealed`` likewise, and all its fleet's bundles are sealed for the board.
   What the fleet wanted before and wants after it lies beside it, signed by the same
   keys.
 * A scene is made once and copied for each case; nothing in it changes.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from agent.core.floors import Floors
from agent.core.targets import bundle_path
from agent.publish.deltas import stage_delta
from agent.trust.notes import Remembered
from tests.fakes.bundle_factory import NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle
from tests.fakes.sealed import SealingOwner, take_in
from tests.update.real_board import BOARD, SEAL_KEY, RealBoard

Name = Literal["install", "update", "delta", "sealed"]
MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the parts of one scene lie.

    Attributes:
        name: Which of them.
        path: Holds the folder ``repository`` that is to be followed, and ``state``
            where there is one.
        before: Holds the repository as it was earlier.
        after: Holds the repository with one version more.
        root: What boards are provisioned with.
        signed: Digest -> version, of every bundle that ``targets`` signed.
        start: Version that is active before; ``goal`` what is wanted.
        floors: What the board's trust remembers before.
    """

    name: Name
    path: Path
    before: Path
    after: Path
    root: bytes
    signed: dict[str, int]
    start: int
    goal: int
    floors: Floors

    def fresh(self, folder: Path) -> Path:
        """Return a state directory of its own, as it is before the update."""
        state = folder / "state"
        if (self.path / "state").is_dir():
            shutil.copytree(self.path / "state", state)
        return state

    def board(self, state: Path, *, fleet: Path | None = None) -> RealBoard:
        """Return a board on a state directory that follows this scene's repository."""
        return RealBoard(fleet or self.path, self.root, str(state.resolve()))


def floors_of(board: RealBoard, root: bytes) -> Floors:
    """Return what a board's trust remembers."""
    return Remembered.of(board.store, root).load()


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder in memory where there is one: kill -9 loses no page cache."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


def make_scenes(path: Path) -> dict[Name, Scene]:
    """Publish what all scenes need, and bring version 1 to their boards."""
    install, update = _scenes(path / "whole", ())
    _, delta = _scenes(path / "delta", (1, 2))
    _, sealed = _scenes(path / "sealed", (), sealed=True)
    scenes = (
        install,
        update,
        replace(delta, name="delta"),
        replace(sealed, name="sealed"),
    )
    return {scene.name: scene for scene in scenes}


def _scenes(
    path: Path, deltas_from: tuple[int, ...], *, sealed: bool = False
) -> tuple[Scene, Scene]:
    """Return an install and an update; deltas lead to the version after each."""
    bundles = {("kws", version): good_bundle(version) for version in (1, 2, 3)}
    published = make_repository(path / "owner", {} if sealed else bundles)
    if sealed:
        _seal(path, published, bundles)
    targets = published.repository.status().bundles
    for version in deltas_from:
        stage_delta(published.path, targets[version], version)
    for version in (1, 2, 3):
        published.repository.assign("all", {"door": ("kws", version)})
        published.repository.publish(NOW)
        shutil.copytree(published.path, path / str(version) / "repository")
    signed = _signed(published)
    install = Scene(
        name="install",
        path=path / "1",
        before=path / "none",
        after=path / "2",
        root=published.root,
        signed=signed,
        start=0,
        goal=1,
        floors=Floors(),
    )
    board = install.board(path / "2" / "state")
    board.look()
    floors = floors_of(board, published.root)
    board.close()
    update = replace(
        install,
        name="update",
        path=path / "2",
        before=path / "1",
        after=path / "3",
        start=1,
        goal=2,
        floors=floors,
    )
    return install, update


def _seal(
    path: Path, published: SpoiledRepository, bundles: dict[tuple[str, int], bytes]
) -> None:
    """Publish all bundles sealed; the board's key lies where ``RealBoard`` looks."""
    owner = SealingOwner(path / "sealing")
    for (model, version), plain in bundles.items():
        folder = owner.seal(plain, model, version, [BOARD.id])
        take_in(published.repository, folder)
    published.repository.publish(NOW)
    shutil.copy(owner.key(BOARD.id), path / SEAL_KEY)


def _signed(published: SpoiledRepository) -> dict[str, int]:
    """Return digest -> version of what the targets role signed."""
    targets = published.load("targets").signed.targets
    return {
        targets[bundle_path("kws", version)].hashes["sha256"]: version
        for version in (1, 2, 3)
    }
