"""How a probation is judged: what the candidate answered since it was let in.

The rules this module keeps:
 * Only differences count: what was there when the candidate was swapped in is taken
   away from what is there now.
 * It ends early on failure alone.
 * A failure rate is compared with that of the model before it on the same input, and
   durations with those of the pair that is committed, not of what stood in for it.
 * Durations of a board that is slowed down (``agent.core.slowness``) fail nobody. Who
   is fast enough even so passes; who is not is judged by what else was timed, which is
   waited for, and tried again later where there is hardly anything.
 * Who is kept from answering by the degradation ladder is not judged: nothing of that
   time is evidence, and it neither passes nor fails by it.
 * A candidate whose output does not look as its shipped profile says fails, unless the
   world explains it: the model before it was off its own profile, too, or the input
   moved since. Of the latter only the candidate's own monitor can tell, for the model
   before it sees nothing any more: its input must be near its profile. Where the input
   was off already while the model before it answered as it should, that excuses nobody;
   nor can it be told then whether it moved further.
 * Drift of the input alone fails nobody: the world is no candidate's fault.

Law: with more time and no more failures, a pass stays a pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.counts import EMPTY
from agent.core.histogram import quantile
from agent.core.manifest import Budgets, TrialRules
from agent.core.reasons import Reason
from agent.core.shadow_verdict import (
    FEWEST_SAMPLES,
    FEWEST_TIMED,
    PASSED,
    UNDECIDED,
    Durations,
    Verdict,
    failed,
    judge_durations,
    unseen_for,
)
from agent.core.statistics_block import OK, OUTCOMES, Section
from agent.core.watching import ModelWatch, Monitored

NS_PER_MS = 1e6
TAIL = 0.95
FEWEST_BEFORE = 100  # samples of the model before, for its failure rate to mean much
OUTPUT = ("shipped", "output")  # the alarm that fails a candidate
INPUT = ("shipped", "input")  # the one that excuses it
# Above this share of its threshold an input may be on its way to an alarm that comes
# only some samples after the output's; without drift it rarely gets there, and a bad
# candidate is failed by the next look below it.
CALM = 0.5
_FAILED = tuple(at for at, (outcome, _) in enumerate(OUTCOMES) if outcome == "failed")


@dataclass(frozen=True, slots=True)
class OutputDrift:
    """What monitors say of outputs beside the profiles that were shipped with them.

    Attributes:
        watched: Answers of the candidate that its monitor has seen.
        alarmed: It says that they look otherwise than they should; ``ratio`` is the
            score of that, above 1 (less while a latched alarm calms down).
        before: The model before was so, too, when the candidate was let in.
        moved: The input was off at some time since, or may be about to be, and was
            calm before.
    """

    watched: int = 0
    alarmed: bool = False
    ratio: float = 0.0
    before: bool = False
    moved: bool = False

    @property
    def blamed(self) -> bool:
        """Whether nothing but the candidate explains what its monitor says."""
        return self.alarmed and not (self.before or self.moved)


NO_DRIFT = OutputDrift()
NOTHING_TIMED = Durations(0, 0.0)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a probation at one moment.

    Attributes:
        seconds: Since the candidate answers.
        answered: Samples it answered, and ``failed`` those it did not.
        durations: How long its answers took; ``calm`` those of the time in which
            nothing slowed the board down.
        failed_before: Share of samples that failed with the model before it.
        ended_by: What ended its worker; a candidate does not survive that.
        drift: Of its output.
        withheld: What keeps it from answering: the ladder's reason, while samples end
            without the model; ``seconds`` go on.
        slowed: What slowed the board down at some time; without it ``calm`` is not
            looked at.
    """

    seconds: float
    answered: int
    failed: int
    durations: Durations
    failed_before: float = 0.0
    ended_by: Reason = Reason.NONE
    drift: OutputDrift = NO_DRIFT
    withheld: Reason = Reason.NONE
    slowed: Reason = Reason.NONE
    calm: Durations = NOTHING_TIMED

    @property
    def samples(self) -> int:
        """Samples that ended."""
        return self.answered + self.failed


def judge_probation(evidence: Evidence, rules: TrialRules, budgets: Budgets) -> Verdict:
    """Judge a candidate that answers.

    Returns:
        ``unseen`` where the time that ``wait_s`` adds is over as well, and there were
        not even a few samples to judge it by, it is still kept from answering, or it
        was too slow on a board that was slowed down nearly all the time.
    """
    if evidence.ended_by:
        what = "its worker did not survive"
        return failed(evidence.ended_by, what)
    wanted = rules.probation_samples
    in_time = evidence.seconds < rules.probation_s
    waited = evidence.seconds >= rules.probation_s + rules.wait_s
    if evidence.withheld:
        what = f"it was kept from answering: {evidence.withheld}"
        return Verdict("unseen", evidence.withheld, what) if waited else UNDECIDED
    enough = evidence.answered >= wanted
    ends = not in_time and (enough or waited)
    verdict = _judge_samples(evidence, rules, budgets, ends=ends)
    excused = verdict.state == "unseen"
    if verdict.state == "failed" or (excused and waited):
        return verdict
    if not ends or excused:
        return UNDECIDED
    if not enough and evidence.answered < min(wanted, FEWEST_SAMPLES):
        what = f"{evidence.answered} answers of {wanted} in {evidence.seconds:.0f} s"
        return Verdict("unseen", Reason.SOURCE_SILENT, what)
    return PASSED


def section_since(now: Section, before: Section) -> Section:
    """Return what was counted in between; the stages of ``now`` less those before.

    Law: ``add_sections(before, section_since(add_sections(before, x), before))`` is
    ``add_sections(before, x)``.
    """
    stages = tuple(
        type(stage)(
            stage.sum_ns - old.sum_ns,
            tuple(a - b for a, b in zip(stage.buckets, old.buckets, strict=True)),
        )
        for stage, old in zip(now.stages, before.stages, strict=True)
    )
    return Section(
        generation=now.generation,
        received=now.received - before.received,
        outcomes=_less(now.outcomes, before.outcomes),
        stages=stages,
        labels=_less(now.labels, before.labels),
    )


def count_failed(section: Section) -> int:
    """Return how many samples failed."""
    return sum(section.outcomes[at] for at in _FAILED)


def failed_share(section: Section) -> float:
    """Return the share of ended samples that failed; 0 where too few are known."""
    lost = count_failed(section)
    ended = section.outcomes[OK] + lost
    return lost / ended if ended >= FEWEST_BEFORE else 0.0


def durations_of(section: Section, before: Section = EMPTY) -> Durations:
    """Return the durations of whole samples, beside those of the model before."""
    timed, tail_ms = _tail(section.stages[-1].buckets)
    known, before_ms = _tail(before.stages[-1].buckets)
    return Durations(timed, tail_ms, before_ms if known >= FEWEST_BEFORE else 0.0)


def durations_among(buckets: Sequence[int], whole: Durations) -> Durations:
    """Return the same of some of the samples only, as a histogram has them."""
    timed, tail_ms = _tail(buckets)
    return Durations(timed, tail_ms, whole.before_ms)


def output_drift(
    now: ModelWatch | None, since: ModelWatch | None, before: ModelWatch | None
) -> OutputDrift:
    """Return what monitors say of a candidate's output.

    Args:
        now: The candidate's watch; None while nobody watches it.
        since: The same just before it was let in: an earlier trial's, if there is one.
        before: The active model's, at that time.
    """
    if now is None:
        return NO_DRIFT
    said = now.monitored
    known = since.monitored if since else Monitored()
    was_calm = before is None or _is_calm(before.monitored)
    return OutputDrift(
        watched=said.samples - known.samples,
        alarmed=_is_off(said, OUTPUT),
        ratio=_highest(said, OUTPUT),
        before=before is not None and _is_off(before.monitored, OUTPUT),
        moved=was_calm and _has_moved(said, known),
    )


def _judge_samples(
    evidence: Evidence, rules: TrialRules, budgets: Budgets, *, ends: bool
) -> Verdict:
    """Judge failures and durations, as soon as there are a few."""
    if evidence.samples < FEWEST_SAMPLES and not ends:
        return UNDECIDED
    allowed = min(1.0, rules.max_failed + evidence.failed_before)
    if evidence.failed > allowed * evidence.samples:
        what = f"{evidence.failed} of {evidence.samples} samples failed"
        return failed(Reason.FAILURES, f"{what}, {allowed:.1%} allowed")
    drift = evidence.drift
    # A report of an earlier load says nothing about this one: it must have seen some.
    if drift.blamed and drift.watched >= FEWEST_SAMPLES:
        what = f"{drift.ratio:.2f} times the threshold after {drift.watched} samples"
        return failed(Reason.DRIFT, f"its output is not that of its profile: {what}")
    return _judge_time(evidence, rules, budgets)


def _judge_time(evidence: Evidence, rules: TrialRules, budgets: Budgets) -> Verdict:
    """Judge durations; ``unseen`` where only a slowed board shows that it is slow."""
    whole = judge_durations(evidence.durations, rules, budgets)
    if whole.state == "passed" or not evidence.slowed:
        return whole
    if evidence.calm.timed < FEWEST_TIMED:
        return unseen_for(evidence.slowed, whole)
    return judge_durations(evidence.calm, rules, budgets)


def _has_moved(said: Monitored, since: Monitored) -> bool:
    """Whether the input was off at some time since then, or is not calm now.

    Both alarms calm down after it, and the output's may be the later one: so what was
    raised once counts for the rest of the probation.
    """
    return _raised(said, INPUT) > _raised(since, INPUT) or not _is_calm(said)


def _is_calm(said: Monitored) -> bool:
    """Whether the input is near its shipped profile, and not about to leave it."""
    return not _is_off(said, INPUT) and _highest(said, INPUT) <= CALM


def _is_off(said: Monitored, what: tuple[str, str]) -> bool:
    """Whether something does not look as the shipped profile says."""
    return any(it.active and (it.anchor, it.scope) == what for it in said.alarms)


def _raised(said: Monitored, what: tuple[str, str]) -> int:
    """Return how often an alarm was raised."""
    return sum(it.raised for it in said.alarms if (it.anchor, it.scope) == what)


def _highest(said: Monitored, what: tuple[str, str]) -> float:
    """Return the highest score about something, 0 without one."""
    found = (it.ratio for it in said.scores if (it.anchor, it.scope) == what)
    return max(found, default=0.0)


def _tail(buckets: Sequence[int]) -> tuple[int, float]:
    """Return how many whole samples were timed, and their 95th percentile in ms."""
    timed = sum(buckets)
    return timed, quantile(buckets, TAIL) / NS_PER_MS if timed else 0.0


def _less(now: Sequence[int], before: Sequence[int]) -> tuple[int, ...]:
    """Return the differences."""
    return tuple(a - b for a, b in zip(now, before, strict=True))
