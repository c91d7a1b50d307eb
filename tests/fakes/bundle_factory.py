"""Signed repositories for tests; each method spoils one thing.

``make_repository`` builds a real repository with the product's own publisher (keys
unencrypted, which skips only the stretching of a passphrase). ``SpoiledRepository``
then rewrites single files: with the repository's keys (``resign``), with a stranger's,
or with none at all. Metadata that is re-signed seals what it refers to again, so that
exactly one thing is wrong.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile

from agent.core.targets import bundle_path
from agent.publish.files import stored_target
from agent.publish.repository import KeyPlan, Repository, init_repository
from agent.publish.roles import utc

NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z
DAY_S = 86_400.0
Signed = Any  # python-tuf's Root, Targets, Snapshot or Timestamp


def make_repository(
    path: Path,
    bundles: Mapping[tuple[str, int], bytes] | None = None,
    groups: Mapping[str, Mapping[str, tuple[str, int]]] | None = None,
    *,
    now: float = NOW,
    plan: KeyPlan | None = None,
) -> "SpoiledRepository":
    """Return a published repository with these bundles and desired states.

    Args:
        path: Where to make it; keys go to ``<path>-keys``.
        bundles: (model, version) -> content.
        groups: Group -> pipeline -> (model, version).
        now: Unix seconds at which it is published.
        plan: Keys and thresholds of the offline roles.
    """
    repository = init_repository(path, now=now, plan=plan)
    for (model, version), content in (bundles or {}).items():
        repository.add(content, model=model, version=version)
    for group, pipelines in (groups or {}).items():
        repository.assign(group, pipelines)
    if bundles or groups:
        repository.publish(now)
    return SpoiledRepository(path, repository)


class SpoiledRepository:
    """A repository on disk that can be spoiled, one thing at a time.

    Attributes:
        path: The directory, as a board would name it.
        repository: The publisher, for everything that is honest.
        root: The root.json that boards are provisioned with.
    """

    def __init__(self, path: Path, repository: Repository) -> None:
        self.path = path
        self.repository = repository
        self.root = repository.first_root()

    def file(self, role: str) -> Path:
        """Return the metadata file of a role that counts now."""
        metadata = self.path / "metadata"
        if role == "timestamp":
            return metadata / "timestamp.json"
        pattern = f"*.{role}.json"
        found = metadata.glob(pattern)
        return max(found, key=lambda path: int(path.name.partition(".")[0]))

    def load(self, role: str) -> Metadata[Any]:
        """Return a role's metadata."""
        return Metadata[Any].from_bytes(self.file(role).read_bytes())

    def signers(self, role: str) -> list[CryptoSigner]:
        """Return the repository's own signers for a role."""
        delegator = self.load("targets" if role == "fleet" else "root").signed
        keyids = delegator.get_delegated_role(role).keyids
        return self.repository._ring.signers(role, list(keyids), 1)

    def resign(
        self,
        role: str,
        change: Callable[[Signed], None],
        signers: list[CryptoSigner] | None = None,
    ) -> None:
        """Change a role and sign it again, in place, with everything that seals it."""
        metadata = self.load(role)
        change(metadata.signed)
        metadata.signatures.clear()
        for signer in self.signers(role) if signers is None else signers:
            metadata.sign(signer, append=True)
        self.write(role, metadata)

    def write(self, role: str, metadata: Metadata[Any]) -> None:
        """Write a role's metadata under its version, and seal it again."""
        content = metadata.to_bytes()
        version = metadata.signed.version
        name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
        (self.path / "metadata" / name).write_bytes(content)
        if role in {"targets", "fleet"}:
            meta = MetaFile.from_data(version, content, ["sha256"])
            self.resign("snapshot", lambda s: s.meta.update({f"{role}.json": meta}))
        if role == "snapshot":
            meta = MetaFile.from_data(version, content, ["sha256"])
            self.resign("timestamp", lambda t: setattr(t, "snapshot_meta", meta))

    def flip_bit(self, path: Path, offset: int = -1) -> None:
        """Change one bit of a file, keeping its length."""
        content = bytearray(path.read_bytes())
        content[offset] ^= 1
        path.write_bytes(bytes(content))

    def edit_unsigned(
        self, role: str, change: Callable[[dict[str, Any]], None]
    ) -> None:
        """Change a role's JSON and leave its signatures as they were."""
        tree = json.loads(self.file(role).read_bytes())
        change(tree["signed"])
        self.file(role).write_text(json.dumps(tree))

    def drop_signatures(self, role: str, keep: int) -> None:
        """Keep only the first signatures of a role, and seal it again."""
        self.resign(role, lambda _: None, self.signers(role)[:keep])

    def sign_by_stranger(self, role: str) -> None:
        """Sign a role with a key that nobody delegated to, and seal it again."""
        self.resign(role, lambda _: None, [CryptoSigner.generate_ed25519()])

    def expire(self, role: str, at: float = NOW - DAY_S) -> None:
        """Let a role expire at a time, properly signed."""
        self.resign(role, lambda signed: setattr(signed, "expires", utc(at)))

    def target_file(self, path: str) -> Path:
        """Return the stored content of a target, by either role that lists it."""
        for role in ("targets", "fleet"):
            found = self.load(role).signed.targets.get(path)
            if found is not None:
                return stored_target(
                    self.path / "targets", path, found.hashes["sha256"]
                )
        raise KeyError(path)

    def bundle_file(self, model: str, version: int) -> Path:
        """Return the stored content of a bundle."""
        return self.target_file(bundle_path(model, version))

    def copy(self, path: Path) -> Path:
        """Return a copy of what a mirror serves now, for a later replay."""
        return Path(shutil.copytree(self.path, path))

    def restore(self, copied: Path) -> None:
        """Serve an earlier copy again."""
        shutil.rmtree(self.path)
        shutil.copytree(copied, self.path)
