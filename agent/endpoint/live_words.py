"""What the page says in sentences: alarms, phases, refusals, what waits and why.

The rules this module keeps:
 * Whole sentences in plain words; the stable ``reason`` word stands beside them for who
   wants to look it up.
 * Names that came from outside stand in the text as they are: the page writes text,
   never markup.

>>> say_result("refused", "digits", 9)
'Refused digits 9'
"""

from collections.abc import Mapping

from agent.core.degradation import LadderState, Level
from agent.core.explanations import EXPLANATIONS
from agent.core.ladder_words import say_held
from agent.core.reasons import Reason
from agent.core.snapshot import UpdateSnapshot
from agent.core.updates import Decision, Progress, Report
from agent.core.watching import Alarm, AnchorState, Scope

PHASES = {
    "IDLE": "No update is under way.",
    "FETCHING": "Fetching {what}.",
    "VERIFYING": "Verifying the signatures and hashes of {what}.",
    "STAGING": "Writing {what} to the disk.",
    "PREFLIGHT": "Trying {what} in a process that may fail: recorded samples, time, "
    "memory.",
    "SHADOWING": "{what} answers copies of live samples; nobody sees its answers yet.",
    "PROBATION": "{what} answers, on probation: a failure takes it back.",
    "COMMITTING": "Making {what} the model that this board starts with.",
    "ROLLING_BACK": "Going back to the model before {what}.",
}
_RESULTS = {
    "committed": "Installed",
    "refused": "Refused",
    "failed": "Tried and gave up",
    "rolled_back": "Rolled back",
    "interrupted": "Interrupted",
}
_ALARMS: Mapping[Scope, str] = {
    "input": "The input has changed: it no longer looks like {anchor}",
    "output": "The model's confidence has changed: it no longer looks like {anchor}",
    "all": "Input and answers together no longer look like {anchor}",
    "prediction": "The mix of answers has changed: it is not that of {anchor}",
    "stuck": "The input is stuck: the same bytes come again and again",
}
ANCHORS = {
    "shipped": "the data that the model shipped with",
    "site": "what this board saw when it was commissioned",
}


def as_sentence(text: str) -> str:
    """Return text with a full stop, unless it ends a sentence already.

    >>> as_sentence("too old"), as_sentence("Wait.")
    ('too old.', 'Wait.')
    """
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def explain(reason: str) -> str:
    """Return what a reason means, in one sentence; empty without one."""
    try:
        known = EXPLANATIONS.get(Reason(reason))
    except ValueError:  # of a newer agent's state on the disk
        return ""
    return known.what if known else ""


def advise(reason: str) -> str:
    """Return what somebody can do about a reason; empty where that is not known."""
    known = {str(each): words.todo for each, words in EXPLANATIONS.items()}
    return known.get(reason, "")


def say_alarm(alarm: Alarm) -> str:
    """Return what an alarm means."""
    text = _ALARMS[alarm.scope].format(anchor=ANCHORS[alarm.anchor])
    return f"{text}{' (confirmed)' if alarm.confirmed else ''}."


def say_anchor(state: AnchorState, *, waits: bool = False) -> str:
    """Return what the present is compared with, or why it is not.

    Args:
        state: Of one anchor.
        waits: An alarm is active: nothing is learnt from what may not be normal.
    """
    name = ANCHORS[state.anchor]
    if state.valid:
        how = f" ({state.calibration} thresholds)" if state.calibration else ""
        return f"Compared with {name}{how}."
    if state.reason == Reason.COMMISSIONING:
        text = f"{state.collected:,} of {state.wanted:,} samples"
        wait = "; it waits while an alarm is active" if waits else ""
        return f"Learning what is normal here: {text}{wait}."
    why = state.detail or explain(state.reason)
    return as_sentence(f"Not compared with {name}{f': {why}' if why else ''}")


def say_phase(update: UpdateSnapshot) -> str:
    """Return what the update machine does now."""
    progress = update.progress
    what = f"{progress.model} {progress.version}" if progress else "the update"
    known = PHASES.get(update.phase, update.phase)
    text = known.format(what=what)
    where = f" For the pipeline {progress.pipeline}." if progress else ""
    return f"{text}{where}"


def say_result(result: str, model: str, version: int) -> str:
    """Return how an update ended, without why."""
    return f"{_RESULTS.get(result, result)} {model} {version}"


def say_report(report: Report) -> str:
    """Return how an update ended, of which pipeline, and why."""
    said = say_result(report.result, report.model, report.version)
    why = report.detail or explain(report.reason)
    ended = f"{said} for the pipeline {report.pipeline}"
    return as_sentence(f"{ended}: {why}" if why else ended)


def say_decision(decision: Decision, *, ready: bool = True) -> str:
    """Return what is wanted of a pipeline, and why it does not run yet.

    Args:
        decision: What the board makes of its orders.
        ready: It answers; what is followed does not run otherwise.
    """
    wanted = decision.desired
    if wanted is None:
        return as_sentence(decision.detail or "Nobody says what should run")
    what = f"{wanted.model} {wanted.version}"
    if decision.state == "runs":
        return f"Runs what is wanted: {what}." if ready else f"Wanted: {what}."
    why = decision.detail or explain(decision.reason)
    if why.startswith(decision.state):
        return as_sentence(f"Wanted: {what}; it {why}")
    text = f"Wanted: {what}, {decision.state}"
    return as_sentence(f"{text}: {why}" if why else text)


def say_ladder(ladder: LadderState) -> str:
    """Return why a pipeline is held back, and what is done about it."""
    return say_held(ladder.detail, ladder.measures, ladder.lacking)


def held_level(ladder: LadderState) -> str:
    """Return the level at which it is shown that a pipeline is held back."""
    if ladder.level is Level.SAFE:
        return "error"
    return "info" if ladder.level is Level.SUSPECT else "warning"


def progress_share(progress: Progress | None) -> float | None:
    """Return how much of an update is fetched, from 0 to 1; None where unknown."""
    if progress is None or progress.total_bytes <= 0:
        return None
    return min(1.0, progress.done_bytes / progress.total_bytes)


def alarm_level(alarm: Alarm) -> str:
    """Return the level at which an alarm is shown."""
    return "error" if alarm.scope in {"output", "stuck"} else "warning"
