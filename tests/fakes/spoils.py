"""Ways to spoil a repository, each by one sentence; shared by the tests of trust."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner, Signature
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from tests.fakes.bundle_factory import NOW, SpoiledRepository
from tests.fakes.bundles import good_bundle

Spoil = Callable[[SpoiledRepository], Any]


def publish_two(repository: SpoiledRepository) -> None:
    """Publish version 2 and assign it, honestly."""
    repository.repository.add(good_bundle(2), model="kws", version=2)
    repository.repository.assign("all", {"door": ("kws", 2)})
    repository.repository.publish(NOW)


def expect_refusal(
    reason: Reason, call: Callable[..., object], *arguments: object
) -> None:
    """Expect a call to be refused for a reason."""
    with pytest.raises(BundleRefusedError) as caught:
        call(*arguments)
    assert reason == caught.value.reason


def swap_content(role: str, by: str) -> Spoil:
    """Serve another version of a role under the name of the current one."""

    def spoil(repository: SpoiledRepository) -> None:
        file = repository.file(role)
        file.write_bytes((file.parent / by).read_bytes())

    return spoil


def pad(role: str, size: int) -> Spoil:
    """Append blanks to a role's file: JSON allows them, its length does not."""

    def spoil(repository: SpoiledRepository) -> None:
        file = repository.file(role)
        file.write_bytes(file.read_bytes() + b" " * size)

    return spoil


def stale_entry(repository: SpoiledRepository) -> None:
    """Let a newer, well signed snapshot name an older targets.json."""

    def change(snapshot: Snapshot) -> None:
        snapshot.version += 1
        old = (repository.path / "metadata/1.targets.json").read_bytes()
        snapshot.meta["targets.json"] = MetaFile.from_data(1, old, ["sha256"])

    repository.resign("timestamp", lambda t: setattr(t, "version", t.version + 1))
    repository.resign("snapshot", change)


def other_root(version: int, signers: int = 1) -> Spoil:
    """Serve a next root that says it has another version."""

    def spoil(repository: SpoiledRepository) -> None:
        metadata = repository.load("root")
        metadata.signed.version = version
        metadata.signatures.clear()
        for signer in repository.signers("root")[:signers]:
            metadata.sign(signer, append=True)
        place = repository.path / "metadata/2.root.json"
        place.write_bytes(metadata.to_bytes())

    return spoil


def remove(name: str) -> Spoil:
    """Remove a file or directory of the repository."""

    def spoil(repository: SpoiledRepository) -> None:
        path = repository.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    return spoil


def write(name: str, content: bytes) -> Spoil:
    """Write a file of the repository."""
    return lambda repository: (repository.path / name).write_bytes(content)


def set_issued(value: object) -> Spoil:
    """Sign another issue time."""
    return lambda repository: repository.resign(
        "timestamp", lambda t: t.unrecognized_fields.update({"x-issued": value})
    )


def set_version(role: str, version: int) -> Spoil:
    """Sign another version of a role, as whoever stole its key could."""
    return lambda repository: repository.resign(
        role, lambda signed: setattr(signed, "version", version)
    )


def unlist_fleet(repository: SpoiledRepository) -> None:
    """Let a well signed snapshot forget that fleet is delegated."""
    repository.resign("snapshot", lambda s: s.meta.pop("fleet.json"))


def rotate_expired(repository: SpoiledRepository) -> None:
    """Serve a next root that is expired, signed by all its keys."""
    other_root(2)(repository)
    repository.expire("root")


def write_cut(repository: SpoiledRepository, role: str) -> None:
    """Cut the last byte of a role's file."""
    file = repository.file(role)
    file.write_bytes(file.read_bytes()[:-1])


def sign_twice(repository: SpoiledRepository) -> None:
    """Let one of the two keys that targets needs sign for the other, too."""
    first, second = repository.signers("targets")[:2]

    def twice(metadata: Metadata[Any]) -> None:
        signature = metadata.sign(first).signature
        again = Signature(second.public_key.keyid, signature)
        metadata.signatures[again.keyid] = again

    sign_by(repository, "targets", twice)


def repeat_signature(repository: SpoiledRepository) -> None:
    """List one key's signature of targets twice, and no other's."""
    repository.drop_signatures("targets", 1)
    file = repository.file("targets")
    tree = json.loads(file.read_bytes())
    tree["signatures"] *= 2
    file.write_text(json.dumps(tree))
    reseal(repository, "targets", file.read_bytes())


def sign_by(
    repository: SpoiledRepository, role: str, sign: Callable[[Metadata[Any]], object]
) -> None:
    """Sign a role in another way than its keys would, and seal it again."""
    metadata = repository.load(role)
    sign(metadata)
    repository.write(role, metadata)


def reseal(repository: SpoiledRepository, role: str, content: bytes) -> None:
    """Let snapshot and timestamp vouch for any bytes as a role's file."""
    version = repository.load("snapshot").signed.meta[f"{role}.json"].version
    meta = MetaFile.from_data(version, content, ["sha256"])
    repository.resign("snapshot", lambda s: s.meta.update({f"{role}.json": meta}))


def next_root(change: Callable[[Root, CryptoSigner], object], by: str) -> Spoil:
    """Serve a next root with another key for itself, signed by old or new keys."""

    def spoil(repository: SpoiledRepository) -> None:
        metadata, own = repository.load("root"), CryptoSigner.generate_ed25519()
        signers = {"old": repository.signers("root"), "new": [own]}[by]
        root: Root = metadata.signed
        root.version += 1
        change(root, own)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        place = repository.path / f"metadata/{root.version}.root.json"
        place.write_bytes(metadata.to_bytes())

    return spoil


def replace_root_keys(root: Root, own: CryptoSigner) -> None:
    """Give the root another key."""
    for keyid in list(root.roles["root"].keyids):
        root.revoke_key(keyid, "root")
    root.add_key(own.public_key, "root")


def disguised(keytype: str, scheme: str) -> Spoil:
    """Serve a next root that says the timestamp's key is of another kind than it is."""

    def change(root: Root, own: CryptoSigner) -> None:
        del own
        (keyid,) = root.roles["timestamp"].keyids
        key = root.keys[keyid]
        key.keytype, key.scheme = keytype, scheme

    return next_root(change, "old")


def older_snapshot(repository: SpoiledRepository) -> None:
    """Let a newer, well signed timestamp name the snapshot before the newest."""
    old = (repository.path / "metadata/1.snapshot.json").read_bytes()
    meta = MetaFile.from_data(1, old, ["sha256"])

    def change(timestamp: Timestamp) -> None:
        timestamp.version += 1
        timestamp.snapshot_meta = meta

    repository.resign("timestamp", change)


def second_snapshot(repository: SpoiledRepository) -> None:
    """Serve another snapshot of the same version, well signed, that nobody announced.

    It lists the targets of the publication before.
    """
    metadata = repository.load("snapshot")
    old = (repository.path / "metadata/1.targets.json").read_bytes()
    metadata.signed.meta["targets.json"] = MetaFile.from_data(1, old, ["sha256"])
    metadata.sign(repository.signers("snapshot")[0])
    repository.file("snapshot").write_bytes(metadata.to_bytes())


def say_more(role: str, spec_version: str = "1.0.99") -> Spoil:
    """Sign fields that no specification knows, of a specification to come."""

    def change(signed: Any) -> None:  # noqa: ANN401 - any role
        signed.spec_version = spec_version
        signed.unrecognized_fields["x-unheard"] = {"of": [1, None, True]}

    return lambda repository: repository.resign(role, change)
