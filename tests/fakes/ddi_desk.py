"""A board that a DDI server orders about, without the server: orders are written down.

What the client would save is saved by the test; ``errands`` are what the client asks.
"""

import threading
from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from agent.core.ddi import Action
from agent.core.targets import SignedFile, Wanted
from agent.update import Supply, UpdatePoller
from agent.update.ddi_errands import BoardErrands
from agent.update.ddi_needs import Facts
from agent.update.ddi_state import DdiState
from tests.fakes.scripted_repository import Resumable, ScriptedRepository
from tests.fakes.update_bench import BUNDLES, Bench

Mode = Literal["skip", "attempt", "forced"]
PULSE_S = 0.005


class SlowRepository(ScriptedRepository):
    """A repository whose bundles stop after their first block, until they are let go.

    Attributes:
        slow: Whether they do.
        reached: Set once one has stopped there.
        released: Lets it, and all later ones, pass.
    """

    def __init__(self) -> None:
        super().__init__(BUNDLES)
        self.slow = False
        self.reached, self.released = threading.Event(), threading.Event()

    def fetch(
        self,
        target: SignedFile,
        write: Callable[[memoryview], None],
        max_bytes: int,
        resume: Resumable | None = None,
    ) -> int:
        """Deliver a block, then wait; ask now and then whether the rest is wanted."""

        def pass_on(content: memoryview) -> None:
            write(content)
            if self.slow:
                self.reached.set()
                while not self.released.wait(PULSE_S):
                    write(memoryview(b""))

        return super().fetch(target, pass_on, max_bytes, resume)


class DdiBench(Bench):
    """A bench under a DDI server's orders.

    Attributes:
        kept: What the client keeps; ``errands`` what it asks of the board.
        unfit: Why an update had better wait.
    """

    repository: SlowRepository

    def __init__(self, poll_s: float = 100.0) -> None:
        self.unfit = ""
        super().__init__(orchestrator="ddi", poll_s=poll_s)
        self.repository = SlowRepository()
        self.supply = Supply(self.repository, {}, self.slice)
        self.start()

    def start(self) -> UpdatePoller:
        """Return a new poller on the same board, and errands, as after a restart."""
        poller = super().start()
        self.kept = DdiState(self.store, self.settings.fleet.ddi.window)
        self.errands = BoardErrands(
            poller,
            self.store,
            lambda: self.board,
            lambda: self.unfit,
            lambda: {"board_model": "Pi 4"},
        )
        return poller

    def order(
        self,
        version: int,
        *,
        pipelines: tuple[str, ...] = ("door",),
        download: Mode = "forced",
        update: Mode = "forced",
        window_open: bool = True,
    ) -> int:
        """Save the next order and return its generation."""
        record = self.kept.load()
        generation = record.generation + 1
        action = Action(
            id=str(generation),
            generation=generation,
            pipelines={name: Wanted("kws", version) for name in pipelines},
            download=download,
            update=update,
            window_open=window_open,
        )
        self.kept.save(replace(record, generation=generation, open=action))
        return generation

    def change(self, **changes: object) -> None:
        """Save other terms of the order that is open."""
        record = self.kept.load()
        assert record.open is not None
        self.kept.save(replace(record, open=replace(record.open, **changes)))

    def take_back(self) -> None:
        """Save that nothing is open any more."""
        self.kept.save(replace(self.kept.load(), open=None))

    def facts(self) -> Facts:
        """Return what the client is told."""
        return self.errands.facts()

    def said(self, pipeline: str = "door") -> tuple[str, str]:
        """Return state and reason of what the client is told about a pipeline."""
        decisions = self.facts().decisions
        (found,) = [it for it in decisions if it.pipeline == pipeline]
        return found.state, found.reason

    def endings(self) -> list[tuple[int, int, str, str]]:
        """Return generation, version, result and reason of reports, newest first."""
        return [
            (it.generation, it.version, it.result, it.reason)
            for it in self.store.reports()
        ]
