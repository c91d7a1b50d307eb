"""How jobs end, in the words of reports, counters and logs."""

from dataclasses import dataclass

from agent.core.reasons import Reason
from agent.core.update_machine import Job, Phase
from agent.core.updates import Report
from agent.errors import AgentError, BundleRefusedError

COMMITTED, ROLLED_BACK, INTERRUPTED = "committed", "rolled_back", "interrupted"
# Words of the way to a repository: nothing was verified, and nobody refused anything.
NETWORK = frozenset(
    {Reason.UNREACHABLE, Reason.TOO_SLOW, Reason.TLS, Reason.RATE_LIMITED}
)


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

    def settled(self) -> "Ending":
        """Return it without what no longer matters, and named after its error."""
        if self.result == COMMITTED:
            return Ending(COMMITTED)
        if self.result == INTERRUPTED and self.error is not None:
            return Ending(result_of(self.error), self.error)
        return self


def result_of(error: AgentError) -> str:
    """Return ``refused`` where the sender has to act, else ``failed``."""
    refused = isinstance(error, BundleRefusedError)
    return "refused" if refused and error.reason not in NETWORK else "failed"


def report_of(job: Job, ending: Ending, now: float, at: Phase | None = None) -> Report:
    """Return the report of a job that ends now.

    Args:
        job: What was under way.
        ending: How it ends.
        now: Unix seconds.
        at: The phase in which the agent or the board stopped, if that is why.
    """
    error, detail = ending.error, ""
    if error is not None:
        detail = str(error)
    elif at is not None:
        detail = f"the agent or the board stopped in {at}"
    elif job.rollback:
        detail = "an operator's rollback"
    return Report(
        id=job.id,
        pipeline=job.pipeline,
        model=job.model,
        version=job.version,
        sha256=job.sha256,
        source=job.source,
        generation=job.generation,
        result=ending.result,
        reason=str(error.reason) if error else "",
        detail=detail,
        began_at=job.began_at,
        ended_at=now,
    )
