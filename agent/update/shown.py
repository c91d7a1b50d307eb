"""What others see of updates: one snapshot of the parts that follow them."""

from collections.abc import Sequence

from agent.core.desired import Plan
from agent.core.snapshot import UpdateSnapshot
from agent.core.under_way import with_job
from agent.core.updates import Decision
from agent.update.intake import Intake
from agent.update.planning import in_servers_words
from agent.update.sources import Sources


def show_updates(
    intake: Intake, sources: Sources, plan: Plan, now: float, next_look: float
) -> UpdateSnapshot:
    """Return the counters and the phase as they are ``now``; times are Unix seconds."""
    tally, floor = intake.ledger.tally, sources.clock_floor
    return UpdateSnapshot(
        phase=str(intake.phase),
        results=dict(tally.results),
        verify_failures=dict(tally.verify_failures),
        bytes=dict(tally.bytes),
        last_refusal=tally.last_refusal,
        clock_floor_lag_s=max(0.0, floor - now),
        clock_floor=floor,
        orchestrator=sources.orchestrator,
        decisions=with_job(_explained(plan.decisions, sources), intake.job),
        progress=intake.progress(),
        last_look=sources.last_look,
        trouble=sources.trouble,
        next_look=next_look,
        metadata_expires=sources.expires,
        metadata_issued=sources.issued,
        set_aside=intake.ledger.set_aside,
        revoked=len(sources.revoked),
    )


def _explained(decisions: Sequence[Decision], sources: Sources) -> tuple[Decision, ...]:
    """Return decisions that say why a server's orders wait, in its own words."""
    if sources.ddi is None:
        return tuple(decisions)
    record = sources.ddi.at_hand
    return tuple(in_servers_words(it, record) for it in decisions)
