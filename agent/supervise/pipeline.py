"""One pipeline's supervisor: its worker lives, is watched, swapped and replaced.

The rules this module keeps:
 * What was committed is what a new worker loads; a candidate that was not committed
   is forgotten when its worker dies: that is the rollback.
 * Nothing is lost: the block of a dead worker is folded before the next one starts.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from agent.core.degradation import Measure, SafeOutput
from agent.core.executors import DelegateFile
from agent.core.messages import Commission
from agent.core.protect_settings import IntegritySettings
from agent.core.reasons import Reason
from agent.core.snapshot import PipelineSnapshot
from agent.errors import AgentError, DeviceError
from agent.settings import MonitorSettings, PipelineSettings, SuperviseSettings
from agent.supervise.child import PROGRAM
from agent.supervise.deaths import Death, Deaths
from agent.supervise.integrity import OFF, Integrity
from agent.supervise.life import configure, live
from agent.supervise.listening import Listening, Tapped
from agent.supervise.placing import Placed, Placing
from agent.supervise.plumbing import Plumbing
from agent.supervise.receipts import Receipting, Receipts
from agent.supervise.sight import Sight
from agent.supervise.tenancy import Tenancy
from agent.supervise.totals import BlockReader, Totals
from agent.supervise.watch import Watch
from agent.supervise.watching import Monitoring, Watching
from agent.supervise.worker_process import WorkerProcess

log = logging.getLogger(__name__)
# Together with ``drain_s`` below the 5 s that the daemon promises for its end.
FLUSH_S = 1.0  # what sinks get for lines that are still in their pipes
REAP_S = 0.5  # what it takes until a worker that was killed is gone


class Pipeline:
    """Supervises one pipeline.

    Args:
        settings: The pipeline's table; what its worker begins with is exchanged by
            ``change`` alone. ``rules`` are the limits of all workers.
        delegates: Libraries a worker may load.
        read_board: The board's readings, for the ``board`` source.
        crash_loop: Called when a model has killed its worker too often; returns what
            to run from now on, which is the same model if there is no other.
        monitoring: How models are watched; without it baselines are not kept.
        receipting: How each inference gets its receipt; without it none does.
        program: What is started as a worker; only tests start anything else.
    """

    def __init__(  # noqa: PLR0913 - what it runs, what it may do, who is told
        self,
        settings: PipelineSettings,
        rules: SuperviseSettings,
        *,
        delegates: Sequence[DelegateFile],
        read_board: Callable[[], Sequence[float]],
        crash_loop: Callable[[str, str], Awaitable[Placed | None]],
        monitoring: Monitoring | None = None,
        receipting: Receipting | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.settings = settings
        self._rules = rules
        self._program = program
        self._crash_loop = crash_loop
        libraries = [Path(delegate.path) for delegate in delegates]
        self._plumbing = Plumbing(settings, read_board, self._new_source, libraries)
        self._totals = Totals()
        name, how = settings.name, monitoring or Monitoring()
        watching = self._watching = Watching(name, how)
        self._placing = Placing(name, self._totals, rules.start_s, watching.order)
        self._listening = Listening(self._placing, rules.start_s)
        deaths = self._deaths = Deaths(rules)
        self._integrity = Integrity(name, how.integrity or OFF)
        self._placing.order_checks = self._integrity.order
        self._tenancy = Tenancy(self._placing, deaths, rules.drain_s, watching)
        self._receipts = Receipts(name, receipting)
        parts = (self._totals, self._placing, deaths, self._plumbing, self._tenancy)
        self._sight = Sight(*parts, self._receipts, self._integrity)
        self._worker: WorkerProcess | None = None
        self._block: BlockReader | None = None  # outlives its worker until it is folded
        self._up = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._stirred = asyncio.Event()  # asked to stop, or to change
        self._wanted: PipelineSettings | None = None  # from the next worker on
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self.engines: dict[str, str] = {}

    # --- life

    async def run(self) -> None:
        """Keep a worker alive until ``stop``."""
        try:
            async with asyncio.TaskGroup() as group:
                self._plumbing.start(group)
                keeping = group.create_task(self._watching.run())
                while not self._stop_asked.is_set():
                    await self._take_change(group)
                    death = await self._one_life()
                    if not self._stop_asked.is_set():
                        await self._after_death(death)
                await self._plumbing.finish(FLUSH_S)
                keeping.cancel()
        finally:
            self._plumbing.let_go()
            self._ended.set()
            self._changed.set()

    async def stop(self) -> None:
        """Let the worker end its sample and the sinks take it; then ``run`` ends."""
        self._stop_asked.set()
        self._stirred.set()
        if (worker := self._worker) is not None:
            await worker.stop(self._rules.drain_s)
            worker.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), FLUSH_S + REAP_S)

    async def change(self, settings: PipelineSettings) -> None:
        """Go on with other settings of the same name; what was counted stays.

        The worker ends its sample, the sinks take what is left, and the next worker
        has the new source and sinks. Return when it may start.

        Raises:
            ExceptionGroup: By ``run``: a sink's file cannot be opened.
        """
        self._wanted = settings
        self._changed.clear()
        self._stirred.set()
        if self._worker is not None:
            await self._tenancy.drain(self._worker)
        await self._changed.wait()

    async def follow(
        self,
        rules: SuperviseSettings,
        monitor: MonitorSettings,
        checks: IntegritySettings | None = None,
    ) -> None:
        """Go on with other limits; how models are watched is told to the worker."""
        self._rules = self._deaths.rules = rules
        self._placing.deadline_s = self._listening.deadline_s = rules.start_s
        self._tenancy.drain_s = rules.drain_s
        before, self._watching.settings = self._watching.settings, monitor
        if self._integrity.follow(checks) or monitor != before:
            await self._tenancy.renew()

    async def _take_change(self, group: asyncio.TaskGroup) -> None:
        """Between two workers: take other settings, if there are any."""
        if (settings := self._wanted) is None:
            return
        self._wanted = None
        self._stirred.clear()
        await self._plumbing.change(settings, group, FLUSH_S)
        self.settings = settings
        self._deaths.forgive()
        self._deaths.last = Reason.NONE  # the next worker starts, and that is all
        self._changed.set()

    async def _one_life(self) -> Death:
        """Start a worker, live with it, fold what it counted; return how it ended."""
        self._sight.has_answered = False
        self._deaths.began()
        try:
            worker = await WorkerProcess.start(
                self.settings.name, self._plumbing.readable, program=self._program
            )
        except OSError as err:
            log.warning("worker.no_start", extra={"detail": str(err)})
            return Death(Reason.OOM)
        self._worker, self._block, hung = worker, worker.block, False
        self._tenancy.unwanted = self._stirred.is_set()
        worker.on_watched = self._integrity.hear(worker, self._watching.take)
        self._placing.tried = None
        if self._tenancy.unwanted:
            worker.kill()  # it was asked while the process was being made
        try:
            async with asyncio.timeout(self._rules.start_s):
                await worker.ready()
            hung = await self._live(worker)
        except TimeoutError:
            hung = True
        except AgentError as err:
            log.warning("worker.failed", extra={"detail": str(err)})
        finally:
            self._up.clear()
            self._worker = None
            self._placing.vacate()
            code = await worker.close()
            death = self._deaths.judge(
                code,
                hung=hung,
                source=worker.left_for,
                unwanted=self._tenancy.unwanted,
                blamed=self._placing.tried is self._tenancy.committed is not None,
            )
            self._fold_dead(worker, death.reason)
        return death

    async def _live(self, worker: WorkerProcess) -> bool:
        """Configure the worker and watch it until it ends; True if it hung."""
        self.engines = worker.engines
        flow, receipts = self.settings, self._receipts
        await configure(worker, flow, self._totals.next_seq, self._plumbing, receipts)
        self._up.set()
        await self._plumbing.announce()  # a program may have begun anew meanwhile
        has_model, held = self._placing.has_model, receipts.is_closed
        watch = Watch(worker, flow, self._plumbing, has_model, held)
        keep, drain = self._tenancy.keep(worker), receipts.run(worker.kill)
        await live(worker, watch.run(), keep, drain)
        return watch.hung

    def _fold_dead(self, worker: WorkerProcess, reason: Reason) -> None:
        """Keep what the worker counted and wrote; the next one counts on."""
        self._receipts.finish()
        block, self._block = worker.block.read_final(), None
        if block is not None:
            self._totals.fold_dead(block, reason)
            self._plumbing.fold_dropped(block)
        worker.block.close()

    async def _after_death(self, death: Death) -> None:
        """Count the death, ask for another model after too many, wait a little."""
        name, reason = self.settings.name, death.reason
        pause_s, too_many = self._deaths.note(death)
        said = {"pipeline": name, "reason": reason, "pause_s": pause_s}
        log.warning("worker.died", extra=said)
        self._plumbing.worker_died()
        self._tenancy.blame_stand_in(reason)
        if self._integrity.ended() or too_many:
            instead = await self._crash_loop(name, reason)
            self._tenancy.commit(instead, Reason.CRASH_LOOP)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stirred.wait(), pause_s)

    # --- trials

    def start_with(self, placed: Placed) -> None:
        """Run what the store says is committed."""
        self._tenancy.commit(placed)

    def give(self, placed: Placed | None, why: Reason) -> None:
        """Run another committed model from now on, or none; a trial ends by it.

        Nothing is tried: it was on trial before it was committed. If it does not load,
        its worker is replaced, and dies of it as of any model.

        Args:
            placed: What the store says now. None ends the worker after its sample; the
                next one waits for a model.
            why: ``revoked``, ``crash_loop``...: counted with the swap, and why the
                pipeline is not ready where there is no model.
        """
        self._tenancy.give(placed, why)

    async def swap_in(self, placed: Placed) -> None:
        """Let a candidate answer; it is forgotten unless ``commit`` follows.

        Raises:
            TrialFailedError: It was refused, hung or killed the worker.
            DeviceError: There is no worker, or it ended for want of its source: no
                fault of the candidate's, which is tried again later.
        """
        try:
            async with asyncio.timeout(self._rules.start_s):
                await self._up.wait()
        except TimeoutError as err:
            raise DeviceError("there is no worker", reason=Reason.STARTING) from err
        if (worker := self._worker) is None:
            raise DeviceError("the worker has just ended", reason=Reason.STARTING)
        await self._tenancy.swap_in(worker, placed)

    async def swap_back(self) -> None:
        """Let what is committed answer again."""
        await self._tenancy.swap_back()

    def commit(self, placed: Placed) -> None:
        """The candidate is durable; a worker that runs something else is replaced."""
        self._tenancy.adopt(placed)

    async def commission(self) -> None:
        """Let this board's baseline of the model that answers be collected anew.

        While a worker is replaced it is that of the model that will answer.

        Raises:
            RequestRefusedError: ``no_model``, ``unwatched``.
            DeviceError: The old one cannot be removed.
            TrialFailedError: The worker did not take the order.
        """
        async with self._tenancy.lock:
            worker, answering = self._worker, self._placing.answering
            whose = answering or self._tenancy.committed
            number = await self._watching.begin_anew(whose)
            if worker is not None and answering is not None:
                order = Commission(self._placing.generation, number)
                await worker.tell(order, self._rules.start_s)

    async def shed(
        self, measures: Sequence[Measure], safe_output: SafeOutput
    ) -> tuple[Measure, ...]:
        """Do less from now on: these measures, and no others.

        They hold for every worker and every model that follows. Another variant or
        executor answers for what is committed, for as long as it is asked for; that is
        not durable. While a candidate answers, or a shadow compares, it waits.

        Returns:
            Those that hold now; see ``holding`` for later. The others cannot be had
            here, or not yet.
        """
        return await self._tenancy.restrain(measures, safe_output)

    def thin(self, every: int) -> None:
        """Answer one sample in so many at most from now on, whatever measures say."""
        self._tenancy.thin(every)

    @property
    def holding(self) -> tuple[Measure, ...]:
        """The measures that hold at this moment."""
        return tuple(self._tenancy.holding())

    # --- listening in

    async def tap(
        self, ring: int, every: int, before: Tapped | None = None
    ) -> Tapped | None:
        """Have live samples, and what is answered, copied into a shadow ring.

        Args:
            ring: Its descriptor; it stays the caller's.
            every: One in so many samples.
            before: What the last call returned.

        Returns:
            Whose samples are copied, for ``untap``: the same as ``before`` if that
            still answers, None if nothing does.

        Raises:
            TrialFailedError: The worker did not take the order.
        """
        async with self._tenancy.lock:
            tapped = await self._listening.tap(self._worker, ring, every, before)
            self._tenancy.compare(begins=tapped is not None)
            return tapped

    async def untap(self, tapped: Tapped) -> None:
        """Have nothing copied any more; a swap or a death has done so already."""
        async with self._tenancy.lock:
            await self._listening.untap(tapped)
            self._tenancy.compare(begins=False)

    async def _new_source(self, descriptor: int) -> bool:
        """Tell the worker of a program's new pipe; False if it is not up yet."""
        worker = self._worker if self._up.is_set() else None
        if worker is not None:
            await worker.replace_source(descriptor)
        return worker is not None

    # --- looking

    @property
    def committed(self) -> Placed | None:
        """What the store says this pipeline runs."""
        return self._tenancy.committed

    @property
    def answering(self) -> Placed | None:
        """What answers at this moment."""
        return self._placing.answering

    def snapshot(self) -> PipelineSnapshot:
        """Return the pipeline at this moment; cheap, no waiting."""
        block = self._block.read() if self._block else None
        return self._sight.take(self.settings, self._worker, block)
