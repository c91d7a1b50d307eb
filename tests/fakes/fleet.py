"""A fleet's owner for tests that start the daemon: demo bundles in a signed repository.

Bundles are packed once for each of the two demo models and then renumbered, so that a
test has as many versions as it likes for the price of two.
"""

import time
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from agent.demo.owner import ASSETS
from agent.publish.description import parse_description
from agent.publish.files import stored_target
from agent.publish.pack import pack, render_bundle
from agent.trust.bundle import Bundle, open_bundle
from agent.worker.examine import default_examiner
from tests.fakes.bundle_factory import SpoiledRepository, make_repository

MODEL = "digits"
GROUP = "all"
MAX_BYTES = 64 * 1024 * 1024
STREAM = ASSETS / "digits-stream.npz"


def bundle(version: int) -> bytes:
    """Return a version; odd ones hold the first demo model, even ones the second."""
    return renumbered(packed(2 - version % 2), version)


@cache
def packed(number: int) -> bytes:
    """Return demo bundle 1 or 2."""
    folder = ASSETS / f"{MODEL}-{number}"
    description = parse_description((folder / "pack.toml").read_bytes())
    return pack(description, folder, default_examiner())


def renumbered(content: bytes, version: int) -> bytes:
    """Return a bundle under another version."""
    opened = opened_bundle(content)
    manifest = replace(opened.manifest, version=version)
    return render_bundle(manifest, variants(opened), bytes(opened.golden))


def variants(opened: Bundle) -> dict[str, bytes]:
    """Return the models of a bundle by variant."""
    names = [variant.name for variant in opened.manifest.variants]
    return {name: bytes(opened.variant_bytes(name)) for name in names}


def opened_bundle(content: bytes) -> Bundle:
    """Open a bundle."""
    return open_bundle(content, max_bytes=MAX_BYTES)


class Fleet:
    """An owner with a repository in ``directory/repo``; boards get ``root``.

    Attributes:
        path: The repository; ``root`` the file that boards are provisioned with.
        spoiled: The repository, with all ways to spoil it.
    """

    def __init__(self, directory: Path, *, now: float | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "repo"
        self.root = directory / "root.json"
        self.spoiled: SpoiledRepository = make_repository(self.path, now=_now(now))
        self.root.write_bytes(self.spoiled.root)

    def update_table(self, poll_s: float = 0.1, **more: object) -> dict[str, object]:
        """Return the board's table [update]."""
        places = {"repository": self.path, "root": self.root}
        return {**places, "groups": [GROUP], "poll_s": poll_s, **more}

    def publish(
        self, version: int, content: bytes | None = None, *, now: float | None = None
    ) -> None:
        """Add, assign and publish a version."""
        self.stage(version, content)
        self.sign(now=now)

    def stage(self, version: int, content: bytes | None = None) -> Path:
        """Add and assign a version; return where its bundle lies for boards."""
        repository = self.spoiled.repository
        target = repository.add(
            content or bundle(version), model=MODEL, version=version
        )
        repository.assign(GROUP, {MODEL: (MODEL, version)})
        return stored_target(self.path / "targets", target.path, target.sha256)

    def sign(self, *, now: float | None = None) -> None:
        """Publish what is staged."""
        self.spoiled.repository.publish(_now(now))

    def publish_spoiled(self, version: int, content: bytes) -> None:
        """Publish a version whose file on the mirror was overwritten before that."""
        repository = self.spoiled.repository
        target = repository.add(bundle(version), model=MODEL, version=version)
        path = stored_target(self.path / "targets", target.path, target.sha256)
        path.chmod(0o644)
        path.write_bytes(content)
        repository.assign(GROUP, {MODEL: (MODEL, version)})
        repository.publish(_now(None))


def _now(now: float | None) -> float:
    """Return the time a test names, or this moment."""
    return time.time() if now is None else now  # noqa: TID251 - real daemons read it too
