"""What a publication says besides who signs: bundles, desired states, revocations.

The rules this module keeps:
 * A bundle that is listed no longer is remembered, signed, with its digest: its version
   is never given to other bytes.
 * A delta is listed only while both of its bundles are, and neither is revoked.
 * A desired state that is new begins above every generation that its path ever had.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from tuf.api.metadata import TargetFile

from agent.core.deltas import FOLDER, SignedDelta, ends_of
from agent.core.targets import (
    REVOKED_PATH,
    BundleFields,
    GroupFile,
    Revocations,
    device_path,
    group_path,
    parse_group,
    parse_revocations,
    render_group,
    render_revocations,
)
from agent.publish.files import owners_disk, place_target, stored_target
from agent.publish.release import Told
from agent.publish.roles import RoleSet
from agent.publish.staging import Staged

_UNLISTED_FIELD = "x-unlisted"  # of the targets role: path -> SHA-256
GROUPS, DEVICES = group_path(""), device_path("")


class Contents:
    """The content of one publication, read and changed; nothing is signed here."""

    def __init__(self, roles: RoleSet, targets: Path) -> None:
        """Remember where things are.

        Args:
            roles: The metadata of the publication; ``apply`` changes it.
            targets: The directory ``REPO/targets``.
        """
        self.roles = roles
        self._targets = targets

    def bundles(self) -> dict[str, TargetFile]:
        """Return the bundles that are listed, by path."""
        listed = self.roles.targets.signed.targets
        return {
            path: file
            for path, file in listed.items()
            if path != REVOKED_PATH and not path.startswith(FOLDER)
        }

    def deltas(self) -> dict[str, TargetFile]:
        """Return the deltas that are listed, by path."""
        listed = self.roles.targets.signed.targets
        return {path: it for path, it in listed.items() if path.startswith(FOLDER)}

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every bundle that is or was listed, by path."""
        listed = {path: file.hashes["sha256"] for path, file in self.bundles().items()}
        return {**self._unlisted(), **listed}

    def states(self, folder: str) -> dict[str, GroupFile]:
        """Return the desired states in ``GROUPS`` or ``DEVICES``, by name."""
        return {
            path.removeprefix(folder): file
            for path in self.roles.fleet.signed.targets
            if path.startswith(folder) and (file := self.state(path)) is not None
        }

    def state(self, path: str) -> GroupFile | None:
        """Return a desired state, or None.

        Raises:
            DeviceError: Its file cannot be read.
            BundleRefusedError: ``metadata``: it was written by another tool.
        """
        raw = self._read(self.roles.fleet.signed.targets.get(path), path)
        return None if raw is None else parse_group(raw, path)

    def revocations(self) -> Revocations:
        """Return what is revoked.

        Raises:
            DeviceError: Its file cannot be read.
            BundleRefusedError: ``metadata``: it was written by another tool.
        """
        found = self.roles.targets.signed.targets.get(REVOKED_PATH)
        raw = self._read(found, REVOKED_PATH)
        return Revocations() if raw is None else parse_revocations(raw)

    def next_generation(self, path: str) -> int:
        """Return the generation that a desired state gets when it is published next."""
        known = self.state(path)
        if known:
            return known.generation + 1
        # A device's exception may have ended and begin again: no generation was ever
        # above the version of the role that signed it.
        again = path.startswith(DEVICES)
        return self.roles.fleet.signed.version + 1 if again else 1

    def apply(self, staged: Staged, told: Told) -> bool:
        """List what is staged; return whether that changed the targets role.

        Raises:
            DeviceError: A file cannot be written.
        """
        for path, target in staged.bundles.items():
            custom = {"custom": _spelled(target.fields)}
            self._list_bundle(
                TargetFile(target.length, {"sha256": target.sha256}, path, custom)
            )
            told(f"bundle {path}")
        for path, delta in staged.deltas.items():
            custom = {"custom": msgspec.to_builtins(delta.fields)}
            entry = TargetFile(delta.length, {"sha256": delta.sha256}, path, custom)
            self.roles.targets.signed.targets[path] = entry
            told(_describe(delta))
        self._unlist(staged.unlisted, told)
        for path, file in staged.states().items():
            self._set_state(path, file, told)
        if staged.revoked is not None:
            entry = self._place(REVOKED_PATH, render_revocations(staged.revoked))
            self.roles.targets.signed.targets[REVOKED_PATH] = entry
            told(
                f"revoked: {len(staged.revoked.bundles)} bundles, "
                f"{len(staged.revoked.operators)} operators"
            )
        if staged.needs_targets:
            self._drop_deltas(told)
        return staged.needs_targets

    def _drop_deltas(self, told: Told) -> None:
        """List no delta from or to a bundle that is not listed, or is revoked."""
        sound = {file.hashes["sha256"] for file in self.bundles().values()}
        sound -= set(self.revocations().bundles)
        for path in self.deltas():
            before, after = ends_of(path)
            if not {before, after} <= sound:
                del self.roles.targets.signed.targets[path]
                named = f"delta {before[:12]} to {after[:12]}"
                told(f"{named} is listed no longer, as one of its bundles")

    def _set_state(self, path: str, file: GroupFile | None, told: Told) -> None:
        """List a desired state, or end it."""
        states = self.roles.fleet.signed.targets
        name = path.replace(GROUPS, "group ").replace(DEVICES, "device ")
        if file is None:
            states.pop(path, None)
            told(f"{name}: no exception any more")
        else:
            states[path] = self._place(path, render_group(file))
            told(f"{name}, generation {file.generation}")

    def _list_bundle(self, file: TargetFile) -> None:
        """List a bundle, and forget that it was not."""
        signed = self.roles.targets.signed
        signed.targets[file.path] = file
        self._remember(
            {path: sha for path, sha in self._unlisted().items() if path != file.path}
        )

    def _unlist(self, paths: Iterable[str], told: Told) -> None:
        """List bundles no longer, and remember their digests."""
        for path in paths:
            found = self.roles.targets.signed.targets.pop(path, None)
            if found is not None:
                self._remember({**self._unlisted(), path: found.hashes["sha256"]})
                told(f"bundle {path} is listed no longer")

    def _unlisted(self) -> Mapping[str, str]:
        """Return path -> digest of bundles that were listed once."""
        fields = self.roles.targets.signed.unrecognized_fields
        found = fields.get(_UNLISTED_FIELD, {})
        return msgspec.convert(found, dict[str, str])

    def _remember(self, unlisted: Mapping[str, str]) -> None:
        """Keep path -> digest of bundles that were listed once."""
        fields = self.roles.targets.signed.unrecognized_fields
        fields.pop(_UNLISTED_FIELD, None)
        if unlisted:
            fields[_UNLISTED_FIELD] = dict(sorted(unlisted.items()))

    def _place(self, path: str, content: bytes) -> TargetFile:
        """Store a small target, and return its entry."""
        sha256 = place_target(self._targets, path, content)
        return TargetFile(len(content), {"sha256": sha256}, path)

    def _read(self, found: TargetFile | None, path: str) -> bytes | None:
        """Return the content of a small target, or None where it is not listed."""
        if found is None:
            return None
        place = stored_target(self._targets, path, found.hashes["sha256"])
        with owners_disk():
            return place.read_bytes()


def _spelled(fields: BundleFields) -> dict[str, object]:
    """Return signed fields as older agents read them, too: they know no ``sealed``."""
    said: dict[str, object] = msgspec.to_builtins(fields)
    if fields.sealed is None:
        del said["sealed"]
    return said


def _describe(delta: SignedDelta) -> str:
    """Return a delta in words: its path is 140 characters long."""
    said = delta.fields
    return f"delta {said.model} {said.from_version} to {said.version}"
