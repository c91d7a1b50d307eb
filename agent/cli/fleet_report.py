"""A rollout for scripts: what every board did, the gates, and every decision.

The rules this module keeps:
 * Keys are never renamed; moments are Unix seconds, 0 for never.
"""

from collections import Counter

import msgspec

from agent.cli.fleet_state import Kept
from agent.core.gates import find_fault
from agent.core.waves import Plan, readings

Json = dict[str, object]


def describe_rollout(kept: Kept, plan: Plan, now: float) -> Json:
    """Return the report."""
    course = kept.course
    boards = course.boards
    return {
        "rollout": kept.id,
        "assign": {
            name: {"model": model, "version": version}
            for name, (model, version) in kept.assign.items()
        },
        "mode": kept.mode,
        "phase": course.phase,
        "reason": course.reason,
        "why": course.why,
        "at": now,
        "wave": course.wave,
        "waves": [_describe_wave(kept, plan, index, now) for index in _all(plan)],
        "counts": Counter(str(board.standing) for board in boards.values()),
        "boards": {
            name: {
                **_plain(board),
                "wave": index,
                "fault": find_fault(board, plan.gate),
                "reachable": not board.lost_at,
            }
            for index, wave in enumerate(plan.waves)
            for name in wave.boards
            for board in (boards[name],)
        },
        "decisions": [_plain(row) for row in course.log],
    }


def describe_plan(kept: Kept, plan: Plan) -> Json:
    """Return what a rollout would do."""
    return {
        "assign": {
            name: {"model": model, "version": version}
            for name, (model, version) in kept.assign.items()
        },
        "mode": kept.mode,
        "at_once": plan.at_once,
        "gate": _plain(plan.gate),
        "waves": [{"name": it.name, "boards": list(it.boards)} for it in plan.waves],
    }


def _describe_wave(kept: Kept, plan: Plan, index: int, now: float) -> Json:
    """One wave: whether it was reached, and its gate."""
    wave, course = plan.waves[index], kept.course
    return {
        "name": wave.name,
        "boards": list(wave.boards),
        "reached": index <= course.wave,
        "gates": [
            {
                "name": row.name,
                "figure": row.figure,
                "limit": row.limit,
                "closes": row.closes,
                "boards": list(row.boards),
            }
            for row in readings(plan, course, now, index)
        ],
    }


def _all(plan: Plan) -> range:
    """Return the indices of all waves."""
    return range(len(plan.waves))


def _plain(value: object) -> Json:
    """Return a struct as JSON has it."""
    built: Json = msgspec.to_builtins(value)
    return built
