"""The task that looks at repositories and takes in what they ask for.

The rules this module keeps:
 * One look: refresh, set aside what was revoked, plan, consider one order after the
   other; the plan is made anew before each. Where all runs as wanted, that is all.
 * The next look comes after ``poll_s``, when a plan says that its time has come, or
   when someone pokes; after failures later. A flood of pokes is one look a second,
   during a trial as well.
 * Looks go on while a trial lasts; what was revoked or replaced meanwhile ends it. An
   uploaded slice is looked at again after it: its bytes may be the ones on trial.
 * What is said on this board (a push, a DDI server's order) is heard at once: a job
   that it leaves no purpose ends, whatever it is doing, the download included.
 * What may be fetched and not yet tried comes last in a look, within the pause after
   it, and gives way to whoever pokes: no slow download keeps a look waiting.
 * The factory slice is asked only for a pipeline without any model.
"""

import asyncio
import logging
from contextlib import suppress
from typing import NoReturn

from agent.core.desired import Order, Plan
from agent.core.snapshot import UpdateSnapshot
from agent.core.update_machine import LONG
from agent.errors import AgentError, DeviceError
from agent.settings import Settings
from agent.update.factories import Factories
from agent.update.fallen import Fallen
from agent.update.intake import EXPECTED, Intake, Origin
from agent.update.needs import Supply, Surroundings
from agent.update.pace import Pace
from agent.update.planning import Planning
from agent.update.prefetch import Prefetching
from agent.update.renewals import Renewals
from agent.update.shown import show_updates
from agent.update.sources import Sources
from agent.update.turn import Turn
from agent.update.wishes import Wishes

log = logging.getLogger(__name__)

MEGABYTE = 1_000_000
BOARD = "board"  # the subject of troubles that are this board's own
FLOOD_GAP_S = 1.0  # between two looks that were asked for


class UpdatePoller:
    """Follows the desired state of a fleet.

    Attributes:
        intake: Carries orders out; ``sources`` say what is wanted.
        wishes: What operators ask for.
        early: Fetches what may not be tried yet.
        models: Pipeline -> the model that the settings want in it.
    """

    def __init__(
        self, settings: Settings, supply: Supply, surroundings: Surroundings
    ) -> None:
        table = settings.update
        self._orchestrator = table.orchestrator
        self._around = surroundings
        self.models = {table.name: table.model for table in settings.pipeline}
        limit = int(table.max_bundle_mb * MEGABYTE)
        self.intake = Intake(self.models, limit, surroundings)
        ledger = self._ledger = self.intake.ledger
        ddi = None
        if table.orchestrator == "ddi":
            from agent.update.ddi_state import DdiState

            ddi = DdiState(surroundings.store, settings.fleet.ddi.window)
        self.sources = Sources(table, supply, surroundings, ledger, ddi)
        self._planning = Planning(self.models, self.sources, surroundings, ledger)
        self.early = Prefetching(self.intake, surroundings, ddi)
        self._turn = Turn()
        self.wishes = Wishes(self._turn, self.intake, self._after_rollback)
        self._factories = Factories(supply, table, surroundings, self.sources, ledger)
        self._fallen = Fallen(self.models, surroundings)
        self._renewals = Renewals(surroundings)
        self._pace = Pace(table.poll_s, surroundings.draw)
        self._stir = asyncio.Event()
        self._poked = False
        self._rung = False  # a slice may have been uploaded since the last look at it
        # A pushed state may follow its slice: until then nothing of it seems wanted.
        self._slice_explained = table.orchestrator == "tuf"
        self._next_look = 0.0
        self._recovered = False

    @property
    def plan(self) -> Plan:
        """What was decided last."""
        return self._planning.plan

    async def recover(self) -> None:
        """Tidy up after the last life; call it before the first worker starts.

        What is active may change here: a COMMIT that power loss interrupted is done,
        and what was revoked falls back.

        Raises:
            DeviceError: The store cannot be read.
        """
        if not self._recovered:
            await self.intake.recover()
            try:
                await self.sources.recall()
                self._set_revoked_aside()
            except DeviceError as err:  # a full disk keeps no board from starting
                self._ledger.count_trouble(BOARD, err)
            self._fallen.forget()  # nothing runs yet that had to be told
            self._recovered = True

    async def run(self) -> NoReturn:
        """Look, wait, look again; ends by cancellation only.

        Raises:
            DeviceError: Nobody called ``recover``, and the store cannot be read.
            ExceptionGroup: A bug.
        """
        await self.recover()
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.wishes.fulfil())
            while True:
                began = loop.time()
                pause_s = await self.look()
                await self._rest(pause_s)
                if self._poked:
                    await asyncio.sleep(began + self._gap_s - loop.time())
                    self._poked = False
                    self._ledger.memory.hurry()

    def follow(self, settings: Settings) -> None:
        """Go on with other settings, of pipelines and of ``[update]``; look at once.

        Who writes the desired state, and where it is, stays what it was.
        """
        table = settings.update
        self._pace.poll_s = table.poll_s
        self._factories.settings = table
        self.models.clear()
        self.models.update({it.name: it.model for it in settings.pipeline})
        self.intake.limit(int(table.max_bundle_mb * MEGABYTE))
        self.sources.follow(table)
        self.poke()

    def poke(self, *, inbox: bool = False, explained: bool = False) -> None:
        """Look now: someone says that something changed.

        Args:
            inbox: A slice may have been uploaded.
            explained: And what is wanted of it is known by now.
        """
        if inbox:
            self.sources.announce_slice()
        self._rung |= inbox
        self._slice_explained |= explained
        self._poked = True
        self.early.stop()  # it is resumed after what was asked for
        self._next_look = 0.0  # none is ahead but the one asked for: see ``_rest``
        self._stir.set()

    def hear(self) -> None:
        """Something else may be wanted, as was said on this board: look at it now.

        What that leaves no purpose is ended.
        """
        try:
            self.decide()
        except EXPECTED as err:
            self._ledger.count_trouble(BOARD, err)
        else:
            self._end_if_overtaken()
        self.poke()

    def decide(self) -> None:
        """Plan with what is said on this board as of now.

        Raises:
            DeviceError: The store cannot be read.
        """
        self.sources.hear()
        self._planning.decide()

    async def withdraw(self, source: str, generation: int) -> None:
        """End what is under way of an order, and return when it has ended.

        Nothing of it begins again.
        """
        await self.intake.withdraw(source, generation)
        early = self.early.order
        if early and (early.source, early.generation) == (source, generation):
            await self.early.stopped()

    def snapshot(self) -> UpdateSnapshot:
        """Return the counters and the phase as they are now."""
        now, ahead = self._around.clock(), self._next_look
        return show_updates(self.intake, self.sources, self.plan, now, ahead)

    async def look(self) -> float:
        """Look once at everything and return the seconds until the next look."""
        self._next_look = 0.0
        try:
            await self._look_at_factories()
            worked = await self._refresh()
            await self._renewals.look(self.sources.believed)
            await self._look_at_factories()  # for what was revoked just now
            await self._carry_out_plan()
            await self._close_slice()
            self._poked |= self._rung  # heard during a trial, and not yet looked at
            pause_s = self._pause(worked=worked)
            left_s = await self.early.fetch(self._early, pause_s)
        except EXPECTED as err:
            self._poked |= self._rung
            self._ledger.count_trouble(BOARD, err)
            return self._pause(worked=False)
        self._ledger.memory.forget(BOARD)
        return left_s

    async def _refresh(self, *, inbox: bool = True) -> bool:
        """Look at what is wanted, and what is revoked; return whether that worked."""
        self._rung &= not inbox
        worked = await self.sources.refresh(inbox=inbox)
        try:
            self._set_revoked_aside()
        finally:
            self._fallen.tell(self.intake.job)
        return worked

    def _set_revoked_aside(self) -> None:
        """Let no revoked model be admitted, or go on answering."""
        self.intake.revoked = self.sources.revoked
        if self._fallen.set_revoked_aside(self.sources.revoked):
            self._ledger.count_set_aside()

    @property
    def _gap_s(self) -> float:
        """Seconds between two looks that were asked for."""
        return min(FLOOD_GAP_S, self._pace.poll_s)

    def _after_rollback(self, pipeline: str, committed: bool) -> None:  # noqa: FBT001 - what a wish tells
        """See to what was revoked meanwhile, and plan again: what was left is held."""
        if committed:
            self._fallen.forget({pipeline})
        try:
            self._set_revoked_aside()
        finally:
            self._fallen.tell()
        if self.plan.decisions:  # before the first look nobody knows what is wanted
            self._planning.decide()

    async def _look_at_factories(self) -> None:
        """Import the factory model of every pipeline that has none at all."""
        for name in self._factories.lacking():
            origin, orders = await self._factories.ask(name)
            for order in orders:
                async with self._turn:
                    await self._carry_out(origin, order)

    async def _carry_out_plan(self) -> None:
        """Take the orders of a plan, each once, with a new plan after each."""
        considered: set[Order] = set()
        while True:
            if self._rung:
                await self._refresh()
            async with self._turn:
                self._planning.decide()
                ahead = [it for it in self.plan.orders if it not in considered]
                if not ahead or not self.sources.believed:
                    return
                considered.add(ahead[0])
                await self._carry_out(Origin(self.sources.believed), ahead[0])

    async def _carry_out(self, origin: Origin, order: Order) -> None:
        """Carry out one order, and look on while its trial lasts.

        Raises:
            BundleRefusedError: Somewhere else than in the order.
            DeviceError: Likewise.
        """
        failed: AgentError | None = None
        committed = False
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_on(ended))
            try:
                committed = await self.intake.consider(origin, order)
            except EXPECTED as err:
                failed = err
            finally:
                ended.set()
                self._stir.set()
        if committed:
            self._slice_explained = True
            self._fallen.forget({order.pipeline})
        self._fallen.tell()
        if failed is not None:
            raise failed

    async def _look_on(self, ended: asyncio.Event) -> None:
        """Look at what is wanted, now and then, until a job has ended."""
        loop = asyncio.get_running_loop()
        pause_s, began = self._pace.poll_s, loop.time() - self._gap_s
        while not ended.is_set():
            lasts = self.intake.phase in LONG
            if not (lasts and self._poked):
                # Whoever pokes while the trial has not begun is heard after the job.
                await self._sleep(pause_s)
            if self._poked and self.intake.phase in LONG:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(began + self._gap_s):
                        await ended.wait()
            if not ended.is_set() and self.intake.phase in LONG:
                self._poked, began = False, loop.time()
                pause_s = self._pause(worked=await self._look_at_trial())

    async def _look_at_trial(self) -> bool:
        """Refresh, and end the trial under way if it has lost its purpose."""
        try:
            worked = await self._refresh(inbox=False)
            self._planning.decide()
        except EXPECTED as err:
            self._ledger.count_trouble(BOARD, err)
            return False
        self._end_if_overtaken()
        return worked

    def _early(self) -> list[tuple[Origin, Order]]:
        """Return what may be fetched now though it may not be tried, and from where.

        Whoever poked comes first.
        """
        believed = self.sources.believed
        ahead = self._planning.early() if believed and not self._poked else ()
        return [(Origin(believed), order) for order in ahead]

    def _end_if_overtaken(self) -> None:
        """End the job under way if it has lost its purpose."""
        error = self._planning.against(self.intake.job)
        if error is not None:
            self.intake.abort(error)

    async def _close_slice(self) -> None:
        """Remove the uploaded slice once nothing of it waits any more."""
        waits = any(it.state in {"ordered", "waits"} for it in self.plan.decisions)
        waits = waits or self._rung or not self._slice_explained
        if self.sources.has_slice() and not waits:
            await self.sources.close_slice()
            self._slice_explained = self._orchestrator == "tuf"

    def _pause(self, *, worked: bool) -> float:
        """Return the seconds until the next look."""
        wake = self.plan.wake
        return self._pace.after(
            failed=not worked,
            asked_s=self.sources.retry_after,
            due_s=wake - self.sources.now() if wake else None,
        )

    async def _rest(self, pause_s: float) -> None:
        """Wait for the next look; none is announced while one that was asked for waits.

        Who asked during a look would take its end for that of the look asked for.
        """
        if not self._poked:
            self._next_look = self._around.clock() + pause_s
            await self._sleep(pause_s)

    async def _sleep(self, pause_s: float) -> None:
        """Wait, until someone pokes or a job has ended."""
        self._stir = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stir.wait()
