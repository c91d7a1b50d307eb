"""A store in memory: the contract of ``agent.store.Store``, without a disk."""

import hashlib
from collections.abc import Callable, Collection
from typing import Self

from msgspec.structs import replace

from agent.core.installed import Installed, Slots
from agent.core.reasons import Reason
from agent.core.update_machine import Job, Phase
from agent.errors import BundleRefusedError, DeviceError

NO_SLOTS = Slots()


class MemoryStaging:
    """A bundle on its way into a ``MemoryStore``."""

    def __init__(self, store: "MemoryStore", sha256: str, length: int) -> None:
        self._store = store
        self._sha256 = sha256
        self._length = length
        self._content = bytearray()
        self._abandoned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def write(self, content: memoryview) -> None:
        """Append bytes."""
        if self._abandoned:
            raise DeviceError("no longer wanted", reason=Reason.STOPPING)
        if len(self._content) + content.nbytes > self._length:
            raise BundleRefusedError("longer", reason=Reason.LENGTH)
        self._content += content

    def view(self) -> memoryview:
        """Return all bytes."""
        if len(self._content) < self._length:
            raise BundleRefusedError("shorter", reason=Reason.LENGTH)
        return memoryview(bytes(self._content))

    def commit(self) -> None:
        """Put them into the store."""
        content = bytes(self.view())
        if hashlib.sha256(content).hexdigest() != self._sha256:
            raise BundleRefusedError("other bytes", reason=Reason.DIGEST)
        self._store.objects[self._sha256] = content

    def abandon(self) -> None:
        """Make the next ``write`` raise."""
        self._abandoned = True

    def close(self) -> None:
        """Leave nothing behind."""
        self._content.clear()


class MemoryStore:
    """Implements ``agent.update.needs.UpdateStore`` and the trust folder's notes.

    Attributes:
        objects: Digest -> bytes; tests may rot them.
        jobs: Every job that was saved, and None for each that was cleared.
        fail: Called with the name of each change before it happens; it may raise.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.jobs: list[Job | None] = [None]
        self.fail: Callable[[str], None] = lambda _change: None
        self._slots: dict[str, Slots] = {}
        self._floors: dict[str, int] = {}
        self._aside: dict[str, str] = {}
        self._notes: dict[str, bytes] = {}

    def slots(self, pipeline: str) -> Slots:
        """Return a pipeline's models."""
        return self._slots.get(pipeline, NO_SLOTS)

    def pipelines(self) -> list[str]:
        """Return the pipelines that ever had a model."""
        return sorted(self._slots)

    def commit(self, pipeline: str, installed: Installed) -> None:
        """Make a model the active one."""
        self.fail("commit")
        slots = self.slots(pipeline)
        again = slots.active is not None and slots.active.sha256 == installed.sha256
        previous = slots.previous if again else slots.active
        self._slots[pipeline] = Slots(installed, previous)
        floor = self.version_floor(installed.model)
        self._floors[installed.model] = max(floor, installed.version)
        if self.jobs[-1] is not None:
            self.jobs.append(None)

    def fall_back(
        self, pipeline: str, reason: str = Reason.CRASH_LOOP
    ) -> Installed | None:
        """Make the previous model the active one."""
        self.fail("fall_back")
        slots = self.slots(pipeline)
        if slots.previous is None and reason != Reason.DIGEST:
            return slots.active
        self._slots[pipeline] = Slots(slots.previous, None)
        if slots.active is not None and reason == Reason.DIGEST:
            self.discard(slots.active.sha256)
        elif slots.active is not None:
            self.set_aside(slots.active.sha256, reason)
        return slots.previous

    def version_floor(self, model: str) -> int:
        """Return the highest version ever committed."""
        return self._floors.get(model, 0)

    def set_aside(self, sha256: str, reason: str) -> None:
        """Remember that these bytes must not be tried again."""
        self.fail("set_aside")
        self._aside.setdefault(sha256, str(reason))

    def is_set_aside(self, sha256: str) -> str:
        """Return why, or an empty string."""
        return self._aside.get(sha256, "")

    def load_job(self) -> Job | None:
        """Return what was saved last."""
        return self.jobs[-1]

    def save_job(self, job: Job) -> None:
        """Save a job."""
        self.fail("save_job")
        self.jobs.append(replace(job))

    def clear_job(self) -> None:
        """Forget the job."""
        if self.jobs[-1] is not None:
            self.fail("clear_job")
            self.jobs.append(None)

    def load_note(self, key: str) -> bytes | None:
        """Return a note."""
        return self._notes.get(key)

    def save_note(self, key: str, value: bytes) -> None:
        """Keep a note."""
        self.fail("save_note")
        self._notes[key] = value

    def board_id(self) -> str:
        """Return this board's name."""
        return "0" * 32

    def stage(self, sha256: str, length: int) -> MemoryStaging:
        """Begin to bring in an object."""
        self.fail("stage")
        _check_name(sha256)
        if length < 1:
            raise BundleRefusedError("empty", reason=Reason.LENGTH)
        return MemoryStaging(self, sha256, length)

    def has_object(self, sha256: str) -> bool:
        """Return whether it is there."""
        _check_name(sha256)
        return sha256 in self.objects

    def open_object(self, sha256: str) -> memoryview:
        """Return its bytes."""
        _check_name(sha256)
        content = self.objects.get(sha256, b"")
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BundleRefusedError("it rotted", reason=Reason.DIGEST)
        return memoryview(content)

    def discard(self, sha256: str) -> None:
        """Remove it, unless something refers to it."""
        _check_name(sha256)
        if sha256 not in self._wanted():
            self.objects.pop(sha256, None)

    def collect(self, keep: Collection[str] = ()) -> list[str]:
        """Remove what nothing refers to."""
        self.fail("collect")
        rubbish = sorted(set(self.objects) - self._wanted() - set(keep))
        for name in rubbish:
            del self.objects[name]
        return rubbish

    def _wanted(self) -> set[str]:
        """What slots and an unfinished COMMIT refer to."""
        pairs = [(slots.active, slots.previous) for slots in self._slots.values()]
        wanted = {kept.sha256 for pair in pairs for kept in pair if kept is not None}
        job = self.jobs[-1]
        if job is not None and job.phase is Phase.COMMITTING:
            wanted.add(job.sha256)
        return wanted


def _check_name(sha256: str) -> None:
    """A digest, as the names of objects are."""
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise BundleRefusedError("no SHA-256", reason=Reason.DIGEST)
