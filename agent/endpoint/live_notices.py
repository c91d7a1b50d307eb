"""What somebody should know at once: the page's notices, and a word for each pipeline.

The rules this module keeps:
 * A sentence says what is wrong and how much; ``since`` says from when on, if known.
 * There is one word for a pipeline: all places of the page show the same.
 * The worst comes first: a page folds the others away.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.core.degradation import LadderState, Level
from agent.core.ladder_words import LEVELS
from agent.core.meter_status import say_thinned, thinned_to
from agent.core.reasons import Reason
from agent.core.snapshot import AgentSnapshot, PipelineSnapshot, UpdateSnapshot
from agent.core.statistics_block import OUTCOMES
from agent.core.superseded import is_superseded
from agent.core.trend import PERIOD_S, TrendPoint
from agent.core.updates import Report
from agent.core.watching import ModelWatch
from agent.endpoint.live_server import say_trouble
from agent.endpoint.live_words import (
    advise,
    alarm_level,
    as_sentence,
    explain,
    held_level,
    say_alarm,
    say_decision,
    say_ladder,
    say_report,
)

LOOKED_BACK_S = 60.0  # a share of less is chance at a sample a second
FEW_SHARE, MANY_SHARE = 0.01, 0.1  # failing samples: a warning, an error
ODD_SHARE = 0.01  # invalid inputs among those that were watched
RANKS = {"error": 0, "warning": 1, "info": 2}
_WINDOW = int(LOOKED_BACK_S / PERIOD_S)
_THROTTLES = {
    "under_voltage": "The supply voltage is too low.",
    "throttled": "The processor is throttled.",
    "frequency_capped": "The processor's frequency is capped.",
    "soft_temperature_limit": "The processor is slowed down to stay cool.",
    "over_current": "The board draws more current than its supply may give.",
}
_ODD = {
    "nan": "NaN or infinity",
    "range": "values far outside of what it knows",
    "shape": "another shape",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One line; ``since`` in Unix seconds, 0 where nobody knows."""

    level: str
    text: str
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Failing:
    """Samples that become no answer.

    Attributes:
        share: Of those of the last ``LOOKED_BACK_S``, above 0.
        since: Unix seconds of the first, 0 where the trend does not reach so far back.
    """

    share: float
    since: float

    @property
    def level(self) -> str:
        """How grave it is."""
        return "error" if self.share >= MANY_SHARE else "warning"


def find_failing(points: Sequence[TrendPoint]) -> Failing | None:
    """Return how many samples fail now, None where hardly any does."""
    recent = points[-_WINDOW:]
    failed = sum(point.failed for point in recent)
    total = failed + sum(point.rate for point in recent)
    if total <= 0 or failed / total < FEW_SHARE:
        return None
    first = len(points)
    # A slow source fails once in a while: a minute without is the end of a storm.
    for at in range(len(points) - 1, -1, -1):
        if first - at > _WINDOW:
            break
        if points[at].failed > 0:
            first = at
    return Failing(failed / total, points[first].at if first else 0.0)


def judge_health(
    pipeline: PipelineSnapshot, points: Sequence[TrendPoint], every: int = 1
) -> tuple[str, str]:
    """Return one word or two about a pipeline, and the level at which they stand.

    Args:
        pipeline: As of now.
        points: Its last minutes.
        every: It answers one sample in so many, for want of units.
    """
    if not pipeline.ready:
        word = pipeline.reason.replace("_", " ") or "not ready"
        return word, "wait" if pipeline.reason == Reason.STARTING else "error"
    watch = pipeline.active_watch()
    alarms = [it for it in watch.monitored.alarms if it.active] if watch else []
    stuck = any(it.scope == "stuck" for it in alarms)
    if failing := find_failing(points):
        return f"fails {_percent(failing.share)}", failing.level
    if alarms:
        worst = min(map(alarm_level, alarms), key=lambda level: RANKS[level])
        return "stuck" if stuck else "drifts", worst
    if every > 1:
        return say_thinned(every), "warning"
    if pipeline.ladder.level.rank >= Level.DEGRADED.rank:
        return str(pipeline.ladder.level), held_level(pipeline.ladder)
    tried = pipeline.state == "candidate"
    return ("answers, on trial", "warning") if tried else ("answers", "good")


def find_notices(
    agent: AgentSnapshot,
    throttled: Sequence[tuple[str, bool]] = (),
    trends: Mapping[str, Sequence[TrendPoint]] | None = None,
    reports: Sequence[Report] = (),
) -> list[Notice]:
    """Return everything that somebody should know at once, the worst first.

    Args:
        agent: The agent as of now.
        throttled: What slows the board down.
        trends: The last minutes of each pipeline.
        reports: How updates ended, newest first.
    """
    found = list[Notice]()
    for pipeline in agent.pipelines:
        found += _of_pipeline(pipeline, (trends or {}).get(pipeline.name, ()))
        every = thinned_to(agent.meter, pipeline.name)
        if every > 1:
            words = f"{pipeline.name} is {say_thinned(every)}. {advise(Reason.UNPAID)}"
            found.append(Notice("warning", words))
    for kind, holds in throttled:
        if holds:
            words = _THROTTLES.get(kind, kind.replace("_", " ").capitalize() + ".")
            found.append(Notice("warning", words))
    names = [it.name for it in agent.pipelines]
    found += _of_updates(agent.update, names, reports)
    return sorted(found, key=lambda it: RANKS[it.level])


def _of_pipeline(
    pipeline: PipelineSnapshot, points: Sequence[TrendPoint]
) -> Iterator[Notice]:
    """What is wrong with one pipeline: no answer, bad samples, odd ones."""
    name = pipeline.name
    if not pipeline.ready:
        why = explain(pipeline.reason) or "It is not ready."
        # Beginning is no fault, and passes within a moment.
        level = "info" if pipeline.reason == Reason.STARTING else "error"
        word = pipeline.reason or "unknown"
        todo = advise(pipeline.reason) if level == "error" else ""
        text = f"{name} does not answer: {as_sentence(why)} [{word}] {todo}"
        yield Notice(level, text.rstrip())
    if failing := find_failing(points):
        share = _percent(failing.share)
        text = f"{name}: {share} of the last minute's samples failed."
        yield Notice(failing.level, f"{text}{_most_often(pipeline)}", failing.since)
    if pipeline.ladder.level is not Level.NORMAL:
        yield _of_ladder(name, pipeline.ladder)
    if watch := pipeline.active_watch():
        yield from _of_watch(name, watch, odd=failing is None)


def _of_ladder(name: str, ladder: LadderState) -> Notice:
    """How much a pipeline is held back, why, and what is done about it."""
    text = f"{name} {LEVELS[ladder.level]}: {as_sentence(say_ladder(ladder))}"
    return Notice(held_level(ladder), text, ladder.since)


def _of_watch(name: str, watch: ModelWatch, *, odd: bool) -> Iterator[Notice]:
    """Alarms, and inputs that cannot be; the latter unless they are told already."""
    said = watch.monitored
    for alarm in said.alarms:
        if not alarm.active:
            continue
        much = f" {said.repeated:,} repeated so far." if alarm.scope == "stuck" else ""
        since = watch.last_alarm.get((alarm.anchor, alarm.scope), 0.0)
        yield Notice(alarm_level(alarm), f"{name}: {say_alarm(alarm)}{much}", since)
    invalid = sum(said.invalid.values())
    if odd and invalid > ODD_SHARE * max(1, said.samples):
        kinds = {kind: count for kind, count in said.invalid.items() if count}
        words = ", ".join(f"{it:,} with {_ODD[kind]}" for kind, it in kinds.items())
        yield Notice("warning", f"{name}: inputs so far that cannot be right: {words}.")


def _of_updates(
    update: UpdateSnapshot, names: Sequence[str], reports: Sequence[Report]
) -> Iterator[Notice]:
    """What stops all updates; how the last one of each pipeline ended, if badly."""
    yield from _of_looks(update)
    newest: dict[str, Report] = {}
    for report in reports:
        newest.setdefault(report.pipeline, report)
    for name in names:
        last = newest.get(name)
        past = last is not None and is_superseded(last, update.decisions)
        if last is not None and last.result != "committed" and not past:
            at = last.ended_at or last.began_at
            yield Notice(
                "warning", f"The last update ended badly. {say_report(last)}", at
            )
            continue
        refused = (it for it in update.decisions if it.pipeline == name)
        for decision in refused:
            if decision.state == "refused":
                yield Notice("warning", f"{name}: {say_decision(decision)}")


def _of_looks(update: UpdateSnapshot) -> Iterator[Notice]:
    """What keeps this board from seeing what is wanted of it."""
    if update.ddi is not None and update.ddi.trouble is not None:
        text = (
            f"The fleet's orders cannot be followed: {say_trouble(update.ddi.trouble)}"
        )
        yield Notice("warning", text)
    if update.clock_floor_lag_s > 0:
        text = "The board's clock is behind: it was later than this before."
        yield Notice("warning", text)
    if update.trouble is not None:
        reason, message = update.trouble
        text = f"The last look for updates failed: {as_sentence(message)} [{reason}]"
        yield Notice("warning", text)


def _most_often(pipeline: PipelineSnapshot) -> str:
    """Say why most samples failed, of all that ever did."""
    counts: dict[str, int] = {}
    for row in pipeline.counts:
        for (outcome, reason), count in zip(
            OUTCOMES, row.section.outcomes, strict=True
        ):
            if outcome == "failed" and count:
                counts[str(reason)] = counts.get(str(reason), 0) + count
    if not counts:
        return ""
    most = max(counts, key=lambda reason: counts[reason])
    return f" Most often: {as_sentence(explain(most) or most)} [{most}]"


def _percent(share: float) -> str:
    """Return a share as people read it."""
    return f"{share * 100:.0f} %"
