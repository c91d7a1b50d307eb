"""A repository slice: all signed metadata and some of the content, to be carried.

The rules this module keeps:
 * Every root, the current metadata and every desired state are always in it, so that a
   board that was off for years can follow; bundles are chosen.
 * Of a bundle, the deltas from versions that are named go along instead; without
   such a choice only a slice of everything has deltas.
 * What is copied is checked against the signed length and digest on the way;
   envelopes, which nobody signs, go along with the sealed bundles they open.
 * The same publication and choice give the same bytes; timestamp.json comes last.
 * A slice appears whole or not at all.
"""

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import TargetFile

from agent.core.deltas import delta_path
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, bundle_path
from agent.errors import BundleRefusedError, DeviceError, SettingsError
from agent.publish.contents import DEVICES, GROUPS, Contents
from agent.publish.envelopes import chosen_envelopes
from agent.publish.files import locked, owners_disk, stored_target, sync_directory
from agent.publish.roles import FLEET, RoleFiles, RoleSet
from agent.publish.status import listed_bundles

_CHUNK_BYTES = 1024 * 1024
_PUBLIC = 0o644  # as the repository itself: for anybody to read


@dataclass(frozen=True, slots=True)
class Choice:
    """Which bundles go along; none chosen means all that a desired state names.

    Attributes:
        groups: Those that these groups want; ``devices`` likewise.
        models: (model, version) of further ones.
        everything: All that are listed.
        deltas_from: (model, version) that the boards hold: a bundle that a delta leads
            to from any of them stays behind, and the delta goes along.
        boards: Whose envelopes of sealed bundles go along; none named means all.
    """

    groups: Sequence[str] = ()
    devices: Sequence[str] = ()
    models: Sequence[tuple[str, int]] = ()
    everything: bool = False
    deltas_from: Sequence[tuple[str, int]] = ()
    boards: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of a slice: its name there, where it lies, and what was signed of it."""

    name: str
    place: Path
    signed: TargetFile | None = None


def export_slice(repository: Path, out: Path, choice: Choice) -> list[Piece]:
    """Write a slice into a new folder, or into a file that ends in ``.tar``.

    Returns:
        The files that it holds, in their order.

    Raises:
        SettingsError: A group or device is unknown, the folder exists, or a board
            that is named has no envelope.
        BundleRefusedError: ``missing_target``: a bundle is not listed, or no delta
            from a version that is named leads to any of them; ``digest`` or
            ``length``: the repository's own copy is damaged.
        DeviceError: It cannot be read or written.
    """
    with locked(repository):
        files = RoleFiles(repository / "metadata")
        roles = files.load()
        contents = Contents(roles, repository / "targets")
        chosen = chosen_content(contents, choice)
        *pieces, last = _pieces(repository, roles, chosen)
        pieces += [*_envelopes(repository, contents, chosen, choice.boards), last]
        aside = out.with_name(f".{out.name}.tmp")
        as_file = out.suffix == ".tar"
        with owners_disk():
            _clear(aside)
            if out.exists() and not as_file:
                raise SettingsError(
                    f"{out} exists already",
                    reason=Reason.SETTINGS,
                    todo="Name a new folder, or a file that ends in .tar.",
                )
            try:
                (_write_tar if as_file else _write_folder)(aside, pieces)
                aside.replace(out)
            except BaseException:
                _clear(aside)
                raise
            sync_directory(out.absolute().parent)
    return pieces


def chosen_content(contents: Contents, choice: Choice) -> list[str]:
    """Return the paths of the bundles and deltas that go along.

    Raises:
        SettingsError: A group or a device has no desired state.
        BundleRefusedError: ``missing_target``.
    """
    bundles, published = chosen_bundles(contents, choice), contents.deltas()
    if not choice.deltas_from:
        return bundles + (sorted(published) if choice.everything else [])
    digests = {path: it.hashes["sha256"] for path, it in contents.bundles().items()}
    left, deltas = set(bundles), set[str]()
    for model, version in choice.deltas_from:
        base = digests.get(bundle_path(model, version), "")
        leads = {path: delta_path(base, digests[path]) for path in bundles}
        found = {path: it for path, it in leads.items() if it in published}
        if not found:
            raise BundleRefusedError(
                f"no delta from {model} {version} leads to what goes along",
                reason=Reason.MISSING_TARGET,
                todo="See `tinyward repo status` for the deltas that are published.",
            )
        left -= found.keys()
        deltas |= set(found.values())
    return sorted(left) + sorted(deltas)


def chosen_bundles(contents: Contents, choice: Choice) -> list[str]:
    """Return the paths of the bundles that go along, sorted.

    Raises:
        SettingsError: A group or a device has no desired state.
        BundleRefusedError: ``missing_target``.
    """
    listed = contents.bundles()
    if choice.everything:
        return sorted(listed)
    groups, devices = contents.states(GROUPS), contents.states(DEVICES)
    if choice.groups or choice.devices or choice.models:
        states = [_named(groups, name, "group") for name in choice.groups]
        states += [_named(devices, name, "device") for name in choice.devices]
    else:
        states = [*groups.values(), *devices.values()]
    wanted = {bundle_path(model, version) for model, version in choice.models}
    for state in states:
        wanted |= {bundle_path(w.model, w.version) for w in state.pipelines.values()}
    for path in wanted - set(listed):
        raise BundleRefusedError(
            f"{path} is not listed in this repository", reason=Reason.MISSING_TARGET
        )
    return sorted(wanted)


def _named(states: dict[str, GroupFile], name: str, word: str) -> GroupFile:
    """Return a published desired state."""
    if name not in states:
        raise SettingsError(
            f"{word} {name} has no published desired state",
            reason=Reason.SETTINGS,
            todo="See `tinyward repo status` for those that have.",
        )
    return states[name]


def _pieces(repository: Path, roles: RoleSet, chosen: Sequence[str]) -> Iterator[Piece]:
    """Yield the files of a slice, timestamp.json last."""
    metadata = repository / "metadata"
    versions = {
        "targets": roles.targets.signed.version,
        FLEET: roles.fleet.signed.version,
        "snapshot": roles.snapshot.signed.version,
    }
    names = [f"{n}.root.json" for n in range(1, roles.root.signed.version + 1)]
    names += [f"{version}.{role}.json" for role, version in versions.items()]
    for name in names:
        yield Piece(f"metadata/{name}", metadata / name)
    listed = roles.targets.signed.targets
    small = [path for path in listed if "/" not in path]  # revoked.json
    targets = [roles.fleet.signed.targets[path] for path in roles.listed(FLEET)]
    targets += [listed[path] for path in (*small, *chosen)]
    for signed in sorted(targets, key=lambda target: target.path):
        sha256 = signed.hashes["sha256"]
        place = stored_target(repository / "targets", signed.path, sha256)
        name = place.relative_to(repository).as_posix()
        yield Piece(name, place, signed)
    yield Piece("metadata/timestamp.json", metadata / "timestamp.json")


def _envelopes(
    repository: Path, contents: Contents, chosen: Sequence[str], boards: Sequence[str]
) -> Iterator[Piece]:
    """Yield the envelopes of the sealed bundles that go along."""
    listed = listed_bundles(
        file for path, file in contents.bundles().items() if path in chosen
    )
    sealed = [(it.fields.model, it.fields.version) for it in listed if it.fields.sealed]
    found = list(chosen_envelopes(repository, sealed, boards))
    if left := set(boards) - {place.name for place in found}:
        raise SettingsError(
            f"nothing that goes along is sealed for {', '.join(sorted(left))}",
            reason=Reason.SETTINGS,
            todo="Seal it for the board first, and `tinyward repo add` the folder.",
        )
    for place in found:
        yield Piece(place.relative_to(repository).as_posix(), place)


def _write_folder(folder: Path, pieces: Sequence[Piece]) -> None:
    """Write the files below a folder, and make them durable."""
    folder.mkdir(parents=True)
    for piece in pieces:
        place = folder / piece.name
        place.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(place, flags, _PUBLIC), "wb") as file:
            with _Checked(piece) as content:
                shutil.copyfileobj(content, file, _CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())
    for place in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        sync_directory(place)


def _write_tar(place: Path, pieces: Sequence[Piece]) -> None:
    """Write the files into an archive that says nothing about when and where."""
    with place.open("xb") as file:
        # GNU's format takes names of any length; the others differ in how.
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for piece in pieces:
                entry = tarfile.TarInfo(piece.name)
                entry.size, entry.mode = _size(piece), _PUBLIC
                with _Checked(piece) as content:
                    archive.addfile(entry, content)
        file.flush()
        os.fsync(file.fileno())


class _Checked(io.RawIOBase):
    """One file of a slice as it is read; at its end it must be what was signed."""

    def __init__(self, piece: Piece) -> None:
        _size(piece)
        self._piece, self._file = piece, piece.place.open("rb")
        self._digest, self._length = hashlib.sha256(), 0

    def readable(self) -> bool:
        """Say so."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes."""
        chunk = self._file.read(size)
        self._digest.update(chunk)
        self._length += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        """Judge what was read, unless something else went wrong already."""
        self.close()
        signed = self._piece.signed
        if kind is not None or signed is None:
            return
        same_length = self._length == signed.length
        if not same_length or self._digest.hexdigest() != signed.hashes["sha256"]:
            raise BundleRefusedError(
                f"{self._piece.place} is not what was signed",
                reason=Reason.DIGEST if same_length else Reason.LENGTH,
                todo="Restore it from a copy, or `tinyward repo add` its bundle again.",
            )


def _size(piece: Piece) -> int:
    """Return the length of a file of the repository."""
    try:
        return piece.place.stat().st_size
    except FileNotFoundError as err:
        raise DeviceError(
            f"{piece.place} is missing",
            reason=Reason.MISSING_TARGET,
            todo="Restore the repository from a copy.",
        ) from err


def _clear(aside: Path) -> None:
    """Remove what a crash left of an earlier attempt."""
    if aside.is_dir():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)
