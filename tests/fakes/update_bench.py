"""A board with fakes all around, and an update poller in the middle."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from agent.core.flow import FilesSource
from agent.core.installed import Board, Installed
from agent.core.updates import Decision
from agent.settings import PipelineSettings, Settings, UpdateSettings
from agent.trust.bundle import open_bundle
from agent.update import Desk, Supply, Surroundings, UpdatePoller
from agent.update.needs import Opener, Repository
from tests.fakes.bundles import good_bundle
from tests.fakes.memory_store import MemoryStore
from tests.fakes.scripted_repository import ScriptedRepository
from tests.fakes.scripted_trials import ScriptedTrials
from tests.fakes.scripted_unsealer import ScriptedUnsealer

BUNDLES = {("kws", version): good_bundle(version) for version in (1, 2, 3)}
NOW = 1_790_000_000.0
BOARD = Board("board-1", ("aarch64",), "0.1.0", 10**9, 10**9)


class ScriptedInbox:
    """Implements ``agent.update.needs.Inbox``.

    Attributes:
        full: A slice was uploaded; ``cleared`` counts how often it was removed.
        changes: How often something was uploaded.
    """

    def __init__(self) -> None:
        self.full = False
        self.cleared = self.changes = 0

    def filled(self) -> bool:
        """Return whether there is a slice."""
        return self.full

    def clear_unless_changed(self, since: int) -> bool:
        """Remove it, unless more came."""
        if self.changes != since:
            return False
        self.full = False
        self.cleared += 1
        return True


class Bench:
    """A board whose two pipelines, ``door`` and ``window``, may run ``kws``.

    Attributes:
        now: Its clock, Unix seconds.
        inbox: Where slices are uploaded; ``slice`` says what is in them.
        known_revoked: What it noted in an earlier life.
        told: Pipelines that were told to run what the store says.
        opener: Opens bundles; ``unsealer`` those that are sealed for ``board-1``.
        unopened: Pipeline -> its committed model, where nothing kept opens it.
        surroundings: What the poller of this life touches.
    """

    def __init__(
        self,
        *,
        repository: bool = True,
        names: tuple[str, ...] = ("door", "window"),
        factories: Mapping[str, Callable[[], Repository]] | None = None,
        **update: object,
    ) -> None:
        self.repository = ScriptedRepository(BUNDLES)
        self.store = MemoryStore()
        self.trials = ScriptedTrials()
        self.board = BOARD
        self.now = NOW
        self.opener: Opener = open_bundle
        self.unsealer = ScriptedUnsealer(BOARD.id)
        self.unopened: dict[str, Installed] = {}
        self.utc_offset_s = 0
        self.inbox = ScriptedInbox()
        self.slice = ScriptedRepository(BUNDLES)
        self.known_revoked: tuple[str, ...] = ()
        self.told: list[str] = []
        tables = [
            PipelineSettings(name=name, model="kws", source=FilesSource(path="x"))
            for name in names
        ]
        table = UpdateSettings(poll_s=100.0, groups=("lab", "all"))
        self.settings = Settings(
            pipeline=tuple(tables), update=replace(table, **update)
        )
        self.supply = Supply(
            self.repository if repository else None,
            dict(factories or {}),
            self.slice,
        )
        self.poller = self.start()

    def start(self) -> UpdatePoller:
        """Return a new poller on the same board, as after a restart."""
        self.surroundings = Surroundings(
            store=self.store,
            trials=self.trials,
            opener=self.opener,
            board=lambda: self.board,
            clock=lambda: self.now,
            draw=lambda: 0.5,
            utc_offset=lambda _now: self.utc_offset_s,
            inbox=self.inbox,
            give_model=self.told.append,
            known_revoked=lambda: self.known_revoked,
            unsealer=self.unsealer,
            unopened=lambda: self.unopened,
        )
        self.poller = UpdatePoller(self.settings, self.supply, self.surroundings)
        self.desk = Desk(self.settings, self.store, self.poller)
        return self.poller

    def look(self, times: int = 1) -> float:
        """Look so many times and return the last pause."""
        pauses = [asyncio.run(self.poller.look()) for _ in range(times)]
        return pauses[-1]

    def versions(self, pipeline: str = "door") -> tuple[int, int]:
        """Return the active and previous versions, 0 for none."""
        slots = self.store.slots(pipeline)
        active, previous = slots.active, slots.previous
        return (active.version if active else 0, previous.version if previous else 0)

    def decision(self, pipeline: str = "door") -> Decision:
        """Return what was decided last about a pipeline."""
        decisions = self.poller.snapshot().decisions
        (decision,) = [it for it in decisions if it.pipeline == pipeline]
        return decision

    def sha256(self, version: int) -> str:
        """Return the digest of a version."""
        return hashlib.sha256(BUNDLES["kws", version]).hexdigest()

    def results(self) -> dict[tuple[str, str], int]:
        """Return how updates ended so far."""
        return self.poller.snapshot().results

    def fetches(self) -> int:
        """Return how often a bundle was fetched."""
        return sum(call.startswith("fetch") for call in self.repository.calls)

    def update(self, version: int) -> None:
        """Assign a version and look."""
        self.repository.assign(door=("kws", version))
        self.look()
