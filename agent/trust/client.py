"""A repository that is believed: refresh it, ask it, fetch what it signed.

The rules this module keeps:
 * A refresh begins by asking for timestamp.json alone, and only if it changed. Where it
   did not, nothing else is asked, unless something that was verified has expired
   since (a freeze), a day has passed, or somebody else has moved the floors.
 * Nothing is asked for twice: what that look brought is the timestamp.json of the
   refresh behind it, and desired states whose signed digest is known are kept.
 * Order: root chain, clock, timestamp, snapshot, targets, fleet; the first thing that
   does not hold ends the refresh, and what was verified before stays in use.
 * Only parsed values that a verified signature covers are returned.
 * Content is checked against signed length and digest while it streams by, and is
   nobody's until ``fetch`` has returned.
 * Everything blocks: the daemon calls it in a thread, one call at a time.
 * Several may share a cache and floors (the fleet's repository, and a slice that was
   pushed). They may be called from different threads, never at once: python-tuf's
   cache has no lock. Each reads the floors again before it believes anything.

``tuf`` and ``urllib3`` are imported by the first refresh, not by this module.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.deltas import FOLDER, SignedDelta, parse_delta
from agent.core.reasons import Reason
from agent.core.targets import (
    MAX_GROUP_BYTES,
    MAX_REVOKED_BYTES,
    REVOKED_PATH,
    GroupFile,
    Revocations,
    SignedFile,
    SignedTarget,
    bundle_path,
    device_path,
    group_path,
    parse_group,
    parse_revocations,
    parse_target,
    render_revocations,
)
from agent.errors import BundleRefusedError
from agent.trust.clock import ISSUED_FIELD, parse_issued
from agent.trust.durable import own_disk, sync_directory
from agent.trust.found import check_size, sha256_of
from agent.trust.gate import Explain, FactoryGate, FloorGate, silent
from agent.trust.notes import Notes, Remembered
from agent.trust.revoked import load_revoked, same_as_noted, save_revoked
from agent.trust.transport import Transport, parse_address

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

    from agent.trust.download import Resumable, Signed
    from agent.trust.fetcher import Fetcher, Seen
    from agent.trust.updater import DurableUpdater

# Any path below fleet/groups makes the updater load the role; it need not exist.
_FLEET_PROBE = group_path("-")
# After this long everything is verified again, root chain included, news or not.
_FULL_REFRESH_S = 86_400.0
# A board's id that can be a file's name in any repository and in any URL.
_DEVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)


class TrustedRepository:
    """One repository, trusted from one provisioned root onwards."""

    def __init__(  # noqa: PLR0913 - what a board is, how it is reached, who listens
        self,
        *,
        metadata_dir: Path,
        repository: str,
        root: bytes,
        notes: Notes,
        build_time: float,
        factory: bool = False,
        explain: Explain = silent,
        transport: Transport | None = None,
    ) -> None:
        """Remember where things are; nothing of the repository is read yet.

        Args:
            metadata_dir: Cache of verified metadata; made if absent.
            repository: Directory (path or file URL) or ``https://`` address with
                ``metadata`` and ``targets``.
            root: The provisioned root.json, always the beginning of trust.
            notes: Where floors are kept, outside the cache.
            build_time: Unix seconds before which this package cannot run.
            factory: The repository is a slice shipped with the system: signatures
                count, expiry and floors do not.
            explain: Told about each step that passes.
            transport: How a server is spoken to.

        Raises:
            SettingsError: ``repository`` is neither a directory nor such an address.
            DeviceError: ``state``: the floors cannot be read.
        """
        self._metadata_dir = metadata_dir
        self._address = parse_address(repository)
        self._transport = transport or Transport()
        self._root = root
        self._notes = None if factory else notes
        self._explain = explain
        self._gate: FloorGate | FactoryGate = (
            FactoryGate()
            if factory
            else FloorGate(Remembered.of(notes, root), build_time, explain)
        )
        self._updater: DurableUpdater | None = None
        self._fetcher: Fetcher | None = None
        self._refreshed_s = 0.0  # when everything was verified last
        # The newer timestamp.json that the last look met, and the root it met it under.
        self._news: tuple[int, Seen] | None = None
        # Desired states by path and signed digest: the last that were asked for, each
        # of at most MAX_GROUP_BYTES.
        self._kept: dict[tuple[str, str], bytes] = {}

    @property
    def clock_floor(self) -> float:
        """The earliest time it can be, Unix seconds; raised by each refresh."""
        return float(self._gate.clock_floor_s)

    @property
    def certificate_floor(self) -> float:
        """The earliest time it can be by offline keys alone, Unix seconds."""
        return float(self._gate.certificate_floor_s)

    @property
    def issued(self) -> float:
        """Signed issue time of what is in use, Unix seconds; 0 if there is none."""
        if self._updater is None:
            return 0.0
        fields = self._updater.timestamp.unrecognized_fields
        return float(parse_issued(fields.get(ISSUED_FIELD)))

    @property
    def retry_after(self) -> float:
        """Seconds that the server's last answer asked to be left alone for, else 0."""
        return self._fetcher.retry_after_s if self._fetcher else 0.0

    def expiries(self) -> Mapping[str, float]:
        """Return role -> Unix seconds at which what is in use of it expires."""
        expiries = self._updater.expiries() if self._updater else {}
        return {role: expiry.timestamp() for role, expiry in expiries.items()}

    def refresh(self, now: float) -> bool:
        """Verify the newest metadata and raise the floors to it.

        Args:
            now: The system clock, Unix seconds; one before the floor is corrected.

        Returns:
            Whether anything may have changed. Nothing has where the repository says
            that its timestamp.json is the one that is in use already.

        Raises:
            BundleRefusedError: ``signature``, ``threshold``, ``expired``, ``replayed``,
                ``mixed``, ``metadata``, ``length``, ``digest``, ``too_large``,
                ``unreachable``, ``too_slow``, ``tls`` or ``redirect``. What was
                verified before is still in use.
            DeviceError: The cache or the floors cannot be used; ``certificate``: our
                own certificate cannot.
        """
        from agent.trust.refusals import reasons_for

        self._gate.now_s = now
        self._gate.reload()
        fetcher = self._open()
        fetcher.judge_by(now, self.clock_floor, self.certificate_floor)
        if not self._gate.moved and self._is_unchanged(fetcher, now):
            return False
        with own_disk():
            updater = self._start(fetcher)
            updater.foretold, self._news = self._news, None
            with reasons_for(updater):
                updater.refresh()
                updater.get_targetinfo(_FLEET_PROBE)
                if updater.signed("fleet") is None:
                    self._explain("fleet", "no fleet role is delegated")
                self._gate.learn(updater)
        self._updater, self._refreshed_s = updater, now
        return True

    def desired(
        self, groups: Sequence[str], device: str = ""
    ) -> list[tuple[str, GroupFile]]:
        """Return path and content of the desired states that exist for a board.

        Args:
            groups: Its groups, in this order.
            device: Its id: its own file comes first. No repository can hold a file
                for an id that is no safe file name, so that none is looked for.

        Raises:
            BundleRefusedError: ``missing_target``, ``length``, ``digest``,
                ``metadata``, ``replayed`` (its generation), or as from ``refresh``.
        """
        own = [device_path(device)] if _DEVICE.fullmatch(device) else []
        files: list[tuple[str, GroupFile]] = []
        kept: dict[tuple[str, str], bytes] = {}
        for path in own + [group_path(group) for group in groups]:
            found = self._lookup(path)
            if found is None:
                continue
            key = path, sha256_of(found)
            raw = self._kept.get(key)
            # Its bytes have this digest: they would only be fetched and checked again.
            kept[key] = (
                self._small(path, found, MAX_GROUP_BYTES) if raw is None else raw
            )
            file = parse_group(kept[key], path)
            self._check_generation(path, file.generation)
            files.append((path, file))
        self._kept = kept
        return files

    def revoked(self) -> Revocations:
        """Return what the owner revoked, and keep it for boots without a network.

        Only ``targets`` counts, whose keys are offline. A factory slice keeps nothing.

        Raises:
            BundleRefusedError: ``missing_target``, ``length``, ``digest``,
                ``metadata``, or as from ``refresh``: nobody knows what is revoked by
                now, and what was known before still is.
            DeviceError: ``state``, or the note cannot be written.
        """
        updater = self._verified()
        self._gate.reload()
        if self._notes is not None and self._gate.overtaken(updater):
            return load_revoked(self._notes, self._root)
        found = updater.targets.targets.get(REVOKED_PATH)
        if found is None:
            raw = render_revocations(Revocations())
        elif self._notes and same_as_noted(self._notes, self._root, sha256_of(found)):
            return load_revoked(self._notes, self._root)
        else:
            raw = self._small(REVOKED_PATH, found, MAX_REVOKED_BYTES)
        revoked = parse_revocations(raw)
        if self._notes is not None:
            save_revoked(self._notes, self._root, raw)
        return revoked

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

    def deltas(self, target: SignedTarget) -> list[SignedDelta]:
        """Return the signed deltas that lead to a bundle, by their names.

        Only ``targets`` counts. An entry that makes no sense is no delta: the whole
        bundle is there without it.

        Raises:
            BundleRefusedError: ``unreachable``: nothing was verified yet.
        """
        found = []
        for path, file in self._verified().targets.targets.items():
            if path.startswith(FOLDER) and path.endswith(f"-{target.sha256}.zst"):
                with suppress(BundleRefusedError):
                    delta = parse_delta(path, file.length, file.hashes, file.custom)
                    found.append(delta)
        return found

    def envelope(self, model: str, version: int, board: str) -> bytes | None:
        """Return a board's envelope of a sealed bundle, unsigned; None without one.

        Raises:
            BundleRefusedError: ``envelope`` (too long), ``unreachable``, ``too_slow``,
                ``tls`` or ``redirect``.
            DeviceError: ``certificate``.
        """
        from agent.trust.found_envelope import fetch_envelope

        return fetch_envelope(self._open(), self.find, model, version, board)

    def fetch(
        self,
        target: SignedFile,
        write: Callable[[memoryview], None],
        max_bytes: int,
        resume: "Resumable | None" = None,
    ) -> int:
        """Stream a target's content to ``write``; it is verified when this returns.

        ``write`` is also called with nothing, to learn whether it still wants the
        rest. Whatever it raises ends the download and passes through.

        Returns:
            How many bytes of ``resume`` did not have to be fetched again.

        Raises:
            BundleRefusedError: ``too_large`` (before anything is read),
                ``missing_target``, ``length``, ``digest``, ``unreachable``,
                ``too_slow``, ``tls`` or ``redirect``.
            DeviceError: ``certificate``: our own certificate cannot be used.
        """
        check_size(target.path, target.length, max_bytes)
        signed = self._signed(target.path, target.length, target.sha256)
        return self._download(signed, write, resume)

    def _open(self) -> "Fetcher":
        """Return what reads the repository; its connection is kept between calls."""
        if self._fetcher is None:
            if self._address.directory is not None:
                from agent.trust.fetcher import DirectoryFetcher

                self._fetcher = DirectoryFetcher(self._address.directory)
            else:
                from agent.trust.http_fetcher import HttpFetcher

                self._fetcher = HttpFetcher(self._address.url, self._transport)
        return self._fetcher

    def _is_unchanged(self, fetcher: "Fetcher", now: float) -> bool:
        """Ask whether what is in use is still what the repository announces."""
        updater, self._news = self._updater, None
        if updater is None or not 0 <= now - self._refreshed_s < _FULL_REFRESH_S:
            return False
        settled = self._gate.settled()
        if min(updater.expiries().values()) <= settled:
            return False
        from agent.trust.refusals import reasons_for_look
        from agent.trust.updater import ANNOUNCEMENT_URL, LIMITS_BYTES

        limit = LIMITS_BYTES["timestamp"]
        with reasons_for_look("timestamp.json"):
            news = fetcher.look(ANNOUNCEMENT_URL, updater.announced, limit)
        if news.content != updater.announced.content:
            self._news = updater.root.version, news
            return False
        updater.announced = news  # the bytes are the same, their ETag may be a new one
        updater.pass_time(settled)
        return True

    def _start(self, fetcher: "Fetcher") -> "DurableUpdater":
        """Return a new updater, which begins with the provisioned root."""
        from agent.trust.refusals import reasons_for_root
        from agent.trust.updater import DurableUpdater

        if not self._metadata_dir.is_dir():
            self._metadata_dir.mkdir(mode=0o700, parents=True)
            sync_directory(self._metadata_dir.parent)
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

    def _small(self, path: str, found: "TargetFile", max_bytes: int) -> bytes:
        """Return the content of a small target."""
        from agent.trust.download import SmallContent

        check_size(path, found.length, max_bytes)
        content = SmallContent()
        signed = self._signed(path, found.length, sha256_of(found))
        self._download(signed, content.write, content)
        return content.content()

    def _download(
        self,
        signed: "Signed",
        write: Callable[[memoryview], None],
        resume: "Resumable | None",
    ) -> int:
        """Fetch and verify a target's content."""
        from agent.trust.download import Download
        from agent.trust.refusals import reasons_for_target

        pause_s = self._transport.pause_s
        with reasons_for_target(signed.path):
            return Download(self._open(), signed, write, resume, pause_s).run()

    def _signed(self, path: str, length: int, sha256: str) -> "Signed":
        """Return what was signed about a target, and by which name it is served."""
        from agent.trust.download import Signed

        prefixed = bool(self._verified().root.consistent_snapshot)
        return Signed.of(path, length, sha256, prefixed=prefixed)


def _parse(found: "TargetFile") -> SignedTarget:
    """Return a signed bundle target, parsed."""
    return parse_target(found.path, found.length, found.hashes, found.custom)
