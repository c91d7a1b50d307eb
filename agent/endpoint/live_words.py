"""What the page says in sentences: alarms, phases, refusals, what waits and why.

The rules this module keeps:
 * Whole sentences in plain words; the stable ``reason`` word stands beside them for who
   wants to look it up.
 * Names that came from outside stand in the text as they are: the page writes text,
   never markup.

>>> say_result("refused", "digits", 9)
'Refused digits 9'
"""

from collections.abc import Iterator, Mapping

from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.core.snapshot import AgentSnapshot, PipelineSnapshot, UpdateSnapshot
from agent.core.updates import Decision, Progress
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
_ANCHORS = {
    "shipped": "the data that the model shipped with",
    "site": "what this board saw when it was commissioned",
}
_THROTTLES = {
    "under_voltage": "The supply voltage is too low.",
    "throttled": "The processor is throttled.",
    "frequency_capped": "The processor's frequency is capped.",
    "soft_temperature_limit": "The processor is slowed down to stay cool.",
}


def explain(reason: str) -> str:
    """Return what a reason means, in one sentence; empty without one."""
    try:
        known = EXPLANATIONS.get(Reason(reason))
    except ValueError:  # of a newer agent's state on the disk
        return ""
    return known.what if known else ""


def say_alarm(alarm: Alarm) -> str:
    """Return what an alarm means."""
    text = _ALARMS[alarm.scope].format(anchor=_ANCHORS[alarm.anchor])
    return f"{text}{' (confirmed)' if alarm.confirmed else ''}."


def say_anchor(state: AnchorState) -> str:
    """Return what the present is compared with, or why it is not."""
    name = _ANCHORS[state.anchor]
    if state.valid:
        how = f" ({state.calibration} thresholds)" if state.calibration else ""
        return f"Compared with {name}{how}."
    if state.reason == Reason.COMMISSIONING:
        so_far = f"{state.collected} of {state.wanted} samples"
        return f"Learning what is normal here: {so_far}."
    why = state.detail or explain(state.reason)
    return f"Not compared with {name}{f': {why}' if why else '.'}"


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


def say_decision(decision: Decision) -> str:
    """Return what is wanted of a pipeline, and why it does not run yet."""
    wanted = decision.desired
    if wanted is None:
        return decision.detail or "Nobody says what should run."
    what = f"{wanted.model} {wanted.version}"
    if decision.state == "runs":
        return f"Runs what is wanted: {what}."
    why = decision.detail or explain(decision.reason)
    if why.startswith(decision.state):
        return f"Wanted: {what}; it {why}."
    return f"Wanted: {what}, {decision.state}{f': {why}' if why else '.'}"


def notices(
    agent: AgentSnapshot, throttled: tuple[tuple[str, bool], ...]
) -> Iterator[tuple[str, str]]:
    """Yield (level, sentence) of everything that somebody should know at once."""
    for pipeline in agent.pipelines:
        yield from _of_pipeline(pipeline)
    for kind, holds in throttled:
        if holds:
            words = _THROTTLES.get(kind, kind.replace("_", " ").capitalize() + ".")
            yield "warning", words
    if agent.update.clock_floor_lag_s > 0:
        yield "warning", "The board's clock is behind: it was later than this before."
    if agent.update.trouble is not None:
        reason, message = agent.update.trouble
        yield "warning", f"The last look for updates failed: {message} [{reason}]"


def progress_share(progress: Progress | None) -> float | None:
    """Return how much of an update is fetched, from 0 to 1; None where unknown."""
    if progress is None or progress.total_bytes <= 0:
        return None
    return min(1.0, progress.done_bytes / progress.total_bytes)


def _of_pipeline(pipeline: PipelineSnapshot) -> Iterator[tuple[str, str]]:
    """What is wrong with one pipeline: it does not answer, or what it sees is odd."""
    name = pipeline.name
    if not pipeline.ready:
        why = explain(pipeline.reason) or "It is not ready."
        # Beginning is no fault, and passes within a moment.
        level = "info" if pipeline.reason == Reason.STARTING else "error"
        yield level, f"{name} does not answer: {why} [{pipeline.reason or 'unknown'}]"
    watch = pipeline.active_watch()
    for alarm in watch.monitored.alarms if watch else ():
        if alarm.active:
            yield alarm_level(alarm), f"{name}: {say_alarm(alarm)}"


def alarm_level(alarm: Alarm) -> str:
    """Return the level at which an alarm is shown."""
    return "error" if alarm.scope in {"output", "stuck"} else "warning"
