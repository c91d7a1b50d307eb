"""Everything about a repository that needs no key: staging, and reading.

The rules this module keeps:
 * What boards would refuse is refused here; nothing is signed and no board sees it.
 * A bundle that was published keeps its bytes for ever: other bytes need a version.
 * Nothing here opens a bundle: who calls ``add`` says what it holds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from agent.core.reasons import Reason
from agent.core.sealing import Sealed
from agent.core.targets import (
    GroupFile,
    Revocations,
    SignedTarget,
    bundle_path,
    device_path,
    group_path,
)
from agent.errors import BundleRefusedError, SettingsError
from agent.publish.contents import DEVICES, GROUPS, Contents
from agent.publish.files import locked, owners_disk, place_target
from agent.publish.planned import check_device, planned_bundles, planned_states
from agent.publish.revoking import next_revocations
from agent.publish.roles import RoleFiles
from agent.publish.staging import (
    Assignment,
    Staged,
    describe_bundle,
    load_staged,
    next_group,
    require,
    save_staged,
)


class KeylessRepository:
    """One repository, as far as it goes without keys.

    Attributes:
        path: Its directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = RoleFiles(path / "metadata")
        self._targets = path / "targets"

    def first_root(self) -> bytes:
        """Return the root.json that boards are provisioned with."""
        return (self._files.directory / "1.root.json").read_bytes()

    def add(
        self,
        content: bytes | Path,
        *,
        model: str,
        version: int,
        hardware: Sequence[str] = (),
        min_agent: str = "",
    ) -> SignedTarget:
        """Stage a bundle, whose manifest says it is this version of this model.

        Raises:
            SettingsError: A field is not allowed.
            BundleRefusedError: ``mismatch``: this version has other bytes already;
                ``revoked``: these bytes are.
            DeviceError: It cannot be stored.
        """
        if isinstance(content, Path):
            with owners_disk():
                content = content.read_bytes()
        # Checked before anything is stored: the path is made of these fields.
        target = describe_bundle(
            content,
            model=model,
            version=version,
            hardware=list(hardware),
            min_agent=min_agent,
        )
        self._stage(target, content)
        return target

    def add_sealed(
        self,
        content: bytes,
        sealed: Sealed,
        *,
        hardware: Sequence[str] = (),
        min_agent: str = "",
    ) -> SignedTarget:
        """Stage a sealed bundle: its ciphertext, and what its card says of it.

        Raises:
            SettingsError, BundleRefusedError, DeviceError: As ``add``.
        """
        target = describe_bundle(
            content,
            model=sealed.model,
            version=sealed.version,
            plain_sha256=sealed.plain_sha256,
            plain_bytes=sealed.plain_bytes,
            sealed=msgspec.to_builtins(sealed.sealing),
            hardware=list(hardware),
            min_agent=min_agent,
        )
        self._stage(target, content)
        return target

    def lists(self, model: str, version: int, sha256: str) -> bool:
        """Return whether a version is published, or staged, with these bytes."""
        path = bundle_path(model, version)
        contents, staged = self._contents(), load_staged(self.path)
        return planned_bundles(contents, staged).get(path) == sha256

    def _stage(self, target: SignedTarget, content: bytes) -> None:
        """Store a bundle's content, and stage that it is listed."""
        with locked(self.path):
            contents, staged = self._contents(), load_staged(self.path)
            published = contents.digests().get(target.path)
            if published and published != target.sha256:
                raise BundleRefusedError(
                    f"{target.path} is published with other bytes",
                    reason=Reason.MISMATCH,
                    todo="Pack it again under a higher version.",
                )
            _check_not_revoked(target, staged.revoked or contents.revocations())
            place_target(self._targets, target.path, content)
            bundles = {**staged.bundles, target.path: target}
            kept = tuple(path for path in staged.unlisted if path != target.path)
            save_staged(self.path, replace(staged, bundles=bundles, unlisted=kept))

    def assign(
        self,
        group: str,
        pipelines: Mapping[str, tuple[str, int]],
        *,
        percent: float | None = None,
        salt: str | None = None,
        assignment: Assignment | None = None,
    ) -> GroupFile:
        """Stage a group's desired state; ``percent`` and ``salt`` are shorthands.

        See ``desire``.
        """
        asked = assignment or Assignment()
        if percent is not None or salt is not None:
            asked = replace(asked, percent=percent, salt=salt)
        return self.desire(group_path(group), pipelines, asked)

    def assign_device(
        self,
        board: str,
        pipelines: Mapping[str, tuple[str, int]],
        assignment: Assignment | None = None,
    ) -> GroupFile:
        """Stage the desired state of one board; see ``desire``."""
        return self.desire(device_path(board), pipelines, assignment or Assignment())

    def desire(
        self,
        path: str,
        pipelines: Mapping[str, tuple[str, int]],
        assignment: Assignment,
    ) -> GroupFile:
        """Stage a desired state: pipeline -> (model, version).

        Pipelines that are not named stay as they are.

        Args:
            path: ``group_path`` or ``device_path`` of whom it is for.
            pipelines: What changes; may be empty.
            assignment: How it is rolled out.

        Raises:
            SettingsError: A name or a number is not allowed, or there are too many
                devices.
            BundleRefusedError: ``missing_target``: a version was never added;
                ``revoked``: it may not run.
        """
        with locked(self.path):
            contents, staged = self._contents(), load_staged(self.path)
            self._check_assignable(contents, staged, pipelines)
            if path.startswith(DEVICES):
                check_device(path, planned_states(contents, staged, DEVICES))
            known = planned_states(contents, staged, path.rpartition("/")[0] + "/")
            before = known.get(path.rpartition("/")[2])
            after = next_group(before, pipelines, assignment)
            after = replace(after, generation=contents.next_generation(path))
            save_staged(self.path, staged.with_state(path, after))
        return after

    def release_device(self, board: str) -> None:
        """Stage the end of a board's exception: it follows its groups again.

        Raises:
            SettingsError: There is no such exception.
        """
        with locked(self.path):
            contents, staged = self._contents(), load_staged(self.path)
            if board not in planned_states(contents, staged, DEVICES):
                raise _not_here(f"device {board} has no desired state of its own")
            devices: dict[str, GroupFile | None] = {**staged.devices, board: None}
            if contents.state(device_path(board)) is None:
                del devices[board]  # it was never published: nothing to end
            save_staged(self.path, replace(staged, devices=devices))

    def remove(self, model: str, version: int) -> str:
        """Stage that a bundle is listed no longer; return its path.

        Its bytes stay on the disk, and its version is never given to others.

        Raises:
            BundleRefusedError: ``missing_target``: it is not listed.
            SettingsError: A group or a device still names it.
        """
        path = bundle_path(model, version)
        with locked(self.path):
            contents, staged = self._contents(), load_staged(self.path)
            if path not in planned_bundles(contents, staged):
                raise _never_added(model, version)
            users = [
                f"{word} {name}"
                for word, folder in (("group", GROUPS), ("device", DEVICES))
                for name, file in planned_states(contents, staged, folder).items()
                if any(
                    bundle_path(wanted.model, wanted.version) == path
                    for wanted in file.pipelines.values()
                )
            ]
            if users:
                raise SettingsError(
                    f"{model} {version} is still wanted by {', '.join(users)}",
                    reason=Reason.SETTINGS,
                    todo="Assign another version to them first.",
                )
            staged = staged.without_deltas({planned_bundles(contents, staged)[path]})
            bundles = {name: b for name, b in staged.bundles.items() if name != path}
            unlisted = set(staged.unlisted)
            if path in contents.bundles():
                unlisted.add(path)
            save_staged(
                self.path,
                replace(staged, bundles=bundles, unlisted=tuple(sorted(unlisted))),
            )
        return path

    def revoke(
        self,
        bundles: Sequence[str] = (),
        operators: Sequence[str] = (),
        *,
        undo: bool = False,
    ) -> Revocations:
        """Stage revocations, or take them back; return everything that is revoked.

        Args:
            bundles: SHA-256 of bundles; ``digest`` tells those of listed ones.
            operators: Serial numbers of client certificates, lower case hex.
            undo: Take these back.

        Raises:
            SettingsError: One is not spelled as boards read it, was never revoked, or
                there are too many.
        """
        with locked(self.path):
            contents, staged = self._contents(), load_staged(self.path)
            published = contents.revocations()
            known = published if staged.revoked is None else staged.revoked
            after = next_revocations(known, bundles, operators, undo=undo)
            require(
                msgspec.to_builtins(after),
                Revocations,
                "revoke a SHA-256 of 64 or a serial of at most 40 lower case hex "
                "digits",
            )
            changed = None if after == published else after
            staged = staged.without_deltas(after.bundles)
            save_staged(self.path, replace(staged, revoked=changed))
        return after

    def digest(self, model: str, version: int) -> str:
        """Return the SHA-256 of a bundle that is, was or will be listed.

        Raises:
            BundleRefusedError: ``missing_target``.
        """
        path = bundle_path(model, version)
        staged = load_staged(self.path).bundles.get(path)
        found = staged.sha256 if staged else self._contents().digests().get(path)
        if found is None:
            raise _never_added(model, version)
        return found

    def models(self, path: str) -> dict[str, str]:
        """Return pipeline -> model as a desired state says, staged changes included."""
        folder, slash, name = path.rpartition("/")
        states = planned_states(
            self._contents(), load_staged(self.path), folder + slash
        )
        pipelines = states[name].pipelines if name in states else {}
        return {pipeline: wanted.model for pipeline, wanted in pipelines.items()}

    def _contents(self) -> Contents:
        """Return what is published."""
        return Contents(self._files.load(), self._targets)

    def _check_assignable(
        self,
        contents: Contents,
        staged: Staged,
        pipelines: Mapping[str, tuple[str, int]],
    ) -> None:
        """Refuse what no board could follow."""
        known = planned_bundles(contents, staged)
        revoked = set((staged.revoked or contents.revocations()).bundles)
        for model, version in pipelines.values():
            path = bundle_path(model, version)
            if path not in known:
                raise _never_added(model, version)
            if known[path] in revoked:
                raise BundleRefusedError(
                    f"{model} {version} is revoked", reason=Reason.REVOKED
                )


def _check_not_revoked(target: SignedTarget, revoked: Revocations) -> None:
    """Refuse to list bytes that may run nowhere."""
    if target.sha256 in revoked.bundles:
        raise BundleRefusedError(
            f"{target.path}: these bytes are revoked", reason=Reason.REVOKED
        )


def _never_added(model: str, version: int) -> BundleRefusedError:
    """Return the error for a bundle that is not there."""
    return BundleRefusedError(
        f"{model} {version} was never added",
        reason=Reason.MISSING_TARGET,
        todo="Run `tinyward repo add` with its bundle first.",
    )


def _not_here(what: str) -> SettingsError:
    """Return the error for a name that the repository does not have."""
    return SettingsError(
        what,
        reason=Reason.SETTINGS,
        todo="See `tinyward repo status` for what there is.",
    )
