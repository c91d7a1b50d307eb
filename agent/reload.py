"""Applies new settings to a daemon that runs, on SIGHUP.

The rules this module keeps:
 * Settings that cannot be used change nothing; the log and the status line name the
   key, and the old ones stay in force. Nor do those of a file that is being written:
   half of it may be good settings, with half of the pipelines.
 * A pipeline that does not differ is not disturbed. Of one that does, the worker ends
   its sample before it is replaced, and what was counted stays.
 * Where an update of a pipeline is under way whose ground the new settings would take
   away (the pipeline itself, or its model), that pipeline keeps its old settings until
   the update has ended, and is seen to then. A trial that lasts is ended instead: it
   may take hours, and comes again.
 * Each reload ends with READY, whatever came of it: no file ends a daemon that runs.
   What is on a disk is looked at in a thread, and not waited for longer than READ_S.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn, Protocol, TypeVar

from msgspec.structs import replace

from agent.committed import CommittedModels
from agent.core.reasons import Reason
from agent.core.update_machine import LONG
from agent.errors import DeviceError, SettingsError
from agent.facts import AgentFacts
from agent.lifeline import Lifeline
from agent.proofs import Proofs
from agent.repositories import Repositories
from agent.settings import (
    PipelineSettings,
    Settings,
    check_settings,
    parse_settings,
)
from agent.settings_diff import HEARD, ReloadPlan, plan_reload, settings_in_force
from agent.store import Store
from agent.supervise.pipeline import Pipeline
from agent.supervise.plumbing import check_pipes, check_sinks
from agent.telemetry.logs import change_level
from agent.update import UpdatePoller
from agent.update.threads import in_thread

log = logging.getLogger(__name__)
LOOK_S = 0.05  # between two looks at an update that is being ended
END_S = 10.0  # what a trial gets for its end: a swap back, and a child that is reaped
AGAIN_S = 1.0  # between two looks at an update that is waited for
READ_S = 10.0  # a card that stalls is back by then; a dead mount is not
SETTLE_S = 0.1  # a file that reads the same for so long is not being written
SETTLE_TRIES = 20  # then what is there counts, whatever it will be
NOTHING = Settings()  # what an empty file says; a full disk leaves such
RESTART = "needs systemctl restart tinyward"
IN_FORCE = "the old ones stay in force"
Read = Callable[[], bytes]
T = TypeVar("T")


class Build(Protocol):
    """Builds a pipeline by settings."""

    def __call__(self, table: PipelineSettings, settings: Settings) -> Pipeline:
        """Return it; it does not run yet."""


@dataclass(slots=True)
class Running:
    """The parts of a daemon that follow its settings.

    Attributes:
        pipelines: By name, in the settings' order; shared with everyone.
    """

    pipelines: dict[str, Pipeline]
    build: Build
    models: CommittedModels
    known: Repositories
    poller: UpdatePoller
    facts: AgentFacts
    store: Store
    proofs: Proofs


@dataclass(slots=True)
class Outcome:
    """What came of a reload, as it is told.

    Attributes:
        waits: Pipelines whose update has to end first.
        refused: Why nothing was applied; empty otherwise. ``reason`` is its word.
        error: What nobody had thought of, with its traceback.
    """

    plan: ReloadPlan = field(default_factory=ReloadPlan)
    waits: frozenset[str] = frozenset()
    refused: str = ""
    reason: Reason = Reason.SETTINGS
    error: Exception | None = None

    def note(self) -> str:
        """Return what stays to be said in the status line."""
        if self.refused:
            return f"settings refused, {IN_FORCE}: {self.refused}"
        keys = ", ".join(self.plan.restart)
        return f"{keys}: {RESTART}" if keys else ""


class Reload:
    """Follows a settings file when it is told to look at it.

    Args:
        settings: What is in force.
        read: Reads the settings file anew; None where nobody knows from where.
        running: What follows them.
        lifeline: Who is told.

    Attributes:
        settings: What is in force now.
        note: What stays to be said in the status line; empty where all is applied.
    """

    def __init__(
        self, settings: Settings, read: Read | None, running: Running, line: Lifeline
    ) -> None:
        self.settings = settings
        self.note = ""
        self._read = read
        self._running = running
        self._lifeline = line
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Look at the settings now; any number of times is once."""
        self._asked.set()

    async def run(self, group: asyncio.TaskGroup) -> NoReturn:
        """Look whenever it is asked for; new pipelines run in ``group``."""
        waits: Collection[str] = ()
        while True:
            await self._wait(waits)
            self._asked.clear()
            self._lifeline.reloading()
            outcome = await self._look(group)
            self._tell(outcome)
            waits, self.note = outcome.waits, outcome.note()
            self._lifeline.ready()

    async def _wait(self, pipelines: Collection[str]) -> None:
        """Wait until asked, or until no update of these pipelines is under way."""
        while not self._asked.is_set():
            pause_s = AGAIN_S if pipelines else None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), pause_s)
            if pipelines and self._under_way() not in pipelines:
                return

    async def _look(self, group: asyncio.TaskGroup) -> Outcome:
        """Read the settings, and apply what can be applied."""
        if self._read is None:
            return Outcome(refused="this daemon was started without a settings file")
        try:
            after = parse_settings(await _read_settled(self._read))
            if after == NOTHING != self.settings:
                return Outcome(refused="the file says nothing: was it cut short?")
            plan = self._plan(after)
            await _try_out(plan)
            waits = await self._make_way(plan)
            # From here to the first thing that is applied nothing is waited for:
            # another update would begin meanwhile.
            if waits:
                after = _put_off(self.settings, after, waits)
                plan = self._plan(after)
        except (SettingsError, DeviceError) as err:
            few = err.reason == Reason.DESCRIPTORS
            reason = Reason.DESCRIPTORS if few else Reason.SETTINGS
            return Outcome(refused=str(err), reason=reason)
        except Exception as err:  # noqa: BLE001 - told with its traceback by ``_tell``
            # A bug of ours, or of a parser's, must not cost the life of a daemon.
            what = f"{type(err).__name__}: {err}"
            return Outcome(refused=what, reason=Reason.INTERNAL, error=err)
        await self._apply(plan, settings_in_force(self.settings, after), group)
        return Outcome(plan, waits)

    def _plan(self, after: Settings) -> ReloadPlan:
        """Return what is to be done; nothing of it was done.

        Raises:
            SettingsError: Without a restart they contradict each other.
        """
        plan = plan_reload(self.settings, after)
        try:
            check_settings(settings_in_force(self.settings, after))
        except SettingsError as err:
            keys = ", ".join(plan.restart)
            what = f"{err} ({keys}: {RESTART})" if keys else str(err)
            raise SettingsError(what, reason=err.reason) from err
        return plan

    # --- updates under way

    def _under_way(self) -> str:
        """Return the pipeline whose update is under way, or nothing."""
        job = self._running.poller.intake.job
        return job.pipeline if job is not None else ""

    async def _make_way(self, plan: ReloadPlan) -> frozenset[str]:
        """End a trial that is in the way; return pipelines whose update has to end."""
        intake = self._running.poller.intake
        touched = {table.name for table, keys in plan.changed if keys & HEARD}
        moved = {table.name for table, keys in plan.changed if "model" in keys}
        moved.update(plan.removed)
        name = self._under_way()
        if name in touched | moved and intake.phase in LONG:
            # No fault of the model's: it is tried again as soon as somebody looks. But
            # nobody would repeat an operator's rollback, which is tried for a moment.
            if intake.job is not None and not intake.job.rollback:
                what = "the settings of its pipeline change"
                intake.abort(DeviceError(what, reason=Reason.SUPERSEDED))
            deadline_s = asyncio.get_running_loop().time() + END_S
            while self._under_way() == name:
                if asyncio.get_running_loop().time() > deadline_s:
                    break
                await asyncio.sleep(LOOK_S)
        return frozenset({self._under_way()} & moved)

    # --- applying

    async def _apply(
        self, plan: ReloadPlan, after: Settings, group: asyncio.TaskGroup
    ) -> None:
        """Let settings come into force."""
        if after == self.settings:
            return
        before, self.settings = self.settings, after
        running = self._running
        change_level(after.log_level)
        running.store.quota_bytes = int(after.update.quota_mb * 1_000_000)
        # First: nothing new is ordered for a pipeline that is about to end.
        running.known.follow(after)
        running.poller.follow(after)
        async with asyncio.TaskGroup() as ending:
            for name in plan.removed:
                ending.create_task(self._remove(name))
            for table, keys in plan.changed:
                ending.create_task(self._change(table, keys))
        for table in plan.added:
            pipeline = running.build(table, after)
            running.pipelines[table.name] = pipeline
            group.create_task(pipeline.run())
            running.models.begin(table.name)
        follow = (after.supervise, after.monitor, after.integrity)
        if (before.supervise, before.monitor, before.integrity) != follow:
            async with asyncio.TaskGroup() as following:
                for pipeline in running.pipelines.values():
                    following.create_task(pipeline.follow(*follow))
        self._put_in_order()
        running.facts.follow(after.monitor)
        running.proofs.follow(after)

    async def _remove(self, name: str) -> None:
        """End a pipeline after its sample; what it had committed stays on the disk."""
        await self._running.pipelines[name].stop()
        del self._running.pipelines[name]

    async def _change(self, table: PipelineSettings, keys: Collection[str]) -> None:
        """Let a pipeline go on with another table."""
        pipeline = self._running.pipelines[table.name]
        if HEARD & set(keys):
            await pipeline.change(table)
        pipeline.settings = table
        if "model" in keys:
            self._running.models.look_up(table.name)

    def _put_in_order(self) -> None:
        """Let pipelines stand in the order of the settings, as after a restart."""
        pipelines = self._running.pipelines
        for table in self.settings.pipeline:
            pipelines[table.name] = pipelines.pop(table.name)

    # --- telling

    def _tell(self, outcome: Outcome) -> None:
        """Say what came of it: one line, and one for each key that needs more."""
        if outcome.refused:
            facts = {"reason": outcome.reason, "detail": outcome.refused}
            said = {**facts, "now": IN_FORCE}
            log.warning("settings.refused", extra=said, exc_info=outcome.error)
            return
        for key in outcome.plan.restart:
            log.warning("settings.restart", extra={"key": key, "detail": RESTART})
        for name in outcome.waits:
            what = "an update is under way; the new settings follow it"
            log.info("settings.waits", extra={"pipeline": name, "detail": what})
        applied = outcome.plan.applied()
        if applied:
            log.info("settings.applied", extra={"keys": ",".join(applied)})
        elif not outcome.plan.restart and not outcome.waits:
            log.info("settings.unchanged")


async def _read_settled(read: Read) -> bytes:
    """Return what a file says once it stays the same.

    Raises:
        SettingsError: It cannot be read.
    """
    now = await _aside(read)
    for _ in range(SETTLE_TRIES):
        before = now
        await asyncio.sleep(SETTLE_S)
        now = await _aside(read)
        if now == before:
            break
    return now


async def _try_out(plan: ReloadPlan) -> None:
    """Look whether there is what the pipelines of a plan need.

    Raises:
        SettingsError: It cannot be found out.
        DeviceError: ``permission``: a sink's file cannot be opened; ``descriptors``.
    """
    changed = [table for table, keys in plan.changed if HEARD & keys]
    tables = (*plan.added, *changed)
    for table in tables:
        await _aside(partial(check_sinks, table))
    check_pipes(tables)


async def _aside(call: Callable[[], T], patience_s: float = READ_S) -> T:
    """Make a call that a dead mount never lets return.

    Raises:
        SettingsError: It took too long.
    """
    try:
        async with asyncio.timeout(patience_s):
            return await in_thread(call)
    except TimeoutError as err:
        what = f"no answer within {patience_s:g} s: is the disk still there?"
        raise SettingsError(what, reason=Reason.SETTINGS) from err


def _put_off(before: Settings, after: Settings, names: Collection[str]) -> Settings:
    """Return settings in which these pipelines stay what they were."""
    kept = {table.name: table for table in before.pipeline if table.name in names}
    tables = [kept.pop(table.name, table) for table in after.pipeline]
    return replace(after, pipeline=(*tables, *kept.values()))
