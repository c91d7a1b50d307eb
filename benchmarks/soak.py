"""``soak``: minutes or hours under full load, with updates and faults all the time.

Two pipelines of the real daemon answer; every so often one of them gets a new version,
and something bad happens: its worker is killed or stopped, the repository vanishes,
scrapers do not read, the settings are read again. Looks at it, once a second, become
rows and a plot; a Ctrl-C ends it early and reports what was seen so far.
"""

import asyncio
import contextlib
import http.client
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGSTOP, Signals

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from agent.core.manifest import TrialRules
from benchmarks.rows import Row
from benchmarks.soak_board import FULL, PIPELINES, SoakBoard, soak_board
from benchmarks.soak_looks import MB, Look, Mark
from benchmarks.soak_plot import render_plot
from benchmarks.soak_rows import soak_rows

FAULTS = ("kill", "gone", "slow", "stop", "reload")
SCRAPERS = 4
ANSWERS_S = 60.0  # until a worker that was hit must have been replaced
POLL_S = 0.02
SETTLE_S = 60.0
RULES = TrialRules(shadow_samples=100, probation_s=2.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard.

    Attributes:
        seconds: Of the whole soak; ``warm_up_s`` until its memory is followed.
        update_s, fault_s: Between two of them. They share no divisor, so that faults
            hit updates in all of their phases.
        away_s: How long a repository is gone and a scraper slow.
        look_s: Between two looks.
        rules: What a candidate goes through.
    """

    seconds: float
    update_s: float = 20.0
    fault_s: float = 27.0
    away_s: float = 8.0
    look_s: float = 1.0
    rules: TrialRules = RULES

    @property
    def warm_up_s(self) -> float:
        """A third, at most ten minutes: totals keep eight versions of a pipeline."""
        return min(self.seconds / 3, 600.0)


@dataclass(slots=True)
class Diary:
    """What was done, what was seen, and how long replacements took."""

    looks: list[Look] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    replaced_s: dict[str, list[float]] = field(default_factory=dict)
    missed: int = 0  # looks without an answer
    died: bool = False  # the daemon did


class Soak:
    """One soak of one board."""

    def __init__(self, board: SoakBoard, plan: Plan) -> None:
        self._board = board
        self._plan = plan
        self._began_s = time.monotonic()
        # Held by whoever needs the repository where it is, or takes it away.
        self._repository = asyncio.Lock()
        self._over = asyncio.Event()
        self.diary = Diary()

    def now_s(self) -> float:
        """Return the seconds since the soak began."""
        return time.monotonic() - self._began_s

    async def run(self, advance: Callable[[Look], None]) -> None:
        """Do everything until the time is over, then let the board settle."""
        plan, board = self._plan, self._board
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._looks(advance))
            acts = {
                group.create_task(self._every(plan.update_s, self._update)),
                group.create_task(self._every(plan.fault_s, self._fault)),
            }
            while self.now_s() < plan.seconds and board.lives():
                await asyncio.sleep(min(plan.look_s, 1.0))
            # What has begun is ended: a repository comes back, a worker is replaced.
            self._over.set()
            await asyncio.wait(acts)
            await self._settle()
            looking.cancel()
        await self._look()

    async def _looks(self, advance: Callable[[Look], None]) -> None:
        """Look again and again."""
        for number in itertools.count(1):
            await self._look()
            if self.diary.looks:
                advance(self.diary.looks[-1])
            await asyncio.sleep(max(0.0, number * self._plan.look_s - self.now_s()))

    async def _every(self, period_s: float, act: Callable[[], Awaitable[None]]) -> None:
        """Act again and again, by the clock, until the soak is over."""
        for number in itertools.count(1):
            pause_s = max(0.0, number * period_s - self.now_s())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), pause_s)
            if self._over.is_set():
                return
            await act()

    async def _settle(self) -> None:
        """Wait until updates have ended and workers answer."""
        deadline = time.monotonic() + SETTLE_S
        while self._board.lives() and not await asyncio.to_thread(self._board.settled):
            if time.monotonic() > deadline:
                return  # the last look tells
            await asyncio.sleep(0.2)

    # --- what happens

    async def _look(self) -> None:
        """Look once; a board that does not answer is noted, and looked at again."""
        try:
            look = await asyncio.to_thread(self._board.look, self.now_s())
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            self.diary.missed += 1
        else:
            self.diary.looks.append(look)

    async def _update(self) -> None:
        """Publish the next version for one pipeline, in turn."""
        offered = sum(mark.kind == "update" for mark in self.diary.marks)
        pipeline = PIPELINES[offered % len(PIPELINES)]
        async with self._repository:
            version = await asyncio.to_thread(self._board.publish, pipeline)
        self.diary.marks.append(Mark(self.now_s(), "update", pipeline, version))

    async def _fault(self) -> None:
        """Let the next thing happen that boards have to live with."""
        faults = [mark for mark in self.diary.marks if mark.kind != "update"]
        kind = FAULTS[len(faults) % len(FAULTS)]
        hit = FULL if kind in ("kill", "stop") else ""
        self.diary.marks.append(Mark(self.now_s(), kind, hit))
        match kind:
            case "kill":
                await self._hit("kill", SIGKILL)
            case "stop":
                await self._hit("stop", SIGSTOP)
            case "gone":
                await self._gone()
            case "slow":
                with self._board.slow_scrapers(SCRAPERS):
                    await asyncio.sleep(self._plan.away_s)
            case _:
                self._board.reload()

    async def _gone(self) -> None:
        """Take the repository away for a while; a Ctrl-C brings it back, too."""
        async with self._repository:
            self._board.hide_repository()
            try:
                await asyncio.sleep(self._plan.away_s)
            finally:
                self._board.bring_repository()

    async def _hit(self, kind: str, number: Signals) -> None:
        """Hit a worker; note how long it took until another one answered."""
        deadline = time.monotonic() + ANSWERS_S
        hit = await asyncio.to_thread(self._board.hit_worker, number)
        while not hit and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
            hit = await asyncio.to_thread(self._board.hit_worker, number)
        began = time.monotonic()
        while await asyncio.to_thread(self._board.worker) in (0, hit):
            if time.monotonic() > deadline:
                return  # the rows say that it was not replaced
            await asyncio.sleep(POLL_S)
        self.diary.replaced_s.setdefault(kind, []).append(time.monotonic() - began)


def run(plan: Plan, plot: Path | None, console: Console) -> list[Row]:
    """Soak; return the rows, and write the plot.

    Raises:
        TimeoutError: The board did not answer in the beginning.
    """
    diary = asyncio.run(_soak(plan, console))
    if plot is not None:
        svg = render_plot(diary.looks, diary.marks, PIPELINES)
        plot.write_text(svg, encoding="utf-8")
    rows = soak_rows(
        diary.looks, diary.marks, diary.replaced_s, diary.missed, plan.warm_up_s
    )
    return [*rows, Row("soak", "the daemon died", int(diary.died), "", 0)]


async def _soak(plan: Plan, console: Console) -> Diary:
    """Soak, with a bar on a terminal; a Ctrl-C ends it early."""
    columns = (TextColumn("soak"), BarColumn(), TimeRemainingColumn())
    words = TextColumn("{task.description}")
    shown = Progress(*columns, words, console=console, disable=not console.is_terminal)
    with soak_board(plan.rules) as board, shown as progress:
        soak = Soak(board, plan)
        bar = progress.add_task("", total=plan.seconds)

        def advance(look: Look) -> None:
            progress.update(bar, completed=look.at_s, description=describe(look))

        try:
            await soak.run(advance)
        except asyncio.CancelledError:
            console.print("ended early: this is what was seen so far")
        if not board.lives():
            soak.diary.died = True
            console.print(f"the daemon died:\n{board.last_words()}")
        return soak.diary


def describe(look: Look) -> str:
    """Say in a few words how it goes."""
    daemon = look.usage["daemon"]
    return (
        f"{look.ended:,} samples, {look.lost} lost, "
        f"daemon {daemon.rss_bytes / MB:.1f} MB and {daemon.descriptors} fds, "
        f"versions {' and '.join(map(str, look.versions.values()))}, "
        f"{sum(look.restarts.values())} restarts"
    )
