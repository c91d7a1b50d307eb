"""A board with fakes all around, and an update poller in the middle."""

import asyncio
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from agent.core.flow import FilesSource
from agent.core.installed import Board
from agent.settings import PipelineSettings, Settings, UpdateSettings
from agent.trust.bundle import open_bundle
from agent.update import Supply, Surroundings, UpdatePoller
from agent.update.needs import Repository
from tests.fakes.bundles import good_bundle
from tests.fakes.memory_store import MemoryStore
from tests.fakes.scripted_repository import ScriptedRepository
from tests.fakes.scripted_trials import ScriptedTrials

BUNDLES = {("kws", version): good_bundle(version) for version in (1, 2, 3)}
NOW = 1_790_000_000.0
BOARD = Board("board-1", ("aarch64",), "0.1.0", 10**9, 10**9)


class Bench:
    """A board whose two pipelines, ``door`` and ``window``, may run ``kws``.

    Attributes:
        now: Its clock, Unix seconds.
    """

    def __init__(
        self,
        *,
        repository: bool = True,
        factories: Mapping[str, Callable[[], Repository]] | None = None,
        **update: object,
    ) -> None:
        self.repository = ScriptedRepository(BUNDLES)
        self.store = MemoryStore()
        self.trials = ScriptedTrials()
        self.board = BOARD
        self.now = NOW
        tables = [
            PipelineSettings(name=name, model="kws", source=FilesSource(path="x"))
            for name in ("door", "window")
        ]
        table = UpdateSettings(poll_s=100.0, groups=("lab", "all"))
        self.settings = Settings(
            pipeline=tuple(tables), update=replace(table, **update)
        )
        self.supply = Supply(
            self.repository if repository else None, dict(factories or {})
        )
        self.poller = self.start()

    def start(self) -> UpdatePoller:
        """Return a new poller on the same board, as after a restart."""
        self.poller = UpdatePoller(
            self.settings,
            self.supply,
            Surroundings(
                store=self.store,
                trials=self.trials,
                opener=open_bundle,
                board=lambda: self.board,
                clock=lambda: self.now,
                draw=lambda: 0.5,
            ),
        )
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
