"""What operators may ask for: see, order, look, go back, forgive, watch anew.

Satisfies ``agent.endpoint.needs.Operations``.

The rules this module keeps:
 * Who comes while an update is under way is told so, with its phase; nothing queues
   up. A trial that lasts may be ended by a rollback, and whatever is not yet committed
   by a newer desired state.
 * What was accepted is durable when the call returns, or under way.
 * Every request that changes something is one log line with the operator's name.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

from agent.core.desired import check_dates
from agent.core.reasons import Reason
from agent.core.targets import GroupFile
from agent.core.update_machine import LONG, Job
from agent.core.updates import Hold, Report, SetAside
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.errors import RequestRefusedError as Refused
from agent.settings import Settings
from agent.update.endings import COMMITTED
from agent.update.needs import UpdateStore
from agent.update.poller import UpdatePoller
from agent.update.runner import ENDABLE
from agent.update.wishes import Wish

log = logging.getLogger(__name__)


async def unwatched(pipeline: str) -> None:
    """Refuse for a board whose models nobody watches.

    Raises:
        RequestRefusedError: ``unwatched``.
    """
    raise Refused(f"nothing watches {pipeline}", reason=Reason.UNWATCHED)


class Desk:
    """Answers operators; the poller does what they ask for.

    Args:
        settings: The whole agent.toml.
        store: What is committed, reported and set aside.
        poller: See above.
        commission: Lets a pipeline, by its name, collect its baseline anew.
        ring: Told when somebody wants a look: another may be due elsewhere.
    """

    def __init__(
        self,
        settings: Settings,
        store: UpdateStore,
        poller: UpdatePoller,
        commission: Callable[[str], Awaitable[None]] = unwatched,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        self._orchestrator = settings.update.orchestrator
        self._store = store
        self._poller = poller
        self._commission = commission
        self._ring = ring

    def reports(self) -> Sequence[Report]:
        """Return the updates that ended, newest first.

        Raises:
            DeviceError: The store cannot be read.
        """
        return self._store.reports()

    def quarantine(self) -> Sequence[SetAside]:
        """Return the bundles that are not tried again.

        Raises:
            DeviceError: The store cannot be read.
        """
        return self._store.all_set_aside()

    def desired(self) -> GroupFile | None:
        """Return the desired state that was pushed last.

        Raises:
            DeviceError: The store cannot be read.
        """
        return self._poller.sources.pushed.load()

    async def set_desired(self, desired: GroupFile, operator: str) -> None:
        """Take a desired state, durably, and look at once.

        Raises:
            RequestRefusedError: ``not_orchestrator``, ``unknown_pipeline``,
                ``request`` (dates that cannot be read, a generation far above the
                last), ``busy``, ``replayed``.
            DeviceError: It cannot be kept.
        """
        self._check_orchestrator()
        for name in desired.pipelines:
            self._named(name)
        try:
            check_dates(desired)
        except BundleRefusedError as err:
            raise Refused(str(err), reason=Reason.REQUEST) from err
        pushed = self._poller.sources.pushed
        if desired != pushed.load():
            self._check_vacant(ending=True)
            pushed.take(desired)
        log.info(
            "operator.desired",
            extra={"operator": operator, "generation": desired.generation},
        )
        self._poller.hear()
        self._poller.poke(inbox=True, explained=True)

    async def forget_desired(self, operator: str) -> None:
        """Forget the desired state that was pushed, durably, and its generation.

        What runs, or is on trial, goes on. The next push may say a lower generation.

        Raises:
            RequestRefusedError: ``not_orchestrator``.
            DeviceError: The store cannot be written.
        """
        self._check_orchestrator()
        pushed = self._poller.sources.pushed
        if pushed.load() is not None:
            pushed.forget()
        log.info("operator.desired_forgotten", extra={"operator": operator})
        self._poller.poke()

    async def look(self, operator: str) -> None:
        """Look at the repository and the inbox now; any number of times is once.

        Raises:
            RequestRefusedError: ``busy``.
        """
        # The server is asked even during a trial: it may take back what is tried.
        self._ring()
        self._check_vacant()
        log.info("operator.look", extra={"operator": operator})
        self._poller.poke(inbox=True)

    async def roll_back(self, pipeline: str, operator: str) -> str:
        """Go back to the previous model, or end the trial that is under way.

        Either holds against the desired state that is overruled, until that source
        says something newer.

        Raises:
            RequestRefusedError: ``unknown_pipeline``, ``request`` (which one?),
                ``busy``, ``no_previous``, ``revoked``.
            DeviceError: The store cannot be read or written.
        """
        name = self._named(pipeline or self._only())
        facts = {"operator": operator, "pipeline": name}
        job = self._poller.intake.job
        if job is not None and self._is_on_trial(job, name):
            log.info("operator.trial_ended", extra=facts)
            self._end_trial(job)
            return name
        self._check_vacant()
        self._check_previous(name)
        if not self._poller.wishes.accept(self._overruled(name)):
            raise self._busy()
        log.info("operator.rollback", extra=facts)
        return name

    async def commission(self, pipeline: str, operator: str) -> str:
        """Forget what this board compares a pipeline's input with; collect it anew.

        Updates are no obstacle: it concerns the model that answers at this moment.

        Raises:
            RequestRefusedError: ``unknown_pipeline``, ``request`` (which one?),
                ``no_model``, ``unwatched``.
            DeviceError: The old one cannot be removed, or the worker took no order.
        """
        name = self._named(pipeline or self._only())
        await self._commission(name)
        log.info("operator.commission", extra={"operator": operator, "pipeline": name})
        return name

    async def forgive(self, sha256: str, operator: str) -> None:
        """Let a bundle that was set aside be tried again.

        Raises:
            RequestRefusedError: ``request``: it was not set aside.
            DeviceError: The store cannot be written.
        """
        if not self._store.forgive(sha256):
            raise Refused(f"{sha256} was not set aside", reason=Reason.REQUEST)
        log.info("operator.forgive", extra={"operator": operator, "sha256": sha256})
        ledger = self._poller.intake.ledger
        ledger.memory.forgive(sha256)
        ledger.count_set_aside()
        self._poller.poke()

    def _check_orchestrator(self) -> None:
        """Refuse what concerns a push, where somebody else decides."""
        if self._orchestrator != "push":
            raise Refused(
                f"the settings let {self._orchestrator} write the desired state",
                reason=Reason.NOT_ORCHESTRATOR,
            )

    def _named(self, pipeline: str) -> str:
        """Return the name of a pipeline that the settings have."""
        names = self._poller.models
        if pipeline not in names:
            known = ", ".join(names) or "none"
            raise Refused(
                f"there is no pipeline {pipeline!r} here, but: {known}",
                reason=Reason.UNKNOWN_PIPELINE,
            )
        return pipeline

    def _only(self) -> str:
        """Return the only pipeline's name."""
        names = tuple(self._poller.models)
        if len(names) != 1:
            raise Refused(
                f"which pipeline? There are {', '.join(names)}",
                reason=Reason.REQUEST,
            )
        return names[0]

    def _is_on_trial(self, job: Job, name: str) -> bool:
        """Whether a rollback of this pipeline means the trial under way."""
        lasts = self._poller.intake.phase in LONG
        return lasts and job.pipeline == name and not job.rollback

    def _end_trial(self, job: Job) -> None:
        """End a trial, and hold against whoever ordered it."""
        active = self._store.slots(job.pipeline).active
        try:
            # Without any model there is nothing to commit: it is remembered refused.
            if active is not None:
                hold = Hold(job.pipeline, job.source, job.generation)
                self._store.commit(job.pipeline, active, hold=hold)
        finally:
            ended: AgentError = DeviceError(
                "an operator ended the trial", reason=Reason.REQUESTED
            )
            self._poller.intake.abort(ended)

    def _check_vacant(self, *, ending: bool = False) -> None:
        """Refuse while an update is under way, but for one that can end if allowed."""
        phase = self._poller.intake.phase
        if self._poller.intake.job is not None and not (ending and phase in ENDABLE):
            raise self._busy()

    def _check_previous(self, name: str) -> None:
        """Refuse where there is nothing to go back to."""
        slots = self._store.slots(name)
        previous, active = slots.previous, slots.active
        held = any(hold.pipeline == name for hold in self._store.holds())
        if previous is None:
            raise Refused(f"{name} has no previous model", reason=Reason.NO_PREVIOUS)
        # Twice is not there and back again: previous is what was overruled by then.
        if held and active is not None and previous.version > active.version:
            raise Refused(
                f"{name} was rolled back to version {active.version} already",
                reason=Reason.NO_PREVIOUS,
            )
        if previous.sha256 in self._poller.sources.revoked:
            raise Refused(
                f"{previous.model} {previous.version} was revoked",
                reason=Reason.REVOKED,
            )
        why = self._store.is_set_aside(previous.sha256)
        if why:
            raise Refused(
                f"{previous.model} {previous.version} was set aside: {why}",
                reason=Reason.NO_PREVIOUS,
            )

    def _overruled(self, name: str) -> Wish:
        """Return the wish to go back from what a desired state wants.

        Before the first look of a life only reports know whose wish it was.
        """
        for decision in self._poller.plan.decisions:
            if decision.pipeline == name and decision.source:
                return Wish(name, decision.source, decision.generation)
        for report in self._store.reports():
            if (report.pipeline, report.result) == (name, COMMITTED):
                return Wish(name, report.source, report.generation)
        return Wish(name, "", 0)

    def _busy(self) -> Refused:
        """Return the error for those who come second."""
        phase = self._poller.intake.phase
        return Refused(f"another update is under way: {phase}", reason=Reason.BUSY)
