"""What the plan's decisions mean for the update under way, and it for them."""

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from agent.core.reasons import Reason
from agent.core.targets import Wanted
from agent.core.update_machine import Job
from agent.core.updates import Decision


def overtaken(job: Job, decisions: Sequence[Decision], revoked: Collection[str]) -> str:
    """Return why a trial under way has lost its purpose, or an empty string.

    It is ``revoked``, or ``superseded``: something else is wanted by now. That nothing
    new may start (paused, a window that closed) ends no trial; nor does anything end
    what came with the system, or an operator's rollback.
    """
    if job.sha256 in revoked:
        return Reason.REVOKED
    wanted = [it.desired for it in decisions if it.pipeline == job.pipeline]
    stays = not any(wanted) or Wanted(job.model, job.version) in wanted
    return Reason.NONE if stays or job.rollback or job.factory else Reason.SUPERSEDED


def with_job(decisions: Sequence[Decision], job: Job | None) -> tuple[Decision, ...]:
    """Return decisions that know what is under way, whatever came of it before."""
    return tuple(
        replace(it, state="ordered", reason="", detail="under way", until=0.0)
        if job is not None and not job.rollback and _is_of(job, it)
        else it
        for it in decisions
    )


def _is_of(job: Job, decision: Decision) -> bool:
    """Whether a job is what a decision wants."""
    return (decision.pipeline, decision.desired) == (
        job.pipeline,
        Wanted(job.model, job.version),
    ) and (decision.source, decision.generation) == (job.source, job.generation)
