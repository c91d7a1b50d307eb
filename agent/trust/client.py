"""A repository that is believed: refresh it, ask it, fetch what it signed.

The rules this module keeps:
 * Order: root chain, clock, timestamp, snapshot, targets, fleet; the first thing that
   does not hold ends the refresh, and what was verified before stays in use.
 * Only parsed values that a verified signature covers are returned.
 * Content is checked against signed length and digest while it streams by, and is
   nobody's until ``fetch`` has returned.
 * Everything blocks: the daemon calls it in a thread, one call at a time.

``tuf`` is imported by the first refresh, not by this module.
"""

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from agent.core.reasons import Reason
from agent.core.targets import (
    MAX_GROUP_BYTES,
    GroupFile,
    SignedTarget,
    bundle_path,
    group_path,
    parse_group,
    parse_target,
)
from agent.errors import BundleRefusedError, SettingsError
from agent.trust.durable import own_disk, sync_directory
from agent.trust.gate import Explain, FactoryGate, FloorGate, silent
from agent.trust.notes import Notes, Remembered

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

    from agent.trust.updater import DurableUpdater

__all__ = ["Notes", "TrustedRepository", "repository_directory"]

# Any path below fleet/groups makes the updater load the role; it need not exist.
_FLEET_PROBE = group_path("-")


class TrustedRepository:
    """One repository, trusted from one provisioned root onwards."""

    def __init__(  # noqa: PLR0913 - the seventh is for `tinyward verify` alone
        self,
        *,
        metadata_dir: Path,
        repository: str,
        root: bytes,
        notes: Notes,
        build_time: float,
        factory: bool = False,
        explain: Explain = silent,
    ) -> None:
        """Remember where things are; nothing of the repository is read yet.

        Args:
            metadata_dir: Cache of verified metadata; made if absent.
            repository: Directory (path or file URL) with ``metadata`` and ``targets``.
            root: The provisioned root.json, always the beginning of trust.
            notes: Where floors are kept, outside the cache.
            build_time: Unix seconds before which this package cannot run.
            factory: The repository is a slice shipped with the system: signatures
                count, expiry and floors do not.
            explain: Told about each step that passes.

        Raises:
            SettingsError: ``repository`` is not a directory's name.
            DeviceError: ``state``: the floors cannot be read.
        """
        self._metadata_dir = metadata_dir
        self._directory = repository_directory(repository)
        self._root = root
        self._explain = explain
        self._gate: FloorGate | FactoryGate = (
            FactoryGate()
            if factory
            else FloorGate(Remembered.of(notes, root), build_time, explain)
        )
        self._updater: DurableUpdater | None = None

    @property
    def clock_floor(self) -> float:
        """The earliest time it can be, Unix seconds; raised by each refresh."""
        return float(self._gate.clock_floor_s)

    def refresh(self, now: float) -> None:
        """Verify the newest metadata and raise the floors to it.

        Args:
            now: The system clock, Unix seconds; one before the floor is corrected.

        Raises:
            BundleRefusedError: ``signature``, ``threshold``, ``expired``, ``replayed``,
                ``mixed``, ``metadata``, ``length``, ``digest``, ``too_large`` or
                ``unreachable``. What was verified before is still in use.
            DeviceError: The cache cannot be written.
        """
        from agent.trust.refusals import reasons_for

        self._gate.now_s = now
        with own_disk():
            updater = self._start()
            with reasons_for(updater):
                updater.refresh()
                updater.get_targetinfo(_FLEET_PROBE)
                if updater.signed("fleet") is None:
                    self._explain("fleet", "no fleet role is delegated")
                self._gate.learn(updater)
        self._updater = updater

    def desired(self, groups: Sequence[str]) -> list[tuple[str, GroupFile]]:
        """Return path and content of those group files that exist, in this order.

        Raises:
            BundleRefusedError: ``missing_target``, ``length``, ``digest``,
                ``metadata``, ``replayed`` (its generation) or ``unreachable``.
        """
        files: list[tuple[str, GroupFile]] = []
        for group in groups:
            path = group_path(group)
            found = self._lookup(path)
            if found is None:
                continue
            _check_size(path, found.length, MAX_GROUP_BYTES)
            chunks = self._content(path, found.length, _sha256(found))
            file = parse_group(b"".join(chunks), path)
            self._check_generation(path, file.generation)
            files.append((path, file))
        return files

    def find(self, model: str, version: int) -> SignedTarget:
        """Return the signed bundle of a model's version.

        Raises:
            BundleRefusedError: ``missing_target``, or ``metadata`` where its signed
                fields make no sense.
        """
        path = bundle_path(model, version)
        found = self._lookup(path)
        if found is None:
            raise BundleRefusedError(
                f"{path} is not among the signed targets", reason=Reason.MISSING_TARGET
            )
        return _parse(found)

    def find_digest(self, sha256: str) -> SignedTarget | None:
        """Return the signed bundle that has this digest, or None.

        Raises:
            BundleRefusedError: ``metadata``.
        """
        for found in self._verified().targets.targets.values():
            if found.hashes.get("sha256") == sha256:
                return _parse(found)
        return None

    def fetch(
        self, target: SignedTarget, write: Callable[[memoryview], None], max_bytes: int
    ) -> None:
        """Stream a target's content to ``write``; it is verified when this returns.

        Whatever ``write`` raises passes through.

        Raises:
            BundleRefusedError: ``too_large`` (before anything is read),
                ``missing_target``, ``length``, ``digest`` or ``unreachable``.
        """
        _check_size(target.path, target.length, max_bytes)
        content = self._content(target.path, target.length, target.sha256)
        with closing(content) as chunks:
            for chunk in chunks:
                write(memoryview(chunk))

    def _start(self) -> "DurableUpdater":
        """Return a new updater, which begins with the provisioned root."""
        from agent.trust.fetcher import DirectoryFetcher
        from agent.trust.refusals import reasons_for_root
        from agent.trust.updater import DurableUpdater

        if not self._metadata_dir.is_dir():
            self._metadata_dir.mkdir(mode=0o700, parents=True)
            sync_directory(self._metadata_dir.parent)
        fetcher = DirectoryFetcher(self._directory)
        with reasons_for_root():
            return DurableUpdater(self._metadata_dir, fetcher, self._root, self._gate)

    def _verified(self) -> "DurableUpdater":
        """Return the last updater whose refresh succeeded."""
        if self._updater is None:
            raise BundleRefusedError(
                "the repository has not been verified yet", reason=Reason.UNREACHABLE
            )
        return self._updater

    def _lookup(self, path: str) -> "TargetFile | None":
        """Return what the roles that may speak about ``path`` signed about it."""
        from agent.trust.refusals import reasons_for

        updater = self._verified()
        with own_disk(), reasons_for(updater):
            return updater.get_targetinfo(path)

    def _check_generation(self, path: str, generation: int) -> None:
        """Refuse a group file older than one seen under the same fleet keys."""
        updater = self._verified()
        if updater.signed("fleet") is not None:
            self._gate.learn_generation(path, generation, updater.keys("fleet"))

    def _content(
        self, path: str, length: int, sha256: str
    ) -> Generator[bytes, None, None]:
        """Yield a target's content; the last step judges length and digest."""
        from agent.trust.fetcher import DirectoryFetcher
        from agent.trust.refusals import reasons_for_target

        name = path
        if self._verified().root.consistent_snapshot:
            folder, slash, last = path.rpartition("/")
            name = f"{folder}{slash}{sha256}.{last}"
        digest, taken = hashlib.sha256(), 0
        fetcher = DirectoryFetcher(self._directory)
        with reasons_for_target(path), closing(fetcher.open(f"targets/{name}")) as part:
            for chunk in part:
                taken += len(chunk)
                if taken > length:
                    break
                digest.update(chunk)
                yield chunk
        if taken != length:
            than = "more" if taken > length else f"{taken}, fewer"
            raise BundleRefusedError(
                f"{path}: {than} bytes than the {length} signed", reason=Reason.LENGTH
            )
        if digest.hexdigest() != sha256:
            raise BundleRefusedError(
                f"{path}: its content is not what was signed", reason=Reason.DIGEST
            )


def repository_directory(repository: str) -> Path:
    """Return the directory that ``update.repository`` names: a path or a file URL.

    Raises:
        SettingsError: It is empty, or another kind of address.
    """
    parts = urlsplit(repository)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Path(unquote(parts.path))
    if not repository or "://" in repository:
        raise SettingsError(
            f"update.repository: {repository!r} is not a directory",
            reason=Reason.SETTINGS,
            todo="Name a directory, or a file:// URL of one.",
        )
    return Path(repository).expanduser()


def _parse(found: "TargetFile") -> SignedTarget:
    """Return a signed bundle target, parsed."""
    return parse_target(found.path, found.length, found.hashes, found.custom)


def _sha256(found: "TargetFile") -> str:
    """Return the signed SHA-256 of a target."""
    if "sha256" not in found.hashes:
        raise BundleRefusedError(f"{found.path} has no sha256", reason=Reason.METADATA)
    return found.hashes["sha256"]


def _check_size(path: str, length: int, max_bytes: int) -> None:
    """Refuse what is too large before anything of it is read."""
    if length > max_bytes:
        raise BundleRefusedError(
            f"{path}: {length} bytes, at most {max_bytes} allowed",
            reason=Reason.TOO_LARGE,
        )
