"""A TUF repository as plain files: add and assign stage, publish signs.

The rules this module keeps:
 * ``add`` and ``assign`` need no key; ``publish`` needs the keys of the roles that
   changed or are soon to expire, and always those of fleet, snapshot and timestamp.
 * A crash at any moment leaves the old publication or the new one; running the same
   command again completes it.
 * A bundle that was published keeps its bytes for ever: other bytes need a version.
 * Nothing here opens a bundle: who calls ``add`` says what it holds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace
from securesystemslib.signer import Signer
from tuf.api.metadata import Root, TargetFile, Targets

from agent.core.reasons import Reason
from agent.core.targets import (
    GroupFile,
    SignedTarget,
    bundle_path,
    group_path,
    parse_group,
    render_group,
)
from agent.errors import BundleRefusedError, SettingsError
from agent.publish.files import locked, owners_disk, place_target, stored_target
from agent.publish.keys import KeyRing
from agent.publish.release import (
    KeyPlan,
    Told,
    give_keys,
    renewals,
    seal,
    seal_root,
    silent,
    take_keys,
)
from agent.publish.roles import FLEET, ONLINE, ROLES, RoleFiles, RoleSet, utc
from agent.publish.staging import (
    Assignment,
    Staged,
    describe_bundle,
    load_staged,
    next_group,
    save_staged,
)
from agent.publish.status import Status, listed_bundles, role_statuses

__all__ = [
    "Assignment",
    "KeyPlan",
    "Repository",
    "Status",
    "default_keys",
    "init_repository",
]

Holder = tuple[Path, bytes]  # directory and passphrase of somebody's keys


def default_keys(repository: Path) -> Path:
    """Return where keys live unless told otherwise: beside the repository."""
    return repository.with_name(f"{repository.name}-keys")


def init_repository(
    path: Path,
    keys_dir: Path | None = None,
    passphrase: bytes = b"",
    *,
    now: float,
    plan: KeyPlan | None = None,
    holders: Sequence[Holder] = (),
) -> "Repository":
    """Make a repository and its keys, and publish it empty.

    Boards are given ``metadata/1.root.json``. The keys of a role that has several are
    shared out among ``keys_dir`` and further ``holders``.

    Raises:
        SettingsError: It exists, the key directory is in use, or the plan is
            impossible.
        DeviceError: A file cannot be written.
    """
    plan = plan or KeyPlan()
    if (path / "metadata").exists():
        raise SettingsError(
            f"{path} is a repository already",
            reason=Reason.SETTINGS,
            todo="Name another directory, or go on with `tinyward repo add`.",
        )
    for role in ROLES:
        count, threshold = plan.of(role)
        if not 1 <= threshold <= count:
            raise SettingsError(
                f"{role}: {threshold} of {count} keys cannot sign",
                reason=Reason.SETTINGS,
                todo="Ask for at least one key, and no more signatures than keys.",
            )
    lent = [KeyRing.create(*holder) for holder in holders]
    ring = KeyRing.create(keys_dir or default_keys(path), passphrase, lent)
    roles = RoleSet.blank()
    for role in ROLES:
        give_keys(roles, ring, role, plan.of(role))
    files, moment = RoleFiles(path / "metadata"), utc(now)
    seal_root(roles, ring, moment, (), silent)
    seal(roles, ring, moment, {Targets.type}, silent)
    (path / "targets").mkdir(parents=True, exist_ok=True)
    files.write(roles, with_root=True)
    return Repository(path, ring)


class Repository:
    """One repository and the keys that are at hand for it."""

    def __init__(self, path: Path, ring: KeyRing) -> None:
        self.path = path
        self._ring = ring
        self._files = RoleFiles(path / "metadata")
        self._targets = path / "targets"

    @classmethod
    def open(
        cls,
        path: Path,
        keys_dir: Path | None = None,
        passphrase: bytes = b"",
        holders: Sequence[Holder] = (),
    ) -> "Repository":
        """Open a repository; keys are opened when they first sign.

        ``holders`` lend further keys: (directory, passphrase) of each.

        Raises:
            SettingsError: It is not one.
        """
        lent = [KeyRing(*holder) for holder in holders]
        ring = KeyRing(keys_dir or default_keys(path), passphrase, lent)
        repository = cls(path, ring)
        repository._files.load()
        return repository

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
            BundleRefusedError: ``mismatch``: this version has other bytes already.
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
        with locked(self.path):
            staged = load_staged(self.path)
            published = self._files.load().targets.signed.targets.get(target.path)
            if published and published.hashes["sha256"] != target.sha256:
                raise BundleRefusedError(
                    f"{target.path} is published with other bytes",
                    reason=Reason.MISMATCH,
                    todo="Pack it again under a higher version.",
                )
            place_target(self._targets, target.path, content)
            bundles = {**staged.bundles, target.path: target}
            save_staged(self.path, replace(staged, bundles=bundles))
        return target

    def assign(
        self,
        group: str,
        pipelines: Mapping[str, tuple[str, int]],
        *,
        percent: float | None = None,
        salt: str | None = None,
        assignment: Assignment | None = None,
    ) -> GroupFile:
        """Stage a group's desired state: pipeline -> (model, version).

        Pipelines that are not named stay as they are. ``percent`` and ``salt`` are
        shorthands for those of ``assignment``.

        Raises:
            SettingsError: A name or a number is not allowed.
            BundleRefusedError: ``missing_target``: a version was never added.
        """
        asked = assignment or Assignment()
        if percent is not None or salt is not None:
            asked = replace(asked, percent=percent, salt=salt)
        with locked(self.path):
            staged, roles = load_staged(self.path), self._files.load()
            known = set(roles.targets.signed.targets) | set(staged.bundles)
            for model, version in pipelines.values():
                if bundle_path(model, version) not in known:
                    raise BundleRefusedError(
                        f"{model} {version} was never added",
                        reason=Reason.MISSING_TARGET,
                        todo="Run `tinyward repo add` with its bundle first.",
                    )
            published = self._group(roles, group_path(group))
            before = staged.groups.get(group, published)
            after = next_group(before, pipelines, asked)
            generation = published.generation + 1 if published else 1
            after = replace(after, generation=generation)
            groups = {**staged.groups, group: after}
            save_staged(self.path, replace(staged, groups=groups))
        return after

    def models(self, group: str) -> dict[str, str]:
        """Return pipeline -> model as a group says now, staged changes included."""
        file = load_staged(self.path).groups.get(group)
        file = file or self._group(self._files.load(), group_path(group))
        pipelines = file.pipelines if file else {}
        return {name: wanted.model for name, wanted in pipelines.items()}

    def publish(self, now: float, told: Told = silent) -> None:
        """Sign what is staged; with nothing staged, renew what would expire.

        Raises:
            SettingsError: A key that has to sign is not here, or does not open.
            DeviceError: A file cannot be written, or another command runs.
        """
        with locked(self.path):
            roles, staged = self._files.load(), load_staged(self.path)
            moment = utc(now)
            for path, target in staged.bundles.items():
                custom = {"custom": msgspec.to_builtins(target.fields)}
                hashes = {"sha256": target.sha256}
                entry = TargetFile(target.length, hashes, path, custom)
                roles.targets.signed.targets[path] = entry
                told(f"bundle {path}")
            for group, file in staged.groups.items():
                path = group_path(group)
                content = render_group(file)
                sha256 = place_target(self._targets, path, content)
                entry = TargetFile(len(content), {"sha256": sha256}, path)
                roles.fleet.signed.targets[path] = entry
                told(f"group {group}, generation {file.generation}")
            offline = renewals(roles, self._ring, moment, told)
            if staged.bundles:
                offline.add(Targets.type)
            if Root.type in offline:
                seal_root(roles, self._ring, moment, (), told)
            seal(roles, self._ring, moment, offline, told)
            self._files.write(roles, with_root=Root.type in offline)
            save_staged(self.path, Staged())

    def rotate(self, role: str, now: float, told: Told = silent) -> None:
        """Replace a role's keys by new ones, and publish; nothing staged goes out.

        Boards that saw a version or a time signed by the old keys forget it. What the
        role lists is listed still, signed by the new keys.

        Raises:
            SettingsError: There is no such role, or a key that has to sign is not
                here.
            DeviceError: A file cannot be written, or another command runs.
        """
        if role not in ROLES:
            raise SettingsError(
                f"no role is called {role!r}",
                reason=Reason.SETTINGS,
                todo=f"Name one of {', '.join(ROLES)}.",
            )
        with locked(self.path):
            roles, moment = self._files.load(), utc(now)
            in_root = role != FLEET
            offline = {Targets.type} if role in {FLEET, Targets.type} else set[str]()
            # Opened first: no new key is made where the old ones are not at hand.
            before = self._signers(roles, Root.type) if in_root else []
            for other in {*ONLINE, *offline} - {role}:
                self._signers(roles, other)
            keyids, threshold = roles.keys(role)
            take_keys(roles, role)
            give_keys(roles, self._ring, role, (len(keyids), threshold))
            told(f"{role}: {len(keyids)} new {'key' if len(keyids) == 1 else 'keys'}")
            for path in roles.listed(role):
                told(f"{role}: signs {path} again")
            if in_root:
                seal_root(roles, self._ring, moment, before, told)
            seal(roles, self._ring, moment, offline, told)
            self._files.write(roles, with_root=in_root)

    def status(self) -> Status:
        """Return what the repository holds.

        Raises:
            SettingsError: It is damaged.
        """
        roles = self._files.load()
        groups = {
            path.removeprefix(group_path("")): file
            for path in roles.fleet.signed.targets
            if (file := self._group(roles, path)) is not None
        }
        return Status(
            roles=role_statuses(roles, self._ring),
            bundles=listed_bundles(roles),
            groups=groups,
            staged=load_staged(self.path),
        )

    def _signers(self, roles: RoleSet, role: str) -> list[Signer]:
        """Return the signers of a role as it is now."""
        return list(self._ring.signers(role, *roles.keys(role)))

    def _group(self, roles: RoleSet, path: str) -> GroupFile | None:
        """Return a published desired state, or None."""
        found = roles.fleet.signed.targets.get(path)
        if found is None:
            return None
        place = stored_target(self._targets, path, found.hashes["sha256"])
        with owners_disk():
            return parse_group(place.read_bytes(), path)
