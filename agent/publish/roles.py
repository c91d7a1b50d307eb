"""A repository's signed files: read as one consistent set, signed, written in order.

The rules this module keeps:
 * What counts is what timestamp.json leads to: files that a crash left behind are
   neither read nor in the way.
 * Written in the order in which a board may see them: versioned files first, then a
   new root, timestamp.json last. Until then every board sees the old publication.
 * Lengths and hashes of metadata are always signed; python-tuf leaves them optional.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.publish.files import write_durably

FLEET = "fleet"
FLEET_PATHS = ["fleet/groups/*", "fleet/devices/*"]  # TUF matches part by part
ROLES = (Root.type, Targets.type, FLEET, Snapshot.type, Timestamp.type)
OFFLINE = (Root.type, Targets.type)
ONLINE = (FLEET, Snapshot.type, Timestamp.type)

# Offline roles live long enough for people, online ones short enough that a frozen
# repository is noticed, yet a weekend without a publication stops no update.
LIFETIMES_DAYS = {
    Root.type: 365,
    Targets.type: 180,
    FLEET: 7,
    Snapshot.type: 7,
    Timestamp.type: 7,
}

AnySigned = Root | Targets | Snapshot | Timestamp


@dataclass(slots=True)
class RoleSet:
    """One publication: the signed metadata of every role."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    fleet: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]

    @classmethod
    def blank(cls) -> "RoleSet":
        """Return the roles before anybody has a key."""
        targets = Targets(delegations=Delegations({}, {}))
        fleet = DelegatedRole(FLEET, [], 1, terminating=True, paths=FLEET_PATHS)
        if targets.delegations and targets.delegations.roles is not None:
            targets.delegations.roles[FLEET] = fleet
        roles = cls(
            root=Metadata(Root(consistent_snapshot=True)),
            targets=Metadata(targets),
            fleet=Metadata(Targets()),
            snapshot=Metadata(Snapshot(meta={})),
            timestamp=Metadata(Timestamp()),
        )
        for role in ROLES:
            roles.signed(role).version = 0  # the first publication makes it 1
        return roles

    def signed(self, role: str) -> "AnySigned":
        """Return the content of a role."""
        every: dict[str, AnySigned] = {
            Root.type: self.root.signed,
            Targets.type: self.targets.signed,
            FLEET: self.fleet.signed,
            Snapshot.type: self.snapshot.signed,
            Timestamp.type: self.timestamp.signed,
        }
        return every[role]

    def listed(self, role: str) -> list[str]:
        """Return the paths of the bundles or desired states that a role lists."""
        signed = self.signed(role)
        return list(signed.targets) if isinstance(signed, Targets) else []

    def delegator(self, role: str) -> Root | Targets:
        """Return who says which keys a role has."""
        return self.targets.signed if role == FLEET else self.root.signed

    def keys(self, role: str) -> tuple[list[str], int]:
        """Return a role's key ids and its threshold."""
        delegated = self.delegator(role).get_delegated_role(role)
        return list(delegated.keyids), delegated.threshold


class RoleFiles:
    """The directory ``REPO/metadata``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self) -> RoleSet:
        """Return the current publication.

        Raises:
            SettingsError: The directory is not a repository, or a damaged one.
        """
        try:
            timestamp = Metadata[Timestamp].from_bytes(self._read("timestamp.json"))
            version = timestamp.signed.snapshot_meta.version
            snapshot = Metadata[Snapshot].from_bytes(
                self._read(f"{version}.snapshot.json")
            )
            meta = snapshot.signed.meta
            return RoleSet(
                root=Metadata[Root].from_bytes(self._read(self._newest_root())),
                targets=self._load_targets(Targets.type, meta),
                fleet=self._load_targets(FLEET, meta),
                snapshot=snapshot,
                timestamp=timestamp,
            )
        except (OSError, KeyError, RepositoryError) as err:
            raise SettingsError(
                f"{self.directory} is not the metadata of a repository: {err}",
                reason=Reason.SETTINGS,
                todo="Make a repository with `tinyward repo init`.",
            ) from err

    def write(self, roles: RoleSet, *, with_root: bool) -> None:
        """Write a publication; it counts from the moment timestamp.json is replaced.

        Raises:
            DeviceError: A file cannot be written; the old publication still counts.
        """
        named: list[tuple[str, Metadata[Targets] | Metadata[Snapshot]]] = [
            (Targets.type, roles.targets),
            (FLEET, roles.fleet),
            (Snapshot.type, roles.snapshot),
        ]
        for role, metadata in named:
            self._write(f"{metadata.signed.version}.{role}.json", metadata.to_bytes())
        if with_root:
            root = roles.root
            self._write(f"{root.signed.version}.root.json", root.to_bytes())
        self._write("timestamp.json", roles.timestamp.to_bytes())

    def _load_targets(self, role: str, meta: dict[str, MetaFile]) -> Metadata[Targets]:
        """Load the version of a targets role that the snapshot names."""
        version = meta[f"{role}.json"].version
        return Metadata[Targets].from_bytes(self._read(f"{version}.{role}.json"))

    def _newest_root(self) -> str:
        """Return the name of the newest root; each one stays for boards behind it."""
        versions = [
            int(path.name.partition(".")[0])
            for path in self.directory.glob("*.root.json")
            if path.name.partition(".")[0].isdigit()
        ]
        return f"{max(versions, default=1)}.root.json"

    def _read(self, name: str) -> bytes:
        """Read one file."""
        return (self.directory / name).read_bytes()

    def _write(self, name: str, content: bytes) -> None:
        """Write one file, unless it is there already."""
        path = self.directory / name
        if not path.is_file() or path.read_bytes() != content:
            write_durably(path, content)


def sign(
    metadata: Metadata[Root]
    | Metadata[Targets]
    | Metadata[Snapshot]
    | Metadata[Timestamp],
    signers: Iterable[Signer],
) -> None:
    """Replace all signatures."""
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)


def renew(signed: AnySigned, role: str, now: datetime) -> None:
    """Give metadata its next version and a new expiry."""
    signed.version += 1
    signed.expires = now + timedelta(days=LIFETIMES_DAYS[role])


def meta_of(metadata: Metadata[Targets] | Metadata[Snapshot]) -> MetaFile:
    """Return version, length and hash of signed metadata."""
    return MetaFile.from_data(metadata.signed.version, metadata.to_bytes(), ["sha256"])


def utc(now: float) -> datetime:
    """Return Unix seconds as UTC, in whole seconds as TUF writes them."""
    return datetime.fromtimestamp(int(now), UTC)


def spell(moment: datetime) -> str:
    """Return a time as TUF spells it."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
