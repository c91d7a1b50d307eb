"""Takes the update machine from event to event: saves, performs, asks the table again.

The rules this module keeps:
 * The phase is saved before its row's actions: after power loss we must know what we
   were about to do.
 * An action that is refused, fails or lacks something on this board is the event
   FAILED; everything else is a bug, and ends the daemon.
 * The way down needs no disk: a phase that cannot be saved on it is only logged; from
   whatever older phase is on record, RESTARTED tidies up the same.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from agent.core.update_machine import Action, Event, Job, Phase, Step, step
from agent.errors import AgentError, BundleRefusedError, DeviceError, TrialFailedError
from agent.update.tally import result_of

log = logging.getLogger(__name__)

TRIAL = (Phase.PREFLIGHT, Phase.SHADOWING, Phase.PROBATION)
COMMITTED, ROLLED_BACK = "committed", "rolled_back"
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

    def clear_job(self) -> None:
        """Forget it."""


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


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended, and why.

    Attributes:
        result: ``committed``, ``refused``, ``failed`` or ``rolled_back``; after a
            restart also ``interrupted``.
        error: The first thing that went wrong, None for ``committed``.
    """

    result: str
    error: AgentError | None = None


class UpdateRunner:
    """The machine with a journal and hands; one job at a time.

    Attributes:
        phase: Where it is now.
    """

    def __init__(self, journal: Journal, work: Work) -> None:
        self.phase = Phase.IDLE
        self._journal = journal
        self._work = work

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
            How an interrupted COMMIT ended, else None.

        Raises:
            DeviceError: The journal cannot be read.
        """
        job = self._journal.load_job() or NOTHING
        self.phase = job.phase
        if job.phase is not Phase.IDLE:
            log.warning("update.interrupted", extra=_facts(job))
        ending = await self._handle(Event.RESTARTED, job)
        return ending if job.phase is Phase.COMMITTING else None

    async def _handle(self, event: Event, job: Job) -> Ending:
        """Take the machine from ``event`` until nothing is left to do."""
        pending: Event | None = event
        result = ""
        cause: AgentError | None = None
        while pending is not None:
            taken = step(self.phase, pending)
            result = RESULTS.get((taken.phase, pending), result)
            try:
                job = self._enter(taken, pending, job)
                pending, job = await self._perform(taken, job)
            except EXPECTED as err:
                log.debug("update.stumbled", extra=_facts(job) | {"detail": str(err)})
                cause = cause or err
                # In IDLE nothing is under way: either nothing began, or all is done.
                pending = None if self.phase is Phase.IDLE else Event.FAILED
        if result == COMMITTED:
            return Ending(COMMITTED)
        return Ending(result or (result_of(cause) if cause else "interrupted"), cause)

    def _enter(self, taken: Step, event: Event, job: Job) -> Job:
        """Save the phase, then be in it."""
        began = taken.phase is Phase.PREFLIGHT
        after = replace(job, phase=taken.phase, attempts=job.attempts + began)
        try:
            self._save(after, event)
        except DeviceError as err:
            if taken.phase not in {Phase.IDLE, Phase.ROLLING_BACK}:
                raise
            log.warning("update.not_saved", extra=_facts(after) | {"detail": str(err)})
        if after.phase is not self.phase:
            log.info("update.phase", extra=_facts(after) | {"event": str(event)})
        self.phase = taken.phase
        return after

    def _save(self, job: Job, event: Event) -> None:
        """Save a job; an ended one is forgotten, an interrupted trial is not."""
        if job.phase is not Phase.IDLE:
            self._journal.save_job(job)
        elif event is not Event.RESTARTED or not job.attempts:
            self._journal.clear_job()
        elif self.phase is not Phase.IDLE:
            self._journal.save_job(job)

    async def _perform(self, taken: Step, job: Job) -> tuple[Event | None, Job]:
        """Perform a row's actions; the last event that one of them reports counts."""
        pending: Event | None = None
        for action in taken.actions:
            try:
                event, job = await self._work.perform(action, job)
            except asyncio.CancelledError:
                self._excuse(job)
                raise
            pending = event or pending
        return pending, job

    def _excuse(self, job: Job) -> None:
        """Take an attempt back: being stopped politely is no fault of the model's."""
        if job.phase in TRIAL:
            with suppress(DeviceError):
                self._journal.save_job(replace(job, attempts=job.attempts - 1))


def _facts(job: Job) -> dict[str, object]:
    """Return the fields that every log line about a job carries."""
    return {
        "pipeline": job.pipeline,
        "model": job.model,
        "version": job.version,
        "phase": str(job.phase),
    }
