"""What is kept of endings: counters, log lines, reports, refusals, quarantine.

The rules this module keeps:
 * Every refusal is logged, counted and reported once, until something changes.
 * A job reports itself, in the transaction that ends it; an order that never became
   one is reported here.
 * Nothing here may fail an update that has ended: what the disk does not take is
   logged.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from agent.core.desired import Order
from agent.core.quarantine import PASSING, deserves_quarantine
from agent.core.update_machine import Job
from agent.errors import AgentError, DeviceError, TrialFailedError
from agent.update.endings import COMMITTED, ROLLED_BACK, Ending, report_of, result_of
from agent.update.memory import RefusalMemory
from agent.update.needs import UpdateStore
from agent.update.tally import Tally

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an order.

    Attributes:
        subject: Whose refusals it is remembered among.
        key: All that it was judged by: while it stays the same, so does the verdict.
        job: As it was carried out, or would have been; ``begun`` says which.
    """

    subject: str
    key: Hashable
    order: Order
    job: Job
    ending: Ending
    begun: bool = True


class Ledger:
    """Keeps what came of orders.

    Attributes:
        memory: What was refused; ``tally`` counts it.
        set_aside: Bundles that are not tried again, as counted last.
    """

    def __init__(self, store: UpdateStore, clock: Callable[[], float]) -> None:
        self.memory = RefusalMemory()
        self.tally = Tally()
        self.set_aside = 0
        self._store = store
        self._clock = clock

    def count_set_aside(self) -> None:
        """Look how many bundles are set aside now."""
        self.set_aside = len(self._store.all_set_aside())

    def count_trouble(self, subject: str, error: AgentError) -> None:
        """Count, log and remember a repository that cannot be followed."""
        self.tally.count_verification(error)
        if self.memory.remember(subject, (), error):
            self.tally.count_result(result_of(error), error)
            facts = {"subject": subject} | cause_of(error)
            log.warning("repository.%s", result_of(error), extra=facts)

    def conclude(self, outcome: Outcome) -> None:
        """Count, log, report and remember how an order ended."""
        ending, error = outcome.ending, outcome.ending.error
        if error is None:
            self.memory.forget(outcome.subject)
            self.tally.count_result(COMMITTED, None)
            log.info("update.committed", extra=_facts(outcome.job))
            return
        self.tally.count_verification(error)
        memory, subject, key = self.memory, outcome.subject, outcome.key
        sha256 = outcome.job.sha256
        if memory.remember(subject, key, error, outcome.order, sha256):
            self._tell(outcome, error)
        attempts = max(outcome.job.attempts, memory.failures(subject, key))
        rolled_back = ending.result == ROLLED_BACK
        if deserves_quarantine(outcome.job, error, attempts, rolled_back=rolled_back):
            memory.give_up(subject)
            self.set_bytes_aside(sha256, error.reason)
        elif isinstance(error, TrialFailedError) and error.reason in PASSING:
            memory.count_trials(subject, attempts)

    def conclude_rollback(self, job: Job, ending: Ending) -> None:
        """Count and log how an operator's rollback ended; it is asked for once."""
        self.tally.count_result(ending.result, ending.error)
        facts = _facts(job) | {"rollback": True}
        if ending.error is None:
            log.info("update.committed", extra=facts)
        else:
            facts |= cause_of(ending.error)
            log.warning("update.%s", ending.result, extra=facts)

    def set_bytes_aside(self, sha256: str, reason: str) -> None:
        """Never try these bytes again on this board, unless somebody forgives them."""
        try:
            self._store.set_aside(sha256, reason)
        except DeviceError as err:
            log.warning("store.not_written", extra={"sha256": sha256} | cause_of(err))
        else:
            log.warning("bundle.set_aside", extra={"sha256": sha256, "reason": reason})
            self.count_set_aside()

    def _tell(self, outcome: Outcome, error: AgentError) -> None:
        """Count, log and report what is news."""
        result = outcome.ending.result
        self.tally.count_result(result, error)
        log.warning("update.%s", result, extra=_facts(outcome.job) | cause_of(error))
        if not outcome.begun:
            try:
                report = report_of(outcome.job, outcome.ending, self._clock())
                self._store.add_report(report)
            except DeviceError as err:
                log.warning("store.not_written", extra=cause_of(err))


def cause_of(error: AgentError) -> dict[str, object]:
    """Return the log fields of an error."""
    return {"reason": str(error.reason), "detail": str(error)}


def _facts(job: Job) -> dict[str, object]:
    """Return the log fields of an order."""
    return {
        "pipeline": job.pipeline,
        "model": job.model,
        "version": job.version,
        "generation": job.generation,
    }
