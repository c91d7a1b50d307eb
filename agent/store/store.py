"""The store: what this board runs, ran before, will never run again, and the bytes.

The rules this module keeps:
 * Every change is one transaction. ``commit`` is the only one that moves ``active``
   forward; it raises the version floor, queues the report, keeps or ends a hold and
   clears the job in the same breath.
 * A change of what matters is copied to state.json before it commits (``spare``).
 * Version floors never fall.
 * What a pipeline has as active, previous or factory model, and what COMMIT is to
   write, is never removed: not as rubbish, not for the quota.
 * ``commit``, ``add_report`` and ``set_aside`` are idempotent: doing them again changes
   nothing.
 * Trials are counted by bytes, in the transaction that says that one begins: whichever
   update comes next, a bundle that kills the board is not tried for ever.
"""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from agent.core.installed import Installed, Slots
from agent.core.reasons import Reason
from agent.core.update_machine import Job, Phase
from agent.core.updates import Hold, Report, SetAside
from agent.errors import DeviceError
from agent.store import records, reports
from agent.store.atomic import Disk, device_error
from agent.store.envelopes import Envelopes
from agent.store.lock import take_directory
from agent.store.objects import Objects
from agent.store.room import taken
from agent.store.schema import IDS_BELOW, digest_of
from agent.store.spare import Spare, open_database, settle, write_ahead
from agent.store.staging import Staging
from agent.store.state import StateDatabase, Transaction, first, unnoticed

BOARD_ID = "store.board_id"
BOARD_ID_BYTES = 16  # as long as a UUID, without its look
MB = 1_000_000
QUOTA_BYTES = 4096 * MB  # what update.quota_mb is without being set


def no_clock() -> float:
    """The time nobody told."""
    return 0.0


class Store:
    """A state directory, locked and open. Made by ``Store.open``.

    ``quota_bytes`` is what objects, parts and the inbox may take together; it may be
    changed.

    All methods may be called from any thread and return when the change is durable.
    Beyond what they say themselves, all raise ``DeviceError`` (``disk_full``,
    ``read_only``, ``locked``, ``descriptors``, ``state``) when the disk does not play
    along.
    """

    def __init__(
        self, state_dir: Path, lock: int, quota_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._state_dir = state_dir
        self._lock = lock
        self.quota_bytes = quota_bytes
        self._clock = clock
        self._database: StateDatabase
        self._spare: Spare
        self._objects: Objects
        self._envelopes: Envelopes

    @classmethod
    def open(
        cls,
        state_dir: Path,
        disk: Disk | None = None,
        *,
        quota_bytes: int = QUOTA_BYTES,
        clock: Callable[[], float] = no_clock,
        migrating: Callable[[], None] = unnoticed,
    ) -> Self:
        """Lock a state directory, create what is missing and tidy what was left.

        Args:
            state_dir: Created with mode 0700 where it is missing.
            disk: Performs the steps on files; tests pass one that interrupts them.
            quota_bytes: What objects, parts and the inbox may take together.
            clock: Unix seconds.
            migrating: Called before the state of an older agent is changed, which
                may take long on a slow card.

        Raises:
            DeviceError: ``locked`` (the message names the process), ``permission``
                (another user's directory), ``read_only``, ``disk_full``, ``state``
                (a newer state.db, or a damaged one whose copy is damaged, too).
        """
        store = cls(state_dir, take_directory(state_dir), quota_bytes, clock)
        try:
            disk = disk or Disk()
            store._objects = Objects(state_dir, disk, clock)
            store._envelopes = Envelopes(state_dir, disk)
            store._database, store._spare = open_database(
                state_dir,
                disk,
                may_be_new=not store._objects.any(),
                migrating=migrating,
            )
        except BaseException:
            os.close(store._lock)
            raise
        return store

    def close(self) -> None:
        """Close the files and release the lock; a second time does nothing."""
        self._database.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # What runs

    def slots(self, pipeline: str) -> Slots:
        """Return a pipeline's durable models; all are None before the first."""
        return records.slots_of(self._database, pipeline)

    def pipelines(self) -> list[str]:
        """Return the pipelines that ever had a model, by name."""
        rows = self._database.rows("SELECT pipeline FROM slots ORDER BY pipeline")
        return [str(name) for (name,) in rows]

    def commit(
        self,
        pipeline: str,
        installed: Installed,
        report: Report | None = None,
        *,
        factory: bool = False,
        hold: Hold | None = None,
    ) -> None:
        """Make a model the active one; the one before it becomes ``previous``.

        The same bytes again (other variant, other executor, or COMMIT repeated after
        a restart) leave ``previous`` alone.

        Args:
            pipeline: Its name.
            installed: The model.
            report: Queued with it.
            factory: It is also kept as the factory model.
            hold: An operator overruled a desired state; without one a hold of this
                pipeline ends.
        """
        with self._change() as change:
            records.move_active(change, pipeline, installed, factory=factory)
            records.put_hold(change, pipeline, hold)
            records.put_attempts(change, installed.sha256, 0)
            if report is not None:
                reports.put_report(change, report)
            change.run("DELETE FROM job")

    def fall_back(
        self,
        pipeline: str,
        reason: str = Reason.CRASH_LOOP,
        revoked: Collection[str] = (),
    ) -> Installed | None:
        """Make ``previous``, else ``factory`` the active model; set the failed aside.

        Neither takes over if it was set aside or revoked itself. Without either the
        failed model stays active: one that may work later is better than none for ever.
        With reason ``digest`` (bytes that rotted on this disk) or ``revoked`` there is
        nothing to keep, and nothing is set aside: rotten bytes are removed, and may be
        fetched again; what is revoked is the owner's to say, who may take it back.

        Args:
            pipeline: Its name.
            reason: Why the active model may not go on.
            revoked: Digests that do not take over.

        Returns:
            The model that is active now; None if there is none left.
        """
        with self._change() as change:
            failed, active = records.move_back(
                change, pipeline, reason, self._clock(), revoked
            )
        if failed is not None and reason == Reason.DIGEST:
            # What cannot be removed now is rubbish, and is collected later.
            with suppress(DeviceError):
                self.discard(failed.sha256)
        return active

    def holds(self) -> list[Hold]:
        """Return the rollbacks of operators that still hold."""
        return records.all_holds(self._database)

    # How updates ended

    def next_update_id(self) -> int:
        """Return a number above those of all reports and of the job."""
        job = self.load_job()
        number = reports.next_id(self._database, 0 if job is None else job.id)
        bound = reports.bound_for(self._database, number)
        if bound is not None:
            self.save_note(IDS_BELOW, str(bound).encode())
        return number

    def add_report(self, report: Report) -> None:
        """Queue the report of an update that was not committed."""
        with self._database.transaction() as change:
            reports.put_report(change, report)

    def reports(self, limit: int = 64) -> list[Report]:
        """Return the newest reports, newest first; 256 are kept."""
        return reports.newest_reports(self._database, limit)

    # What may run

    def version_floor(self, model: str) -> int:
        """Return the highest version of a model ever committed here, 0 if none."""
        return records.floor_of(self._database, model)

    def set_aside(self, sha256: str, reason: str) -> None:
        """Remember that these bytes must not be tried again; the first reason stays."""
        with self._change() as change:
            records.put_aside(change, sha256, reason, self._clock())

    def is_set_aside(self, sha256: str) -> str:
        """Return why these bytes were set aside, or an empty string."""
        return records.why_aside(self._database, sha256)

    def all_set_aside(self) -> list[SetAside]:
        """Return the bundles that are not tried again, newest first."""
        return records.quarantine(self._database)

    def forgive(self, sha256: str) -> bool:
        """Let a bundle be tried again; return whether it had been set aside."""
        if not self.is_set_aside(sha256):
            return False
        with self._change() as change:
            records.put_attempts(change, sha256, 0)
            return change.run("DELETE FROM set_aside WHERE sha256 = ?", sha256) > 0

    # What is under way

    def load_job(self) -> Job | None:
        """Return the update that was under way when it was last saved."""
        raw = first(self._database.rows("SELECT job FROM job"))
        return None if raw is None else records.decode(raw, Job)

    def save_job(self, job: Job) -> None:
        """Save what is about to be done, and how many trials of its bytes count."""
        with self._database.transaction() as change:
            records.put_attempts(change, job.sha256, job.attempts)
            raw = msgspec.json.encode(job)
            change.run(
                "INSERT OR REPLACE INTO job (id, job, sha256) VALUES (1, ?, ?)",
                raw,
                digest_of(raw),
            )

    def clear_job(self, ended: Job) -> None:
        """Forget the job but for ``ended.attempts``; writes nothing that is so."""
        counted = self.attempts(ended.sha256) == ended.attempts
        if self.load_job() is not None or not counted:
            with self._database.transaction() as change:
                change.run("DELETE FROM job")
                records.put_attempts(change, ended.sha256, ended.attempts)

    def attempts(self, sha256: str) -> int:
        """Return how many trials of these bytes began and came to no verdict."""
        return records.attempts_of(self._database, sha256)

    # What others keep here

    def load_note(self, key: str) -> bytes | None:
        """Return what was saved under a key."""
        rows = self._database.rows("SELECT value FROM notes WHERE key = ?", key)
        value = first(rows)
        return value if isinstance(value, bytes) else None

    def save_note(self, key: str, value: bytes) -> None:
        """Save a value under a key; the same value again writes nothing."""
        if self.load_note(key) != value:
            with self._change() as change:
                change.run("INSERT OR REPLACE INTO notes VALUES (?, ?)", key, value)

    def board_id(self) -> str:
        """Return this board's random name, made once and kept."""
        kept = self.load_note(BOARD_ID)
        if kept is None:
            kept = os.urandom(BOARD_ID_BYTES).hex().encode()
            self.save_note(BOARD_ID, kept)
        return kept.decode()

    # The bytes

    def stage(self, sha256: str, length: int) -> Staging:
        """Begin to bring in an object, or go on where ``close(keep=True)`` left it.

        Raises:
            BundleRefusedError: ``length`` or ``digest``: there is no such object.
            DeviceError: ``disk_full``: there is no room for all of it.
        """
        return self._objects.stage(sha256, length)

    def has_object(self, sha256: str) -> bool:
        """Return whether an object of that name lies here, changed or not."""
        return self._objects.has(sha256)

    def open_object(self, sha256: str) -> memoryview:
        """Return an object's bytes, mapped, after hashing them.

        Raises:
            BundleRefusedError: ``digest``: the bytes that were verified are not there
                any more: changed, gone, or on a bad block.
        """
        return self._objects.open(sha256)

    def load_envelope(self, sha256: str) -> bytes | None:
        """Return what opens a sealed object, None where nothing is kept."""
        self._objects.path(sha256)  # the name becomes a path: it is checked
        return self._envelopes.load(sha256)

    def save_envelope(self, sha256: str, content: bytes) -> None:
        """Keep what opens a sealed object; to be called before it is committed.

        Raises:
            BundleRefusedError: ``length``: no envelope is empty, or so long.
        """
        self._objects.path(sha256)
        self._envelopes.save(sha256, content)

    def discard(self, sha256: str) -> None:
        """Remove an object, unless a pipeline or an unfinished COMMIT refers to it."""
        if sha256 not in self._wanted():
            self._objects.discard(sha256)
            self._envelopes.discard(sha256)

    def collect(self, keep: Collection[str] = ()) -> list[str]:
        """Remove the objects that nothing refers to and return their digests."""
        stay = self._wanted() | set(keep)
        removed = self._objects.collect(stay)
        self._envelopes.collect(stay)
        return removed

    def make_room(
        self, length: int, sha256: str = "", keep: Collection[str] = ()
    ) -> None:
        """Remove rubbish until ``length`` more bytes fit the quota.

        Args:
            length: Bytes that are to come.
            sha256: The object they are for; what is here of it is not rubbish.
            keep: Others that are none, whole or in part: what may wait for its own
                room takes none from them.

        Raises:
            DeviceError: ``quota``: they do not fit even so.
        """
        if sha256:
            # The room for all of it was taken when it began.
            length = max(0, length - self._objects.parts.size(sha256))
        if self._missing(length) <= 0:
            return
        job = self.load_job()
        # Its object may be on trial: COMMIT will need it.
        spare = {sha256, *keep}
        self.collect(spare if job is None else {*spare, job.sha256})
        while (missing := self._missing(length)) > 0:
            if not self._objects.parts.drop_oldest(spare):
                raise device_error(
                    Reason.QUOTA,
                    f"{length} bytes more are {missing} too many for the quota of"
                    f" {self.quota_bytes} bytes",
                )

    def _missing(self, length: int) -> int:
        """By how much so many bytes more would exceed the quota."""
        return taken(self._state_dir) + length - self.quota_bytes

    def _wanted(self) -> set[str]:
        """The digests of all models in slots, and of what COMMIT is to write."""
        wanted = set()
        for name in self.pipelines():
            slots = self.slots(name)
            models = (slots.active, slots.previous, slots.factory)
            wanted |= {kept.sha256 for kept in models if kept}
        job = self.load_job()
        if job is not None and job.phase is Phase.COMMITTING:
            wanted.add(job.sha256)
        return wanted

    @contextmanager
    def _change(self) -> Iterator[Transaction]:
        """Run the body in one transaction that is copied before it commits."""
        try:
            with self._database.transaction() as change:
                yield change
                write_ahead(change, self._spare)
        except BaseException:
            # The copy may be ahead of what did not happen. Never behind: it can wait.
            with suppress(DeviceError):
                settle(self._database, self._spare)
            raise
