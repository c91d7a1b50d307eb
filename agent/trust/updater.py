"""python-tuf's updater, made durable, bounded, and told what time it is.

The rules this module keeps:
 * Verification is python-tuf's own, untouched. Overridden are only how files reach
   the disk (synced), how much is downloaded, and two moments where ``Gate`` may look:
   after the last root, and before metadata that was verified is kept.
 * The names overridden here are private to python-tuf 7.0, which is why its version is
   pinned; a test asserts that they still exist and are still called.
 * The first root always comes from the caller, never from the cache.
"""

from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, cast

from tuf.api.exceptions import ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from agent.core.floors import RoleKeys
from agent.trust.durable import write_durably
from agent.trust.fetcher import Fetcher, Seen

# The specification's limits. python-tuf lets a signed length replace its own limit, so
# stolen online keys could name 10 GB; here the limit of the role always counts.
LIMITS_BYTES = {Root.type: 512_000, Timestamp.type: 16_384, Snapshot.type: 2_000_000}
TARGETS_LIMIT_BYTES = 5_000_000
ROLES = (Root.type, Timestamp.type, Snapshot.type, Targets.type, "fleet")
METADATA_URL = "metadata/"
# The one file that changes under its name: whoever looks whether there is news, looks
# there, and everything else follows from it.
ANNOUNCEMENT_URL = "metadata/timestamp.json"
# How many roots are downloaded in one refresh; a board that slept through more of them
# catches up in the next ones.
MAX_NEW_ROOTS = 256


class Gate(Protocol):
    """What a board asks beyond the specification."""

    def settle(self, root: Root) -> datetime:
        """Judge the final root; return the time that expiry is judged by."""

    def admit(self, role: str, signed: Signed, keys: RoleKeys) -> None:
        """Judge verified metadata before it is kept."""


class DurableUpdater(Updater):
    """One refresh of one repository.

    Attributes:
        role: The role that was asked for last: whose fault an error is.
        received: The bytes that arrived for it.
        announced: The timestamp.json that was served.
        foretold: A timestamp.json that was read a moment ago, and the version of the
            root that was trusted then: under that root it need not be asked for again.
    """

    def __init__(
        self, metadata_dir: Path, fetcher: Fetcher, root: bytes, gate: Gate
    ) -> None:
        self.role: str = Root.type
        self.received = root
        self.announced = Seen()
        self.foretold: tuple[int, Seen] | None = None
        self._gate = gate
        self._files = fetcher
        self._parents: dict[str, str] = {}
        super().__init__(
            str(metadata_dir),
            METADATA_URL,
            # Each Fetcher is one; python-tuf's own type says less than is needed here.
            fetcher=cast("FetcherInterface", fetcher),
            config=UpdaterConfig(),
            bootstrap=root,
        )
        # python-tuf counts the roots in its cache, too: after 256 rotations in its
        # life a board could never follow another one.
        known = _count_known_roots(metadata_dir, self.root.version)
        self.config.max_root_rotations = known + MAX_NEW_ROOTS

    @property
    def root(self) -> Root:
        """The newest root that is trusted."""
        return self._trusted_set.root

    def signed(self, role: str) -> Signed | None:
        """Return what is trusted of a role, or None."""
        return self._trusted_set.get(role)

    @property
    def targets(self) -> Targets:
        """The trusted top-level targets; only after a refresh."""
        return self._trusted_set.targets

    @property
    def timestamp(self) -> Timestamp:
        """The trusted timestamp; only after a refresh."""
        return self._trusted_set.timestamp

    def expiries(self) -> dict[str, datetime]:
        """Return when each role that is in use expires."""
        # Asked by name: python-tuf's set is a mapping that iterates over its values.
        used = {role: self.signed(role) for role in ROLES}
        return {role: signed.expires for role, signed in used.items() if signed}

    def pass_time(self, now: datetime) -> None:
        """Judge what is loaded from now on by a later time."""
        self._trusted_set.reference_time = now

    def delegator(self, role: str) -> Root | Targets:
        """Return whoever says which keys a role has: who delegated to it last."""
        if role in self.root.roles:
            return self.root
        parent = self._parents.get(role, Targets.type)
        return cast("Targets", self._trusted_set[parent])

    def keys(self, role: str) -> RoleKeys:
        """Return the keys that a role has now."""
        delegated = self.delegator(role).get_delegated_role(role)
        return RoleKeys(tuple(delegated.keyids), delegated.threshold)

    def signers(self, role: str) -> tuple[str, ...]:
        """Return the ids of the keys that validly signed a role's cached metadata."""
        return self.valid_signers(role, self._load_local_metadata(role))

    def valid_signers(self, role: str, content: bytes) -> tuple[str, ...]:
        """Return the ids of the role's keys that validly signed ``content``.

        Raises:
            DeserializationError: It is not metadata.
            SerializationError: It has values that cannot be signed.
        """
        metadata = Metadata[Any].from_bytes(content)
        payload, signatures = metadata.signed_bytes, metadata.signatures
        result = self.delegator(role).get_verification_result(role, payload, signatures)
        return tuple(result.signed)

    def _download_metadata(
        self, rolename: str, length: int, version: int | None = None
    ) -> bytes:
        """Download up to the limit of the role; the signed length is checked after."""
        del length
        self.role, self.received = rolename, b""
        limit = LIMITS_BYTES.get(rolename, TARGETS_LIMIT_BYTES)
        if rolename == Timestamp.type:
            # Read here for the sake of its ETag, which the next look will need.
            self.announced = self._told_before() or self._files.look(
                ANNOUNCEMENT_URL, Seen(), limit
            )
            self.received = self.announced.content
        else:
            self.received = super()._download_metadata(rolename, limit, version)
        return self.received

    def _told_before(self) -> Seen | None:
        """Return the timestamp.json that was read before this refresh began, if any.

        It is verified like any other. Behind a newer root it is not used: the owner may
        have exchanged the timestamp's keys between the two requests.
        """
        known, self.foretold = self.foretold, None
        return known[1] if known and known[0] == self.root.version else None

    def _load_root(self) -> None:
        """Load the chain of roots, then settle what time it is."""
        super()._load_root()
        self._trusted_set.reference_time = self._gate.settle(self.root)
        self._check_expiry(self.root)

    def _load_timestamp(self) -> None:
        """Load the timestamp; an unchanged one expires here, not with the snapshot."""
        super()._load_timestamp()
        self._check_expiry(self.timestamp)

    def _load_targets(self, role: str, parent_role: str) -> Targets:
        """Load a role; two may delegate to one, each with other keys.

        Raises:
            RepositoryError: Its name is signed, and no text: python-tuf accepts that.
        """
        if not isinstance(role, str):
            raise RepositoryError(f"{parent_role} delegates to {role!r}, no name")
        self._parents[role] = parent_role
        return super()._load_targets(role, parent_role)

    def _check_expiry(self, signed: Signed) -> None:
        """Expiry is judged where it happened, so that an error names its file."""
        if signed.is_expired(self._trusted_set.reference_time):
            raise ExpiredMetadataError(
                f"it expired at {signed.expires:%Y-%m-%dT%H:%M:%SZ}"
            )

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        """Keep verified metadata if the gate admits it."""
        signed = self._trusted_set[rolename]
        self._gate.admit(rolename, signed, self.keys(rolename))
        super()._persist_metadata(rolename, data)

    def _persist_file(self, filename: str, data: bytes) -> None:
        """Write a file so that it survives a power cut; unchanged ones stay."""
        path = Path(filename)
        if not path.is_file() or path.read_bytes() != data:
            write_durably(path, data)

    def _update_root_symlink(self) -> None:
        """Do nothing: the first root comes from the caller, and links get lost."""


def _count_known_roots(metadata_dir: Path, first: int) -> int:
    """Return how many roots behind the first one are in the cache."""
    known = 0
    while (metadata_dir / "root_history" / f"{first + known + 1}.root.json").is_file():
        known += 1
    return known
