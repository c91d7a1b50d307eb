"""A board of a simulated fleet: the real client and update code, and no interpreter.

The rules this module keeps:
 * Real are python-tuf and everything around it, TLS, the downloads, the plan, the
   machine, its pauses and its memory of refusals. In memory is the store, scripted are
   the trials: they take a minute of simulated time and then say what was written.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.core.executors import Executor
from agent.core.flow import FilesSource
from agent.core.installed import Board, Installed
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.trial_verdict import Chosen
from agent.errors import TrialFailedError
from agent.settings import PipelineSettings, Settings, UpdateSettings
from agent.trust.bundle import open_bundle
from agent.trust.client import TrustedRepository
from agent.trust.transport import Transport
from agent.update import Supply, Surroundings, UpdatePoller
from tests.fakes.memory_store import MemoryStore

PIPELINE, MODEL, GROUP = "door", "kws", "all"
SHADOW_S, PROBATION_S = 30.0, 30.0  # a minute of trial in all
# Pauses between retries *within* one download are real ones (time.sleep in a thread,
# half a second and more), and boards take turns here: 1/500 of what boards wait.
PAUSE_S = 0.001
EXECUTOR = Executor("litert", "xnnpack", 1, "2.3.0")


class _SharedObjects(dict[str, bytes]):
    """Objects of one store; equal ones of all boards are one object in memory."""

    def __init__(self, pool: dict[str, bytes]) -> None:
        super().__init__()
        self._pool = pool

    def __setitem__(self, name: str, content: bytes) -> None:
        super().__setitem__(name, self._pool.setdefault(name, content))


class FleetTrials:
    """Implements ``agent.update.needs.Trials``.

    Attributes:
        bad: Versions that fail while they answer; shared by all boards.
        tried: Versions that a trial began of, in order.
    """

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.tried: list[int] = []

    async def examine(self, pipeline: str, bundle: OpenedBundle) -> Chosen:
        """Choose the first variant."""
        del pipeline
        self.tried.append(bundle.manifest.version)
        return Chosen(bundle.manifest.variants[0].name, EXECUTOR)

    async def shadow(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Shadow for a while."""
        del pipeline, bundle, installed
        await asyncio.sleep(SHADOW_S)

    async def swap_in(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Let the candidate answer."""

    async def watch(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Watch for a while, and fail what is bad.

        Raises:
            TrialFailedError: ``drift``: it is one of ``bad``.
        """
        del pipeline, bundle
        await asyncio.sleep(PROBATION_S)
        if installed.version in self.bad:
            raise TrialFailedError("a bad version", reason=Reason.DRIFT)

    async def swap_back(self, pipeline: str) -> None:
        """Let the active model answer."""

    async def commit(self, pipeline: str, installed: Installed) -> None:
        """Take note."""


class _CountingRepository(TrustedRepository):
    """The real one, which notes when it was asked to look."""

    looks: list[float]

    def refresh(self, now: float) -> bool:
        """Look."""
        self.looks.append(now)
        return super().refresh(now)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all boards of a fleet share.

    Attributes:
        here: Each board caches metadata in a folder below; ``root`` is what it trusts.
        ca: The CA that may vouch for the server.
        clock: Simulated Unix seconds.
        poll_s: Between two looks.
        bad: Versions that fail their trials.
        pool: Bundles by digest.
        looks: Unix seconds of every look of every board, failed ones included.
    """

    here: Path
    root: bytes
    ca: str
    clock: Callable[[], float]
    poll_s: float
    bad: set[int]
    pool: dict[str, bytes]
    looks: list[float]


class FleetBoard:
    """One board.

    Attributes:
        id: Its name, which decides in which wave it is.
        poller: As the daemon would build it.
    """

    def __init__(self, number: int, port: int, shared: Shared) -> None:
        self.id = f"board-{number:05}"
        # Random keys would do; seeded ones make a run that can be repeated.
        self._draw = random.Random(number).random  # noqa: S311 - jitter, no secret
        self.store = MemoryStore()
        self.store.objects = _SharedObjects(shared.pool)
        self.store.clock = shared.clock
        self.trials = FleetTrials(shared.bad)
        self._poll_s = shared.poll_s
        table = UpdateSettings(poll_s=shared.poll_s, groups=(GROUP,))
        tables = PipelineSettings(
            name=PIPELINE, model=MODEL, source=FilesSource(path="x")
        )
        repository = _CountingRepository(
            metadata_dir=shared.here / "boards" / self.id,
            repository=f"https://127.0.0.1:{port}",
            root=shared.root,
            notes=self.store,
            build_time=0.0,
            transport=Transport(ca=shared.ca, pause_s=PAUSE_S),
        )
        repository.looks = shared.looks
        board = Board(self.id, ("aarch64",), "0.1.0", 10**10, 10**10)
        around = Surroundings(
            store=self.store,
            trials=self.trials,
            opener=open_bundle,
            board=lambda: board,
            clock=shared.clock,
            draw=self._draw,
        )
        settings = Settings(pipeline=(tables,), update=table)
        self.poller = UpdatePoller(settings, Supply(repository), around)

    @property
    def version(self) -> int:
        """The version that answers, 0 for none."""
        active = self.store.slots(PIPELINE).active
        return active.version if active is not None else 0

    @property
    def fetched_bytes(self) -> int:
        """Of bundles, since the board was made; those that led to no trial as well."""
        kinds = self.poller.snapshot().bytes
        return kinds["full"] + kinds["delta"]

    def touched(self, version: int, fetched_bytes: int) -> bool:
        """Return whether it tried a version, or fetched more than so many bytes."""
        return version in self.trials.tried or self.fetched_bytes > fetched_bytes

    @property
    def last_look(self) -> float:
        """Unix seconds of the last look that verified something."""
        return self.poller.sources.last_look

    async def live(self) -> None:
        """Be switched on some time within the first poll period, and go on for ever."""
        await asyncio.sleep(self._poll_s * self._draw())
        await self.poller.run()
