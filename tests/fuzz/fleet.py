"""A fleet whose publications are built in memory, honestly or not, thousands a minute.

The repository is the product's own; what is served is its files, sealed anew for each
input: timestamp and snapshot get fresh versions, so that nothing in a board's cache
spares it the reading of what was damaged.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from agent.core.targets import (
    REVOKED_PATH,
    GroupFile,
    Revocations,
    Wanted,
    device_path,
    group_path,
    render_group,
    render_revocations,
)
from tests.fakes.bundle_factory import SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle
from tests.fuzz.json_text import Tree, render

ROLES = ("timestamp", "snapshot", "targets", "fleet")
LISTED = ("targets", "fleet")  # what the snapshot lists
GROUP = group_path("all")
DEVICE = device_path("board-1")
BUNDLES = {version: good_bundle(version) for version in (1, 2)}
REVOKED = Revocations(bundles=("ab" * 32,), operators=("7f",))
GENERATIONS = {GROUP: 2, DEVICE: 1}
CONTENTS = {
    GROUP: render_group(
        GroupFile(GENERATIONS[GROUP], {"door": Wanted("kws", 2)}, percent=100.0)
    ),
    DEVICE: render_group(GroupFile(GENERATIONS[DEVICE], {"window": Wanted("kws", 1)})),
    REVOKED_PATH: render_revocations(REVOKED),
    "models/kws/2.bundle": BUNDLES[2],
}
MEMORY = 100  # honest files that are not signed again
Files = dict[str, bytes]
Spell = Callable[[Tree], bytes]


@dataclass(frozen=True, slots=True)
class Publication:
    """What a board is shown.

    Attributes:
        files: Path -> bytes, over what is served.
        signed: The true keys signed what was damaged: it may be believed.
        stolen: And it was metadata: the board's cache may be ahead of the honest from
            now on, until the keys are replaced (line 17).
    """

    files: Files
    signed: bool = False
    stolen: bool = False


class Fleet:
    """The owner: one publication to begin with, and as many second ones as one likes.

    Attributes:
        root: What boards are provisioned with; ``path`` what they follow.
        trees: Role -> its honest metadata in the second publication.
        signed: Digests of everything that was ever listed.
        payloads: Everything that a key of this fleet was ever put under.
        round: Number of the newest publication, and version of its online roles.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: SpoiledRepository = make_repository(
            path, {("kws", 1): BUNDLES[1]}, {"all": {"door": ("kws", 1)}}
        )
        self.root = self.made.root
        self.keys: dict[str, list[CryptoSigner]] = {
            role: self.made.signers(role) for role in ("root", *ROLES)
        }
        self.trees: dict[str, Tree] = {
            role: self._tree(role) for role in ("root", *ROLES)
        }
        self.signed = {hashlib.sha256(raw).hexdigest() for raw in BUNDLES.values()}
        self.payloads: set[bytes] = set()
        self._known: dict[bytes, bytes] = {}  # honest payload -> metadata
        self.round = 100
        self._assign()

    def seal(
        self,
        contents: Mapping[str, bytes] | None = None,
        spell: Mapping[str, Spell] | None = None,
    ) -> Files:
        """Return a publication: path -> bytes; what it changes is announced upwards.

        Args:
            contents: Target path -> other bytes for it, rightly listed.
            spell: Role -> what makes a file of its honest ``signed`` part.
        """
        self.round += 1
        spell = spell or {}
        parts = {role: copy.deepcopy(self.trees[role]) for role in ROLES}
        files: Files = {}
        for path, content in (contents or {}).items():
            _list(parts, path, content)
            files[served(path, content)] = content
            self.signed.add(hashlib.sha256(content).hexdigest())
        snapshot, timestamp = parts["snapshot"], parts["timestamp"]
        snapshot["version"] = timestamp["version"] = self.round
        for role in LISTED:
            raw = self._spelled(role, parts[role], spell)
            version = _version(raw, parts[role]["version"])
            files[f"metadata/{version}.{role}.json"] = raw
            snapshot["meta"][f"{role}.json"] = _meta(version, raw)
        raw = self._spelled("snapshot", snapshot, spell)
        files[f"metadata/{self.round}.snapshot.json"] = raw
        timestamp["meta"]["snapshot.json"] = _meta(self.round, raw)
        files["metadata/timestamp.json"] = self._spelled("timestamp", timestamp, spell)
        if "root" in spell:
            root = {**copy.deepcopy(self.trees["root"]), "version": 2}
            files["metadata/2.root.json"] = self._spelled("root", root, spell)
        return files

    def sign(self, role: str, signed: Tree) -> bytes:
        """Return metadata signed by the role's own keys, whatever is in it."""
        return self._signed(role, signed, _payload(signed))

    def _spelled(self, role: str, signed: Tree, spell: Mapping[str, Spell]) -> bytes:
        """Return a role's file."""
        if role in spell:
            return spell[role](signed)
        payload = _canonical(signed)
        if payload not in self._known:
            if len(self._known) > MEMORY:
                self._known.clear()
            self._known[payload] = self._signed(role, signed, payload)
        return self._known[payload]

    def _signed(self, role: str, signed: Tree, payload: bytes) -> bytes:
        """Return metadata with each key's signature over a payload, if there is one."""
        self.payloads.add(payload)
        signatures = [
            key.sign(payload).to_dict() if payload else {"keyid": "0", "sig": ""}
            for key in self.keys[role]
        ]
        return render({"signed": signed, "signatures": signatures})

    def _assign(self) -> None:
        """Put the second publication's targets into the trees."""
        for path, content in CONTENTS.items():
            _list(self.trees, path, content)
            place = self.path / served(path, content)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        for role in LISTED:
            self.trees[role]["version"] += 1

    def _tree(self, role: str) -> Tree:
        """Return what a role says now."""
        return json.loads(self.made.file(role).read_bytes())["signed"]


def _list(trees: dict[str, Tree], path: str, content: bytes) -> None:
    """Let the role that may speak about a path list it."""
    sha256 = hashlib.sha256(content).hexdigest()
    entry: dict[str, object] = {
        "length": len(content),
        "hashes": {"sha256": sha256},
    }
    if path.endswith(".bundle"):
        entry["custom"] = {
            "model": "kws",
            "version": 2,
            "plain_sha256": sha256,
            "plain_bytes": len(content),
        }
    role = "fleet" if path.startswith("fleet/") else "targets"
    trees[role]["targets"][path] = entry


def served(path: str, content: bytes) -> str:
    """Return the name under which a target is served."""
    folder, slash, name = path.rpartition("/")
    return f"targets/{folder}{slash}{hashlib.sha256(content).hexdigest()}.{name}"


def write(directory: Path, files: Files) -> None:
    """Serve files."""
    for name, content in files.items():
        (directory / name).write_bytes(content)


def remove(directory: Path, names: Iterable[str]) -> None:
    """Serve them no longer; what was published first stays."""
    for name in names:
        (directory / name).unlink(missing_ok=True)


def _meta(version: object, content: bytes) -> dict[str, object]:
    """Return how a file is announced."""
    sha256 = hashlib.sha256(content).hexdigest()
    return {"version": version, "length": len(content), "hashes": {"sha256": sha256}}


def _version(raw: bytes, honest: int) -> int:
    """Return the version to announce: the file's own where it has one."""
    try:
        found = json.loads(raw)["signed"]["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return honest
    whole = isinstance(found, int) and not isinstance(found, bool)
    return found if whole and 0 < found < 2**40 else honest


def _canonical(tree: Tree) -> bytes:
    """Return the one spelling of a tree that is signed."""
    return (encode_canonical(tree) or "").encode()


def _payload(signed: Tree) -> bytes:
    """Return what python-tuf takes for the signed bytes of a tree; none if it fails."""
    text = render({"signed": signed, "signatures": []})
    try:
        return Metadata[Any].from_bytes(text).signed_bytes
    except Exception:  # noqa: BLE001 - whatever it is, the board's own must be a refusal
        try:
            return _canonical(json.loads(text)["signed"])
        except Exception:  # noqa: BLE001 - it cannot be signed at all
            return b""
