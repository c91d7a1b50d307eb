"""What updates need from the rest of the agent, as they see it.

Each Protocol is satisfied by a folder that this one never imports: ``Repository`` and
``Opener`` by ``agent.trust``, ``UpdateStore`` by ``agent.store``, ``Trials`` by
``agent.supervise``; ``daemon.py`` passes them in.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from agent.core.installed import Board, Installed, Slots
from agent.core.opened_bundle import OpenedBundle
from agent.core.targets import GroupFile, SignedTarget
from agent.core.trial_verdict import Chosen
from agent.core.update_machine import Job


class Repository(Protocol):
    """Believed bytes; every call may wait and is made in a thread.

    All raise ``BundleRefusedError`` (or ``DeviceError``) and nothing else.
    """

    @property
    def clock_floor(self) -> float:
        """Unix seconds before which it cannot be, by what was verified so far."""

    def refresh(self, now: float) -> None:
        """Verify the newest metadata."""

    def desired(self, groups: Sequence[str]) -> list[tuple[str, GroupFile]]:
        """Return (path, desired state) of the groups that have one."""

    def find(self, model: str, version: int) -> SignedTarget:
        """Return what was signed about a bundle."""

    def fetch(
        self,
        target: SignedTarget,
        write: Callable[[memoryview], None],
        max_bytes: int,
    ) -> None:
        """Write a bundle of the signed length and hash; errors of ``write`` pass."""


class Opener(Protocol):
    """Opens a bundle; raises ``BundleRefusedError`` only."""

    def __call__(self, content: memoryview, *, max_bytes: int) -> OpenedBundle:
        """Return the opened bundle."""


class Incoming(Protocol):
    """A bundle on its way to the disk."""

    def write(self, content: memoryview) -> None:
        """Append bytes."""

    def view(self) -> memoryview:
        """Return all bytes; they stay valid."""

    def commit(self) -> None:
        """Make them durable under their digest."""

    def abandon(self) -> None:
        """Make the next ``write`` raise."""

    def close(self) -> None:
        """Leave nothing behind that was not committed."""

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

    def commit(self, pipeline: str, installed: Installed) -> None:
        """Move ``active``, raise the floor and clear the job, in one transaction."""

    def version_floor(self, model: str) -> int:
        """Return the highest version ever committed of a model."""

    def set_aside(self, sha256: str, reason: str) -> None:
        """Remember that these bytes must not be tried again."""

    def is_set_aside(self, sha256: str) -> str:
        """Return why they were set aside, or an empty string."""

    def load_job(self) -> Job | None:
        """Return the update that was under way."""

    def save_job(self, job: Job) -> None:
        """Save the update that is under way."""

    def clear_job(self) -> None:
        """Forget it."""

    def stage(self, sha256: str, length: int) -> Incoming:
        """Begin to bring in an object."""

    def has_object(self, sha256: str) -> bool:
        """Return whether an object of that name lies there."""

    def open_object(self, sha256: str) -> memoryview:
        """Return an object's bytes, hashed again."""

    def collect(self, keep: Collection[str] = ()) -> list[str]:
        """Remove what nothing refers to."""


class Trials(Protocol):
    """The supervisor's hand on a candidate; all raise ``AgentError`` of any branch."""

    async def examine(self, pipeline: str, bundle: OpenedBundle) -> Chosen:
        """Run preflight and return the variant and executor to use."""

    async def swap_in(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Return when the candidate answers."""

    async def swap_back(self, pipeline: str) -> None:
        """Return when the active model answers again, also if no candidate did."""

    async def commit(self, pipeline: str, installed: Installed) -> None:
        """Learn that the candidate is the active model now."""


@dataclass(frozen=True, slots=True)
class Supply:
    """Where bundles come from.

    Attributes:
        repository: The fleet's repository; None where the settings name none.
        factories: Pipeline -> opens the repository slice shipped with the system, whose
            signatures count and whose age does not.
    """

    repository: Repository | None = None
    factories: Mapping[str, Callable[[], Repository]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything else that updates touch.

    Attributes:
        board: What this board is now, its free bytes included.
        clock: Unix seconds (UTC).
        draw: A random number in [0, 1), to keep a fleet from asking all at once.
    """

    store: UpdateStore
    trials: Trials
    opener: Opener
    board: Callable[[], Board]
    clock: Callable[[], float]
    draw: Callable[[], float]
