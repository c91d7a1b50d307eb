"""What updates need from the rest of the agent, as they see it.

Each Protocol is satisfied by a folder that this one never imports: ``Repository``,
``Opener`` and ``Unsealer`` by ``agent.trust``, ``UpdateStore`` by ``agent.store``,
``Trials`` by ``agent.supervise``; ``daemon.py`` passes them in.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn, Protocol, Self

from agent.core.deltas import SignedDelta
from agent.core.explanations import EXPLANATIONS
from agent.core.installed import Board, Installed, Slots
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.sealing import Sealed
from agent.core.targets import GroupFile, Revocations, SignedFile, SignedTarget
from agent.core.trial_verdict import Chosen
from agent.core.update_machine import Job
from agent.core.updates import Hold, Report, SetAside
from agent.errors import DeviceError


class Resumable(Protocol):
    """What is here of a bundle whose fetching was interrupted."""

    @property
    def kept(self) -> memoryview:
        """The bytes from its beginning that are here."""

    @property
    def tag(self) -> str:
        """The strong ETag under which they were served, else empty."""

    def remember(self, tag: str) -> None:
        """Take the ETag under which the bytes that follow are served."""

    def restart(self) -> None:
        """Drop what is kept: the next byte written is the first."""


class Repository(Protocol):
    """Believed bytes; every call may wait and is made in a thread.

    All raise ``BundleRefusedError`` (or ``DeviceError``) and nothing else.
    """

    @property
    def clock_floor(self) -> float:
        """Unix seconds before which it cannot be, by what was verified so far."""

    def refresh(self, now: float) -> bool:
        """Verify the newest metadata; return whether anything may have changed.

        Where the server says that nothing did, and nothing has expired meanwhile, what
        was verified before stays in use.
        """

    def desired(
        self, groups: Sequence[str], device: str = ""
    ) -> list[tuple[str, GroupFile]]:
        """Return (path, desired state) of the device, then of the groups."""

    def revoked(self) -> Revocations:
        """Return what the owner revoked."""

    def expiries(self) -> Mapping[str, float]:
        """Return role -> Unix seconds at which its verified metadata expires."""

    @property
    def issued(self) -> float:
        """Signed issue time of the newest verified metadata, Unix seconds, else 0."""

    @property
    def retry_after(self) -> float:
        """Seconds that the server asked to be left alone for, 0 if it did not."""

    def find(self, model: str, version: int) -> SignedTarget:
        """Return what was signed about a bundle."""

    def deltas(self, target: SignedTarget) -> Sequence[SignedDelta]:
        """Return the signed deltas that lead to a bundle."""

    def envelope(self, model: str, version: int, board: str) -> bytes | None:
        """Return a board's envelope of a sealed bundle, unsigned; None without one."""

    def fetch(
        self,
        target: SignedFile,
        write: Callable[[memoryview], None],
        max_bytes: int,
        resume: Resumable | None = None,
    ) -> int:
        """Write a target of the signed length and hash; errors of ``write`` pass.

        Returns:
            How many bytes of ``resume`` did not have to be fetched again.
        """


class Opener(Protocol):
    """Opens a bundle; raises ``BundleRefusedError`` only."""

    def __call__(self, content: memoryview, *, max_bytes: int) -> OpenedBundle:
        """Return the opened bundle."""


class Unsealer(Protocol):
    """Opens sealed bundles with this board's key.

    All raise ``BundleRefusedError`` (``envelope``, ``unseal``, ``watermark`` or what
    an ``Opener`` does), or ``DeviceError`` (``seal_key``).
    """

    def check(self, sealed: Sealed, envelope: bytes) -> None:
        """Stay silent if this envelope is for this board, model and version."""

    def open(
        self, content: memoryview, target_sha256: str, sealed: Sealed, envelope: bytes
    ) -> OpenedBundle:
        """Return the opened bundle; its plain bytes lie in memory alone."""


class Incoming(Resumable, Protocol):
    """A bundle on its way to the disk.

    What was written before a network failed stays for the next ``stage`` of the same
    digest; what was refused does not.
    """

    def write(self, content: memoryview) -> None:
        """Append bytes."""

    def view(self) -> memoryview:
        """Return all bytes; they stay valid."""

    def commit(self) -> None:
        """Make them durable under their digest."""

    def abandon(self) -> None:
        """Make the next ``write`` raise."""

    def close(self, *, keep: bool = False) -> None:
        """Let go; what was not committed stays only to be resumed (``keep``)."""

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""


class UpdateStore(Protocol):
    """The durable side; all raise ``DeviceError``, bytes ``BundleRefusedError``."""

    def slots(self, pipeline: str) -> Slots:
        """Return a pipeline's durable models."""

    def commit(
        self,
        pipeline: str,
        installed: Installed,
        report: Report | None = None,
        *,
        factory: bool = False,
        hold: Hold | None = None,
    ) -> None:
        """Move ``active``, raise the floor, queue the report and clear the job.

        All in one transaction. ``factory`` also keeps it as the factory model; with
        ``hold`` an operator overrules a desired state, without one a hold of this
        pipeline ends.
        """

    def next_update_id(self) -> int:
        """Return a number above those of all reports and of the job."""

    def add_report(self, report: Report) -> None:
        """Queue the report of an update that was not committed."""

    def reports(self, limit: int = 64) -> list[Report]:
        """Return the newest reports, newest first."""

    def holds(self) -> list[Hold]:
        """Return the rollbacks of operators that still hold."""

    def all_set_aside(self) -> list[SetAside]:
        """Return the bundles that are not tried again, newest first."""

    def forgive(self, sha256: str) -> bool:
        """Let a bundle be tried again; return whether it had been set aside."""

    def fall_back(
        self, pipeline: str, reason: str, revoked: Collection[str] = ()
    ) -> Installed | None:
        """Set the active model aside: previous, else factory, takes over.

        None of ``revoked`` does, and for reason ``revoked`` nothing is set aside.
        """

    def load_note(self, key: str) -> bytes | None:
        """Return what was saved under a key."""

    def save_note(self, key: str, value: bytes) -> None:
        """Save a value under a key, durably."""

    def make_room(
        self, length: int, sha256: str = "", keep: Collection[str] = ()
    ) -> None:
        """Remove rubbish until ``length`` bytes of an object fit the quota (``quota``).

        What is here of that object is no rubbish, and counts; nor is what is in
        ``keep``.
        """

    def version_floor(self, model: str) -> int:
        """Return the highest version ever committed of a model."""

    def set_aside(self, sha256: str, reason: str) -> None:
        """Remember that these bytes must not be tried again."""

    def is_set_aside(self, sha256: str) -> str:
        """Return why they were set aside, or an empty string."""

    def load_job(self) -> Job | None:
        """Return the update that was under way."""

    def save_job(self, job: Job) -> None:
        """Save the update that is under way, and ``attempts`` for its bytes."""

    def clear_job(self, ended: Job) -> None:
        """Forget the update that is under way, but for ``ended.attempts``."""

    def attempts(self, sha256: str) -> int:
        """Return how many trials of these bytes count: see ``Job.attempts``.

        A commit and ``forgive`` make it 0.
        """

    def stage(self, sha256: str, length: int) -> Incoming:
        """Begin to bring in an object."""

    def has_object(self, sha256: str) -> bool:
        """Return whether an object of that name lies there."""

    def open_object(self, sha256: str) -> memoryview:
        """Return an object's bytes, hashed again."""

    def load_envelope(self, sha256: str) -> bytes | None:
        """Return what opens a sealed object, None where nothing is kept."""

    def save_envelope(self, sha256: str, content: bytes) -> None:
        """Keep what opens a sealed object, as long as that is kept."""

    def collect(self, keep: Collection[str] = ()) -> list[str]:
        """Remove what nothing refers to."""


class Trials(Protocol):
    """The supervisor's hand on a candidate; all raise ``AgentError`` of any branch."""

    async def examine(self, pipeline: str, bundle: OpenedBundle) -> Chosen:
        """Run preflight and return the variant and executor to use."""

    async def shadow(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Return when the candidate has shadowed live samples well enough."""

    async def swap_in(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Return when the candidate answers."""

    async def watch(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Return when the candidate, which answers, has passed its probation."""

    async def swap_back(self, pipeline: str) -> None:
        """Return when the active model answers again, also if no candidate did."""

    async def commit(self, pipeline: str, installed: Installed) -> None:
        """Learn that the candidate is the active model now."""


class Inbox(Protocol):
    """Uploaded files of a repository slice, as updates see them."""

    def filled(self) -> bool:
        """Return whether there is a slice: metadata to begin with."""

    @property
    def changes(self) -> int:
        """How often something was uploaded."""

    def clear_unless_changed(self, since: int) -> bool:
        """Remove what was uploaded, unless more came since ``changes`` was that."""


def _utc(now: float) -> int:
    """Local time is UTC."""
    del now
    return 0


def _nothing(pipeline: str) -> None:
    """Nobody has to be told."""
    del pipeline


def _none() -> Collection[str]:
    """Nothing is known to be revoked."""
    return ()


class _NoKey:
    """Opens nothing: an ``Unsealer`` of a board that was given no key."""

    def check(self, sealed: Sealed, envelope: bytes) -> NoReturn:
        """Say that there is no key."""
        del envelope
        raise DeviceError(
            f"{sealed.model} {sealed.version} is sealed, and this board has no key",
            reason=Reason.SEAL_KEY,
            todo=EXPLANATIONS[Reason.SEAL_KEY].todo,
        )

    def open(
        self, content: memoryview, target_sha256: str, sealed: Sealed, envelope: bytes
    ) -> NoReturn:
        """Say that there is no key."""
        del content, target_sha256
        self.check(sealed, envelope)


@dataclass(frozen=True, slots=True)
class Supply:
    """Where bundles come from.

    Attributes:
        repository: The fleet's repository; None where the settings name none.
        factories: Pipeline -> opens the repository slice shipped with the system, whose
            signatures count and whose age does not.
        inbox: The slice that was pushed or imported, followed by the same rules as
            the fleet's repository; None where nothing verifies it (no root).
    """

    repository: Repository | None = None
    factories: Mapping[str, Callable[[], Repository]] = field(default_factory=dict)
    inbox: Repository | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything else that updates touch.

    Attributes:
        board: What this board is now, its free bytes included.
        clock: Unix seconds (UTC).
        draw: A random number in [0, 1), to keep a fleet from asking all at once.
        utc_offset: Unix seconds -> how many seconds local time is ahead of UTC then.
        inbox: The uploaded slice's folder, or None.
        give_model: Lets a pipeline run what the store says now, or nothing: the
            active model was revoked or set aside.
        known_revoked: Digests of bundles that were revoked as far as this board knew
            when it last verified anything; kept for boots without a network.
        unsealer: Opens sealed bundles.
        unopened: Pipeline -> its committed model, where no kept envelope opens it.
    """

    store: UpdateStore
    trials: Trials
    opener: Opener
    board: Callable[[], Board]
    clock: Callable[[], float]
    draw: Callable[[], float]
    utc_offset: Callable[[float], int] = _utc
    inbox: Inbox | None = None
    give_model: Callable[[str], None] = _nothing
    known_revoked: Callable[[], Collection[str]] = _none
    unsealer: Unsealer = field(default_factory=_NoKey)
    unopened: Callable[[], Mapping[str, Installed]] = dict
