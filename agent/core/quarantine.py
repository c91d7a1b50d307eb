"""Which bytes are not tried again on this board, and after how many tries.

The rules this module keeps:
 * A trial that failed for a reason of the model's own is not repeated; nor is any that
   failed while the candidate answered live samples (a rollback).
 * What a good model fails of where others take the board's time or memory just then
   is tried three times before the model is blamed.
 * Nobody blames bytes that were committed here before, nor what the board lacks.
"""

from agent.core.reasons import Reason
from agent.core.update_machine import Job
from agent.errors import AgentError, TrialFailedError

# Trials of the same bytes, those included that a death of the agent cut short.
MAX_ATTEMPTS = 3
PASSING = frozenset(
    {Reason.HANG, Reason.MEMORY, Reason.LATENCY, Reason.CRASH, Reason.OOM}
)
# Other settings, or another runtime on this board, would have let it pass.
EXCUSED = frozenset(
    {Reason.NO_EXECUTOR, Reason.DELEGATE, Reason.SETTINGS, Reason.INTERNAL}
)


def deserves_quarantine(
    job: Job, error: AgentError, attempts: int, *, rolled_back: bool
) -> bool:
    """Return whether the bytes of a failed job are set aside.

    Args:
        job: How it was ordered.
        error: What went wrong first.
        attempts: Trials of these bytes up to now, this one included.
        rolled_back: It had answered live samples already.

    >>> job = Job("door", "kws", 2, "a" * 64)
    >>> slow = TrialFailedError("slow", reason=Reason.LATENCY)
    >>> [deserves_quarantine(job, slow, n, rolled_back=False) for n in (1, 2, 3)]
    [False, False, True]
    """
    blames_model = isinstance(error, TrialFailedError) and error.reason not in EXCUSED
    if not blames_model or job.rollback:
        return False
    if rolled_back or error.reason not in PASSING:
        return True
    # The last resort of a board without any model is never given up for being slow.
    return attempts >= MAX_ATTEMPTS and not job.factory
