"""Takes the update machine from event to event: saves, performs, asks the table again.

The rules this module keeps:
 * The phase is saved before its row's actions: after power loss we must know what we
   were about to do.
 * An action that is refused, fails or lacks something on this board is the event
   FAILED, and so is a job that somebody ends; everything else is a bug, and ends the
   daemon.
 * A job can be ended until COMMIT begins, which nothing interrupts: so it has one
   ending, whoever comes at the same moment.
 * Every ending is reported before the job is forgotten; COMMIT does both at once.
 * A trial counts against its bytes from the moment it is saved that it begins, until
   a verdict, or an end that is nobody's fault, takes it back.
 * The way down needs no disk: a phase or a report that cannot be saved on it is only
   logged; from whatever older phase is on record, RESTARTED tidies up the same.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from agent.core.quarantine import PASSING
from agent.core.update_machine import Action, Event, Job, Phase, Step, step
from agent.core.updates import Report
from agent.errors import AgentError, BundleRefusedError, DeviceError, TrialFailedError
from agent.update.endings import COMMITTED, INTERRUPTED, ROLLED_BACK, Ending, report_of

log = logging.getLogger(__name__)

TRIAL = (Phase.PREFLIGHT, Phase.SHADOWING, Phase.PROBATION)
# Nothing of a job is durable before COMMITTING: until then it can be ended.
ENDABLE = frozenset({Phase.FETCHING, Phase.VERIFYING, Phase.STAGING, *TRIAL})
# A thread syncs and renames a file that DISCARD would close under it: seconds.
UNBROKEN = frozenset({Phase.STAGING})
# The rows that settle how a job ends, whatever follows.
RESULTS = {
    (Phase.IDLE, Event.COMMITTED): COMMITTED,
    (Phase.ROLLING_BACK, Event.FAILED): ROLLED_BACK,
}
EXPECTED = (BundleRefusedError, TrialFailedError, DeviceError)
NOTHING = Job(pipeline="", model="", version=0, sha256="")


class Journal(Protocol):
    """Where the job is kept; durable when a call returns, else ``DeviceError``."""

    def load_job(self) -> Job | None:
        """Return what was saved last."""

    def save_job(self, job: Job) -> None:
        """Save the job with its phase."""

    def clear_job(self, ended: Job) -> None:
        """Forget it, but for how many trials of its bytes count."""

    def add_report(self, report: Report) -> None:
        """Keep how a job ended."""


class Work(Protocol):
    """Performs actions."""

    async def perform(self, action: Action, job: Job) -> tuple[Event | None, Job]:
        """Perform one action.

        Returns:
            The event it ends with, where it is the one that decides, and the job with
            what became known on the way.

        Raises:
            AgentError: It did not work.
        """


@dataclass(slots=True)
class _Story:
    """One walk through the table, as far as it got.

    Attributes:
        earlier: Trials of the same bytes that counted before.
    """

    job: Job
    earlier: int
    result: str = ""
    cause: AgentError | None = None

    def ending(self) -> Ending:
        """Return how it ends, if it ends now."""
        return Ending(self.result or INTERRUPTED, self.cause).settled()


class UpdateRunner:
    """The machine with a journal and hands; one job at a time.

    Attributes:
        phase: Where it is now.
        job: What is under way; in IDLE what was.
    """

    def __init__(
        self, journal: Journal, work: Work, clock: Callable[[], float]
    ) -> None:
        self.phase = Phase.IDLE
        self.job = NOTHING
        self._journal = journal
        self._work = work
        self._clock = clock
        self._task: asyncio.Task[object] | None = None
        self._abort: AgentError | None = None
        self._cancelled = False  # by ``abort``

    async def carry_out(self, job: Job) -> Ending:
        """Take an ordered job all the way, up or down.

        Raises:
            IllegalTransitionError: Another job is under way.
        """
        return await self._handle(Event.ORDERED, job)

    async def recover(self) -> Ending | None:
        """Tidy up after the last life; finish its COMMIT if that was all that lacked.

        To be called before any worker starts: what is active may change here.

        Returns:
            How the job that was under way ended, None where none was.

        Raises:
            DeviceError: The journal cannot be read.
        """
        job = self._journal.load_job() or NOTHING
        self.phase = job.phase
        if job.phase is not Phase.IDLE:
            log.warning("update.interrupted", extra=_facts(job))
        ending = await self._handle(Event.RESTARTED, job)
        return ending if job.phase is not Phase.IDLE else None

    def abort(self, error: AgentError) -> bool:
        """End what is under way, as if it had failed with ``error``.

        Returns:
            Whether it ends so: it was not past its trial, and not ended already.
        """
        if self.phase not in ENDABLE or self._task is None or self._abort is not None:
            return False
        self._abort = error
        self._cancelled = self.phase not in UNBROKEN
        if self._cancelled:
            self._task.cancel()
        return True

    async def _handle(self, event: Event, job: Job) -> Ending:
        """Take the machine from ``event`` until nothing is left to do."""
        pending: Event | None = event
        story = _Story(job, job.attempts)
        self.job = job
        while pending is not None:
            taken = step(self.phase, pending)
            story.result = RESULTS.get((taken.phase, pending), story.result)
            try:
                self._enter(taken, pending, story)
                pending = await self._perform(taken, story)
            except EXPECTED as err:
                log.debug(
                    "update.stumbled", extra=_facts(story.job) | {"detail": str(err)}
                )
                story.cause = story.cause or err
                # In IDLE nothing is under way: either nothing began, or all is done.
                pending = None if self.phase is Phase.IDLE else Event.FAILED
        return story.ending()

    def _enter(self, taken: Step, event: Event, story: _Story) -> None:
        """Save the phase, then be in it."""
        job = story.job
        began = taken.phase is Phase.PREFLIGHT
        after = replace(job, phase=taken.phase, attempts=job.attempts + began)
        try:
            self._save(after, event, story)
        except DeviceError as err:
            if taken.phase not in {Phase.IDLE, Phase.ROLLING_BACK}:
                raise
            log.warning("update.not_saved", extra=_facts(after) | {"detail": str(err)})
        if after.phase is not self.phase:
            log.info("update.phase", extra=_facts(after) | {"event": str(event)})
        self.phase = taken.phase
        self.job = story.job = after

    def _save(self, job: Job, event: Event, story: _Story) -> None:
        """Save a job; an ended one is reported, and forgotten but for its trials."""
        if job.phase is not Phase.IDLE:
            self._journal.save_job(job)
            return
        ended = event is not Event.COMMITTED and self.phase is not Phase.IDLE
        if ended and job.id:  # jobs of older agents have no number
            at = self.phase if event is Event.RESTARTED else None
            report = report_of(job, story.ending(), self._clock(), at)
            self._journal.add_report(report)
        self._journal.clear_job(replace(job, attempts=_counted(event, story)))

    async def _perform(self, taken: Step, story: _Story) -> Event | None:
        """Perform a row's actions; the last event that one of them reports counts."""
        pending: Event | None = None
        self._task = asyncio.current_task()
        try:
            for action in taken.actions:
                event, story.job = await self._work.perform(action, story.job)
                self._raise_abort()
                pending = event or pending
        except asyncio.CancelledError:
            self._raise_abort()
            self._excuse(story.job)
            raise
        except EXPECTED:
            # It may be what a trial says that was ended: that is no verdict.
            self._raise_abort()
            raise
        finally:
            self._task = None
        return pending

    def _raise_abort(self) -> None:
        """Raise the error that ``abort`` was given, in place of its cancellation.

        Where somebody cancelled the task as well, that counts: the daemon stops. The
        bookkeeping is that of ``asyncio.timeout``.
        """
        error, self._abort = self._abort, None
        ours, self._cancelled = self._cancelled, False
        task = asyncio.current_task()
        if error is None or task is None:
            return
        others = task.uncancel() if ours else task.cancelling()
        if others == 0:
            raise error

    def _excuse(self, job: Job) -> None:
        """Take an attempt back: being stopped politely is no fault of the model's."""
        if job.phase in TRIAL:
            with suppress(DeviceError):
                self._journal.save_job(replace(job, attempts=job.attempts - 1))


def _counted(event: Event, story: _Story) -> int:
    """Return how many trials of a job's bytes count after its end."""
    if event is Event.RESTARTED:
        return story.job.attempts  # it was cut short, and may have been why
    if event is Event.COMMITTED:
        return 0
    if not isinstance(story.cause, TrialFailedError):
        return story.earlier  # not its fault, and no verdict
    passing = story.cause.reason in PASSING and not story.job.factory
    return story.job.attempts if passing else 0


def _facts(job: Job) -> dict[str, object]:
    """Return the fields that every log line about a job carries."""
    return {
        "pipeline": job.pipeline,
        "model": job.model,
        "version": job.version,
        "phase": str(job.phase),
    }
