"""A store in memory: the contract of ``agent.store.Store``, without a disk."""

import hashlib
from collections.abc import Callable, Collection
from typing import Self

from msgspec.structs import replace

from agent.core.installed import Installed, Slots
from agent.core.reasons import Reason
from agent.core.sealing import MAX_ENVELOPE_BYTES
from agent.core.update_machine import Job, Phase
from agent.core.updates import Hold, Report, SetAside
from agent.errors import BundleRefusedError, DeviceError

NO_SLOTS = Slots()
FATAL = {Reason.DIGEST, Reason.REVOKED}
KEPT_REPORTS = COUNTED = 256


class MemoryStaging:
    """A bundle on its way into a ``MemoryStore``."""

    def __init__(self, store: "MemoryStore", sha256: str, length: int) -> None:
        self._store = store
        self._sha256 = sha256
        self._length = length
        self._abandoned = False
        self._resumable = True
        content, tag, whole = store.parts.pop(sha256, (b"", "", length))
        self._content = bytearray(content if whole == length else b"")
        self._tag = tag if whole == length else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    @property
    def kept(self) -> memoryview:
        """What is here."""
        return memoryview(bytes(self._content))

    @property
    def tag(self) -> str:
        """Under which ETag it was served."""
        return self._tag

    def remember(self, tag: str) -> None:
        """Take an ETag."""
        self._tag = tag

    def restart(self) -> None:
        """Begin again."""
        self._content.clear()
        self._tag = ""

    def write(self, content: memoryview) -> None:
        """Append bytes."""
        if self._abandoned:
            raise DeviceError("no longer wanted", reason=Reason.STOPPING)
        if len(self._content) + content.nbytes > self._length:
            self._resumable = False
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
        self._resumable = False
        if hashlib.sha256(content).hexdigest() != self._sha256:
            raise BundleRefusedError("other bytes", reason=Reason.DIGEST)
        self._store.objects[self._sha256] = content

    def abandon(self) -> None:
        """Make the next ``write`` raise."""
        self._abandoned = True

    def close(self, *, keep: bool = False) -> None:
        """Leave nothing behind, or what can be resumed."""
        if keep and self._resumable and self._content:
            kept = (bytes(self._content), self._tag, self._length)
            self._store.parts[self._sha256] = kept
        self._content.clear()


class MemoryStore:
    """Implements ``agent.update.needs.UpdateStore`` and the trust folder's notes.

    Attributes:
        objects: Digest -> bytes; tests may rot them.
        envelopes: Digest -> what opens a sealed object.
        parts: Digest -> (bytes, ETag, length) of what was interrupted.
        jobs: Every job that was saved, and None for each that was cleared.
        fail: Called with the name of each change before it happens; it may raise.
        unreadable: What asking for holds, or for what was set aside, raises.
        quota_bytes: What objects and parts may take together.
        clock: Unix seconds.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.envelopes: dict[str, bytes] = {}
        self.parts: dict[str, tuple[bytes, str, int]] = {}
        self.jobs: list[Job | None] = [None]
        self.fail: Callable[[str], None] = lambda _change: None
        self.unreadable: DeviceError | None = None
        self.quota_bytes = 10**12
        self.clock: Callable[[], float] = lambda: 0.0
        self._slots: dict[str, Slots] = {}
        self._floors: dict[str, int] = {}
        self._aside: dict[str, SetAside] = {}
        self._notes: dict[str, bytes] = {}
        self._reports: dict[int, Report] = {}
        self._holds: dict[str, Hold] = {}
        self._attempts: dict[str, int] = {}

    def slots(self, pipeline: str) -> Slots:
        """Return a pipeline's models."""
        return self._slots.get(pipeline, NO_SLOTS)

    def pipelines(self) -> list[str]:
        """Return the pipelines that ever had a model."""
        return sorted(self._slots)

    def commit(
        self,
        pipeline: str,
        installed: Installed,
        report: Report | None = None,
        *,
        factory: bool = False,
        hold: Hold | None = None,
    ) -> None:
        """Make a model the active one."""
        self.fail("commit")
        slots = self.slots(pipeline)
        again = slots.active is not None and slots.active.sha256 == installed.sha256
        previous = slots.previous if again else slots.active
        shipped = installed if factory else slots.factory
        self._slots[pipeline] = Slots(installed, previous, shipped)
        floor = self.version_floor(installed.model)
        self._floors[installed.model] = max(floor, installed.version)
        self._holds.pop(pipeline, None)
        if hold is not None:
            self._holds[pipeline] = hold
        self._count(installed.sha256, 0)
        if report is not None:
            self._keep(report)
        if self.jobs[-1] is not None:
            self.jobs.append(None)

    def fall_back(
        self,
        pipeline: str,
        reason: str = Reason.CRASH_LOOP,
        revoked: Collection[str] = (),
    ) -> Installed | None:
        """Make the previous model the active one, else the factory model."""
        self.fail("fall_back")
        slots = self.slots(pipeline)
        failed = slots.active.sha256 if slots.active is not None else ""
        fit = [
            kept
            for kept in (slots.previous, slots.factory)
            if kept and kept.sha256 not in {failed, *self._aside, *revoked}
        ]
        after = fit[0] if fit else None
        if after is None and reason not in FATAL:
            return slots.active
        shipped = slots.factory
        if shipped is not None and shipped.sha256 == failed and reason in FATAL:
            shipped = None
        self._slots[pipeline] = Slots(after, None, shipped)
        if failed and reason == Reason.DIGEST:
            self.discard(failed)
        elif failed and reason != Reason.REVOKED:
            self.set_aside(failed, reason)
        return after

    def next_update_id(self) -> int:
        """Return a number above all that were given."""
        job = self.jobs[-1]
        return max([*self._reports, 0 if job is None else job.id, 0]) + 1

    def add_report(self, report: Report) -> None:
        """Queue a report."""
        self.fail("add_report")
        self._keep(report)

    def reports(self, limit: int = 64) -> list[Report]:
        """Return the newest reports."""
        newest = sorted(self._reports, reverse=True)[: max(limit, 0)]
        return [self._reports[number] for number in newest]

    def holds(self) -> list[Hold]:
        """Return what operators overruled."""
        if self.unreadable is not None:
            raise self.unreadable
        return [self._holds[pipeline] for pipeline in sorted(self._holds)]

    def version_floor(self, model: str) -> int:
        """Return the highest version ever committed."""
        return self._floors.get(model, 0)

    def set_aside(self, sha256: str, reason: str) -> None:
        """Remember that these bytes must not be tried again."""
        self.fail("set_aside")
        self._aside.setdefault(sha256, SetAside(sha256, str(reason), self.clock()))

    def is_set_aside(self, sha256: str) -> str:
        """Return why, or an empty string."""
        found = self._aside.get(sha256)
        return "" if found is None else found.reason

    def all_set_aside(self) -> list[SetAside]:
        """Return the quarantine, newest first."""
        if self.unreadable is not None:
            raise self.unreadable
        newest = list(reversed(self._aside.values()))
        return sorted(newest, key=lambda aside: -aside.at)

    def forgive(self, sha256: str) -> bool:
        """Let it be tried again."""
        self.fail("forgive")
        found = self._aside.pop(sha256, None)
        if found is not None:
            self._count(sha256, 0)
        return found is not None

    def load_job(self) -> Job | None:
        """Return what was saved last."""
        return self.jobs[-1]

    def save_job(self, job: Job) -> None:
        """Save a job."""
        self.fail("save_job")
        self.jobs.append(replace(job))
        self._count(job.sha256, job.attempts)

    def clear_job(self, ended: Job) -> None:
        """Forget the job."""
        if self.jobs[-1] is not None:
            self.fail("clear_job")
            self.jobs.append(None)
        self._count(ended.sha256, ended.attempts)

    def attempts(self, sha256: str) -> int:
        """Return how many trials of these bytes count."""
        return self._attempts.get(sha256, 0)

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
            self.envelopes.pop(sha256, None)

    def load_envelope(self, sha256: str) -> bytes | None:
        """Return an object's envelope."""
        _check_name(sha256)
        return self.envelopes.get(sha256)

    def save_envelope(self, sha256: str, content: bytes) -> None:
        """Keep an object's envelope."""
        self.fail("save_envelope")
        _check_name(sha256)
        if not 0 < len(content) <= MAX_ENVELOPE_BYTES:
            raise BundleRefusedError("no envelope", reason=Reason.LENGTH)
        self.envelopes[sha256] = content

    def collect(self, keep: Collection[str] = ()) -> list[str]:
        """Remove what nothing refers to."""
        self.fail("collect")
        stay = self._wanted() | set(keep)
        for name in set(self.envelopes) - stay:
            del self.envelopes[name]
        rubbish = sorted(set(self.objects) - stay)
        for name in rubbish:
            del self.objects[name]
        return rubbish

    def make_room(
        self, length: int, sha256: str = "", keep: Collection[str] = ()
    ) -> None:
        """Remove rubbish until it fits."""
        self.fail("make_room")
        if sha256 in self.parts:
            length = max(0, length - self.parts[sha256][2])
        if self._missing(length) <= 0:
            return
        job = self.jobs[-1]
        spare = {sha256, *keep}
        self.collect(spare if job is None else {*spare, job.sha256})
        for name in [name for name in self.parts if name not in spare]:
            if self._missing(length) > 0:
                del self.parts[name]
        if self._missing(length) > 0:
            raise DeviceError("too much", reason=Reason.QUOTA)

    def _missing(self, length: int) -> int:
        """By how much so many bytes more exceed the quota."""
        used = sum(map(len, self.objects.values()))
        used += sum(whole for _, _, whole in self.parts.values())
        return used + length - self.quota_bytes

    def _count(self, sha256: str, attempts: int) -> None:
        """Count trials, of the bundles counted last."""
        if self.attempts(sha256) == attempts:
            return
        self._attempts.pop(sha256, None)
        if attempts:
            self._attempts[sha256] = attempts
        for name in list(self._attempts)[:-COUNTED]:
            del self._attempts[name]

    def _keep(self, report: Report) -> None:
        """Keep a report, and the newest ones."""
        self._reports[report.id] = report
        for number in sorted(self._reports)[:-KEPT_REPORTS]:
            del self._reports[number]

    def _wanted(self) -> set[str]:
        """What slots and an unfinished COMMIT refer to."""
        models = [
            (slots.active, slots.previous, slots.factory)
            for slots in self._slots.values()
        ]
        wanted = {kept.sha256 for some in models for kept in some if kept is not None}
        job = self.jobs[-1]
        if job is not None and job.phase is Phase.COMMITTING:
            wanted.add(job.sha256)
        return wanted


def _check_name(sha256: str) -> None:
    """A digest, as the names of objects are."""
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise BundleRefusedError("no SHA-256", reason=Reason.DIGEST)
