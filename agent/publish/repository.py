"""A TUF repository as plain files: what was staged without a key is signed here.

The rules this module keeps:
 * ``publish`` needs the keys of the roles that changed or are soon to expire, and
   always those of fleet, snapshot and timestamp; ``renew_online`` only these three.
 * A crash at any moment leaves the old publication or the new one; running the same
   command again completes it.
"""

from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Root, Targets

from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.publish.contents import DEVICES, GROUPS, Contents
from agent.publish.envelopes import count_envelopes, load_withdrawn
from agent.publish.files import locked
from agent.publish.keyless import KeylessRepository
from agent.publish.keys import KeyRing
from agent.publish.release import (
    KeyPlan,
    Told,
    give_keys,
    renewals,
    seal,
    seal_online,
    seal_root,
    silent,
    take_keys,
)
from agent.publish.roles import FLEET, ONLINE, ROLES, RoleFiles, RoleSet, utc
from agent.publish.staging import Assignment, Staged, load_staged, save_staged
from agent.publish.status import Status, listed_bundles, listed_deltas, role_statuses
from agent.publish.upkeep import Deadlines, deadlines, due_online

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


class Repository(KeylessRepository):
    """One repository and the keys that are at hand for it."""

    def __init__(self, path: Path, ring: KeyRing) -> None:
        super().__init__(path)
        self._ring = ring

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

    def publish(
        self, now: float, told: Told = silent, only: Staged | None = None
    ) -> None:
        """Sign what is staged; with nothing staged, renew what would expire.

        Args:
            now: Unix seconds.
            told: Told who signed what.
            only: Sign this, and leave what is staged as it is.

        Raises:
            SettingsError: A key that has to sign is not here, or does not open.
            DeviceError: A file cannot be written, or another command runs.
        """
        with locked(self.path):
            staged = load_staged(self.path) if only is None else only
            roles, offline = self._sealed(staged, now, told)
            self._files.write(roles, with_root=Root.type in offline)
            if only is None:
                save_staged(self.path, Staged())

    def rehearse(self, now: float) -> None:
        """Sign as ``publish`` would with nothing staged, and write nothing.

        Raises:
            SettingsError: A key that has to sign is not here, or does not open.
            DeviceError: Another command runs.
        """
        with locked(self.path):
            self._sealed(Staged(), now, silent)

    def renew_online(self, now: float, told: Told = silent) -> Deadlines:
        """Sign timestamp again, and fleet and snapshot when they are due.

        Needs the keys of these three alone, and publishes nothing that is staged.

        Returns:
            When each role expires after that.

        Raises:
            SettingsError: A key that has to sign is not here, or does not open.
            DeviceError: A file cannot be written, or another command runs.
        """
        with locked(self.path):
            roles, moment = self._files.load(), utc(now)
            seal_online(roles, self._ring, moment, due_online(roles, moment), told)
            self._files.write(roles, with_root=False)
            return deadlines(roles)

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
        contents = Contents(roles, self._targets)
        bundles = listed_bundles(contents.bundles().values())
        return Status(
            roles=role_statuses(roles, self._ring),
            bundles=bundles,
            deltas=listed_deltas(contents.deltas().values()),
            groups=contents.states(GROUPS),
            devices=contents.states(DEVICES),
            revoked=contents.revocations(),
            staged=load_staged(self.path),
            envelopes=count_envelopes(self.path, bundles),
            withdrawn=tuple(sorted(load_withdrawn(self.path))),
        )

    def _sealed(
        self, staged: Staged, now: float, told: Told
    ) -> tuple[RoleSet, set[str]]:
        """Return the next publication, signed, and which offline roles signed it."""
        roles, moment = self._files.load(), utc(now)
        offline = renewals(roles, self._ring, moment, told)
        if Contents(roles, self._targets).apply(staged, told):
            offline.add(Targets.type)
        if Root.type in offline:
            seal_root(roles, self._ring, moment, (), told)
        seal(roles, self._ring, moment, offline, told)
        return roles, offline

    def _signers(self, roles: RoleSet, role: str) -> list[Signer]:
        """Return the signers of a role as it is now."""
        return list(self._ring.signers(role, *roles.keys(role)))
