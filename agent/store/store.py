"""The store: what this board runs, ran before, will never run again, and the bytes.

The rules this module keeps:
 * Every change is one transaction. ``commit`` is the only one that moves ``active``
   forward; it raises the version floor and clears the job in the same breath.
 * Version floors never fall.
 * ``commit`` and ``set_aside`` are idempotent: doing them again changes nothing.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from agent.core.installed import Installed, Slots
from agent.core.reasons import Reason
from agent.core.update_machine import Job, Phase
from agent.errors import DeviceError
from agent.store.atomic import Disk, device_error
from agent.store.lock import take_directory
from agent.store.objects import Objects, Staging
from agent.store.state import StateDatabase, Transaction, Value, first

T = TypeVar("T", Installed, Job)
READ_SLOTS = "SELECT active, previous FROM slots WHERE pipeline = ?"
BOARD_ID = "store.board_id"
BOARD_ID_BYTES = 16  # as long as a UUID, without its look


class Store:
    """A state directory, locked and open. Made by ``Store.open``.

    All methods may be called from any thread and return when the change is durable.
    Beyond what they say themselves, all raise ``DeviceError`` (``disk_full``,
    ``read_only``, ``locked``, ``state``) when the disk does not play along.
    """

    def __init__(self, lock: int, database: StateDatabase, objects: Objects) -> None:
        self._lock = lock
        self._database = database
        self._objects = objects

    @classmethod
    def open(cls, state_dir: Path, disk: Disk | None = None) -> Self:
        """Lock a state directory, create what is missing and tidy what was left.

        Args:
            state_dir: Created with mode 0700 where it is missing.
            disk: Performs the steps on objects; tests pass one that interrupts them.

        Raises:
            DeviceError: ``locked`` (the message names the process), ``permission``
                (another user's directory), ``read_only``, ``disk_full``, ``state``
                (a damaged or newer state.db).
        """
        lock = take_directory(state_dir)
        try:
            objects = Objects(state_dir, disk or Disk())
            path = state_dir / "state.db"
            database = StateDatabase(path, may_be_new=not objects.any())
        except BaseException:
            os.close(lock)
            raise
        return cls(lock, database, objects)

    def close(self) -> None:
        """Close the files and release the lock; a second time does nothing."""
        self._database.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # What runs

    def slots(self, pipeline: str) -> Slots:
        """Return a pipeline's durable models; both are None before the first."""
        return _slots(self._database.rows(READ_SLOTS, pipeline))

    def pipelines(self) -> list[str]:
        """Return the pipelines that ever had a model, by name."""
        rows = self._database.rows("SELECT pipeline FROM slots ORDER BY pipeline")
        return [str(name) for (name,) in rows]

    def commit(self, pipeline: str, installed: Installed) -> None:
        """Make a model the active one; the one before it becomes ``previous``.

        The same bytes again (other variant, other executor, or COMMIT repeated after
        a restart) leave ``previous`` alone.
        """
        with self._database.transaction() as change:
            slots = _slots(change.rows(READ_SLOTS, pipeline))
            before = slots.active
            again = before is not None and before.sha256 == installed.sha256
            previous = slots.previous if again else before
            _put_slots(change, pipeline, Slots(installed, previous))
            change.run(
                "INSERT INTO floors VALUES (?, ?) ON CONFLICT (model) DO UPDATE"
                " SET version = max(version, excluded.version)",
                installed.model,
                installed.version,
            )
            change.run("DELETE FROM job")

    def fall_back(
        self, pipeline: str, reason: str = Reason.CRASH_LOOP
    ) -> Installed | None:
        """Make ``previous`` the active model and set the failed one aside.

        Without a previous one the failed model stays active: one that may work later
        is better than none for ever. With reason ``digest`` (bytes that rotted on this
        disk) there is nothing to keep, and the object is removed instead of set aside:
        the same bytes may be fetched again.

        Returns:
            The model that is active now; None if there is none left.
        """
        with self._database.transaction() as change:
            slots = _slots(change.rows(READ_SLOTS, pipeline))
            failed, active = slots.active, slots.previous
            if active is None and reason != Reason.DIGEST:
                return failed
            _put_slots(change, pipeline, Slots(active, None))
            if failed is not None and reason != Reason.DIGEST:
                _set_aside(change, failed.sha256, reason)
        if failed is not None and reason == Reason.DIGEST:
            # What cannot be removed now is rubbish, and is collected later.
            with suppress(DeviceError):
                self.discard(failed.sha256)
        return active

    # What may run

    def version_floor(self, model: str) -> int:
        """Return the highest version of a model ever committed here, 0 if none."""
        rows = self._database.rows("SELECT version FROM floors WHERE model = ?", model)
        floor = first(rows)
        return floor if isinstance(floor, int) else 0

    def set_aside(self, sha256: str, reason: str) -> None:
        """Remember that these bytes must not be tried again; the first reason stays."""
        with self._database.transaction() as change:
            _set_aside(change, sha256, reason)

    def is_set_aside(self, sha256: str) -> str:
        """Return why these bytes were set aside, or an empty string."""
        rows = self._database.rows(
            "SELECT reason FROM set_aside WHERE sha256 = ?", sha256
        )
        return str(first(rows) or "")

    # What is under way

    def load_job(self) -> Job | None:
        """Return the update that was under way when it was last saved."""
        raw = first(self._database.rows("SELECT job FROM job"))
        return None if raw is None else _decode(raw, Job)

    def save_job(self, job: Job) -> None:
        """Save what is about to be done."""
        with self._database.transaction() as change:
            raw = msgspec.json.encode(job)
            change.run("INSERT OR REPLACE INTO job VALUES (1, ?)", raw)

    def clear_job(self) -> None:
        """Forget the job; without one nothing is written."""
        if self.load_job() is not None:
            with self._database.transaction() as change:
                change.run("DELETE FROM job")

    # What others keep here

    def load_note(self, key: str) -> bytes | None:
        """Return what was saved under a key."""
        rows = self._database.rows("SELECT value FROM notes WHERE key = ?", key)
        value = first(rows)
        return value if isinstance(value, bytes) else None

    def save_note(self, key: str, value: bytes) -> None:
        """Save a value under a key; the same value again writes nothing."""
        if self.load_note(key) != value:
            with self._database.transaction() as change:
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
        """Begin to bring in an object; nothing of it stays without its ``commit``.

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

    def discard(self, sha256: str) -> None:
        """Remove an object, unless a pipeline or an unfinished COMMIT refers to it."""
        if sha256 not in self._wanted():
            self._objects.discard(sha256)

    def collect(self, keep: Collection[str] = ()) -> list[str]:
        """Remove the objects that nothing refers to and return their digests."""
        return self._objects.collect(self._wanted() | set(keep))

    def _wanted(self) -> set[str]:
        """The digests that active and previous models have, and COMMIT is to write."""
        wanted = set()
        for name in self.pipelines():
            slots = self.slots(name)
            wanted |= {kept.sha256 for kept in (slots.active, slots.previous) if kept}
        job = self.load_job()
        if job is not None and job.phase is Phase.COMMITTING:
            wanted.add(job.sha256)
        return wanted


def _slots(rows: list[tuple[Value, ...]]) -> Slots:
    """Read one pipeline's row."""
    active, previous = rows[0] if rows else (None, None)
    return Slots(
        None if active is None else _decode(active, Installed),
        None if previous is None else _decode(previous, Installed),
    )


def _put_slots(change: Transaction, pipeline: str, slots: Slots) -> None:
    """Write one pipeline's row."""
    raw = [
        None if kept is None else msgspec.json.encode(kept)
        for kept in (slots.active, slots.previous)
    ]
    change.run("INSERT OR REPLACE INTO slots VALUES (?, ?, ?)", pipeline, *raw)


def _set_aside(change: Transaction, sha256: str, reason: str) -> None:
    """Write one digest's row, unless there is one."""
    change.run("INSERT OR IGNORE INTO set_aside VALUES (?, ?)", sha256, str(reason))


def _decode(raw: Value, kind: type[T]) -> T:
    """Read a value that this agent, or an older one, wrote."""
    try:
        return msgspec.json.decode(raw if isinstance(raw, bytes) else b"", type=kind)
    except msgspec.MsgspecError as err:
        raise device_error(
            Reason.STATE, f"state.db holds a {kind.__name__} that makes no sense: {err}"
        ) from err
