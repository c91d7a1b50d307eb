"""Unsigned look-alikes of repositories: what the command line reads before it sends."""

import json
import tarfile
import zipfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from agent.cli.slice_files import Slice
from agent.core.targets import GroupFile, Wanted, render_group

Tree = dict[str, bytes]


def bundle(version: int, size: int = 3000) -> bytes:
    """Return bytes that stand for a bundle."""
    return f"kws {version};".encode() * (size // 6)


def group(*versions: tuple[str, int], generation: int = 1) -> bytes:
    """Return a desired state: (pipeline, version of ``kws``)."""
    wanted = {name: Wanted("kws", version) for name, version in versions}
    return render_group(GroupFile(generation=generation, pipelines=wanted))


def make_tree(bundles: dict[int, bytes], states: Tree, revoked: bytes = b"") -> Tree:
    """Return the files of a repository in its second publication.

    Args:
        bundles: Version of ``kws`` -> content.
        states: Path of a desired state -> content.
        revoked: Content of ``revoked.json``.
    """
    listed = {f"models/kws/{version}.bundle": raw for version, raw in bundles.items()}
    if revoked:
        listed["revoked.json"] = revoked
    files: Tree = {
        "metadata/1.root.json": _role("root", 1),
        "metadata/2.root.json": _role("root", 2),
        "metadata/1.snapshot.json": _role("snapshot", 1),  # of the publication before
        "metadata/2.targets.json": _role("targets", 2, targets=_targets(listed)),
        "metadata/2.fleet.json": _role("fleet", 2, targets=_targets(states)),
        "metadata/2.snapshot.json": _role(
            "snapshot",
            2,
            meta={"targets.json": {"version": 2}, "fleet.json": {"version": 2}},
        ),
        "metadata/timestamp.json": _role(
            "timestamp", 2, meta={"snapshot.json": {"version": 2}}
        ),
    }
    return files | {stored(path, raw): raw for path, raw in (listed | states).items()}


def stored(path: str, content: bytes) -> str:
    """Return where a target lies."""
    folder, _, name = path.rpartition("/")
    prefix = f"targets/{folder}/" if folder else "targets/"
    return f"{prefix}{sha256(content).hexdigest()}.{name}"


def write_tree(folder: Path, tree: Tree) -> Path:
    """Write files into a folder."""
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_tar(path: Path, tree: Tree, prefix: str = "", mode: str = "w") -> Path:
    """Write files into a tar archive."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]  # any mode
        for name, content in tree.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path


def write_zip(path: Path, tree: Tree, prefix: str = "") -> Path:
    """Write files into a zip archive, compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tree.items():
            archive.writestr(prefix + name, content)
    return path


def read_whole(files: Slice, path: str) -> bytes:
    """Return a file of a slice."""
    return files.read(path, 0, files.sizes[path])


def _role(kind: str, version: int, **more: object) -> bytes:
    """Return a metadata file that nobody signed."""
    signed: dict[str, Any] = {"_type": kind, "version": version, **more}
    return json.dumps({"signed": signed, "signatures": []}).encode()


def _targets(files: Tree) -> dict[str, Any]:
    """Return the targets of a role."""
    return {
        path: {"length": len(raw), "hashes": {"sha256": sha256(raw).hexdigest()}}
        for path, raw in files.items()
    }
