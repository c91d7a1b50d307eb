"""Judging a probation: early on failure alone, and never on another's counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as with_rules

from agent.core.counts import EMPTY, add_sections
from agent.core.histogram import BUCKETS, bucket_index
from agent.core.manifest import Budgets, TrialRules
from agent.core.probation import (
    CALM,
    FEWEST_BEFORE,
    Evidence,
    OutputDrift,
    count_failed,
    durations_among,
    durations_of,
    failed_share,
    judge_probation,
    output_drift,
    section_since,
)
from agent.core.reasons import Reason
from agent.core.shadow_verdict import Durations
from agent.core.statistics_block import (
    OK,
    OUTCOME_INDEX,
    OUTCOMES,
    STAGES,
    Section,
    StageCounts,
)
from agent.core.watching import (
    ANCHORS,
    SCOPES,
    Alarm,
    ModelWatch,
    Monitored,
    Score,
)
from tests.core.test_counts import sections

BUDGETS = Budgets(p95_ms=10.0)
RULES = TrialRules(
    probation_s=60.0, probation_samples=100, wait_s=30.0, max_failed=0.05
)
FAST = Durations(0, 0.0)


def evidence(
    seconds: float, answered: int, failed: int = 0, durations: Durations = FAST
) -> Evidence:
    """Return evidence without a model before."""
    return Evidence(seconds, answered, failed, durations)


def withheld(seconds: float, answered: int, failed: int = 0) -> Evidence:
    """Return evidence of a candidate that the ladder keeps from answering."""
    return Evidence(seconds, answered, failed, FAST, withheld=Reason.HEAT)


@pytest.mark.parametrize(
    ("known", "state", "reason"),
    [
        (evidence(59, 10**6), "undecided", ""),
        (evidence(60, 100), "passed", ""),
        (evidence(60, 99), "undecided", ""),
        (evidence(89, 99), "undecided", ""),
        (evidence(90, 99), "passed", ""),
        (evidence(90, 10), "passed", ""),
        (evidence(90, 9), "unseen", "source_silent"),
        (evidence(1, 95, 5), "undecided", ""),
        (evidence(1, 94, 6), "failed", "failures"),
        (evidence(1, 0, 9), "undecided", ""),
        (evidence(1, 0, 10), "failed", "failures"),
        (evidence(90, 0, 1), "failed", "failures"),
        (evidence(1, 100, 0, Durations(20, 10.1)), "failed", "latency"),
        (evidence(1, 100, 0, Durations(20, 9.9)), "undecided", ""),
        (withheld(1, 0, 100), "undecided", ""),
        (withheld(60, 10**6), "undecided", ""),
        (withheld(90, 10**6), "unseen", "heat"),
    ],
)
def test_verdicts(known: Evidence, state: str, reason: str) -> None:
    """Each rule, at its limit and just beyond it."""
    verdict = judge_probation(known, RULES, BUDGETS)
    assert (verdict.state, str(verdict.reason)) == (state, reason)


SLOW, CALM_SLOW = Durations(1000, 99.0), Durations(20, 99.0)


@pytest.mark.parametrize(
    ("durations", "calm", "slowed", "states"),
    [
        (SLOW, CALM_SLOW, "", ("failed", "failed", "failed")),
        # One bad moment: the rest of the time counts as ever.
        (SLOW, CALM_SLOW, "under_voltage", ("failed", "failed", "failed")),
        (SLOW, Durations(20, 9.0), "heat", ("undecided", "passed", "passed")),
        # No rest of the time: it is waited for, and nobody passes unjudged.
        (SLOW, Durations(19, 9.0), "heat", ("undecided", "undecided", "unseen")),
        # Fast enough even so.
        (Durations(1000, 9.0), FAST, "heat", ("undecided", "passed", "passed")),
        (
            Durations(1000, 9.0, 4.0),
            FAST,
            "throttled",
            ("undecided", "undecided", "unseen"),
        ),
    ],
)
def test_a_board_that_was_slowed_down(
    durations: Durations, calm: Durations, slowed: str, states: tuple[str, ...]
) -> None:
    """What was timed then fails nobody, and lets nobody pass who did not keep it."""
    rules = with_rules(RULES, max_slowdown=2.0)
    for seconds, state in zip((1, 60, 90), states, strict=True):
        known = Evidence(seconds, 1000, 0, durations, slowed=Reason(slowed), calm=calm)
        found = judge_probation(known, rules, BUDGETS)
        assert found.state == state
        assert found.excused is (state == "unseen")


@given(st.integers(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0, 200))
def test_a_slowed_board_lets_nobody_pass_without_a_look(
    timed: int, p95_ms: float, calm_ms: float, seconds: float
) -> None:
    """Law: who passes kept its budget in all of the time, or in enough calm time."""
    known = Evidence(
        seconds,
        1000,
        0,
        Durations(1000, p95_ms),
        slowed=Reason.HEAT,
        calm=Durations(timed, calm_ms),
    )
    if judge_probation(known, RULES, BUDGETS).state == "passed":
        assert p95_ms <= 10 or (timed >= 20 and calm_ms <= 10)


def test_no_time_and_no_number_is_no_probation() -> None:
    """Without rules it passes at once."""
    verdict = judge_probation(evidence(0.0, 0), TrialRules(), BUDGETS)
    assert verdict.state == "passed"


@pytest.mark.parametrize("reason", [Reason.CRASH, Reason.HANG, Reason.MEMORY])
def test_a_death_ends_it(reason: Reason) -> None:
    """However well it has done."""
    known = Evidence(10**6, 10**6, 0, FAST, ended_by=reason)
    verdict = judge_probation(known, RULES, BUDGETS)
    assert (verdict.state, verdict.reason) == ("failed", reason)


def test_failures_of_the_input_are_forgiven() -> None:
    """What failed as often with the model before it is no fault of this one."""
    known = Evidence(60, 70, 30, FAST, failed_before=0.3)
    assert judge_probation(known, with_rules(RULES, probation_samples=70), BUDGETS) == (
        judge_probation(evidence(60, 100), RULES, BUDGETS)
    )


@given(st.floats(0, 200), st.integers(0, 300), st.integers(0, 50), st.floats(0, 1000))
def test_more_time_never_hurts(
    seconds: float, answered: int, failed: int, more: float
) -> None:
    """With more time and no more failures, a pass stays a pass."""
    before = judge_probation(evidence(seconds, answered, failed), RULES, BUDGETS)
    after = judge_probation(evidence(seconds + more, answered, failed), RULES, BUDGETS)
    if before.state == "passed":
        assert after.state == "passed"


@given(st.floats(0, 59.9), st.integers(0, 300), st.integers(0, 300), st.floats(0, 50))
def test_it_ends_early_on_failure_alone(
    seconds: float, answered: int, failed: int, p95_ms: float
) -> None:
    """Before its time is over it is undecided or failed."""
    known = evidence(seconds, answered, failed, Durations(answered, p95_ms))
    verdict = judge_probation(known, RULES, BUDGETS)
    assert verdict.state in ("undecided", "failed")


@given(sections(), sections())
def test_differences_undo_sums(before: Section, more: Section) -> None:
    """``add_sections(before, section_since(both, before))`` is both."""
    both = add_sections(before, more)
    assert add_sections(before, section_since(both, before)) == both


def counted(ok: int, failed: int, ms: float) -> Section:
    """Return a section of answers that all took as long."""
    outcomes = [0] * len(OUTCOMES)
    outcomes[OK], outcomes[OUTCOME_INDEX[Reason.INVOKE]] = ok, failed
    outcomes[OUTCOME_INDEX[Reason.OVERRUN]] = 7  # dropped: no failure
    buckets = [0] * BUCKETS
    buckets[bucket_index(int(ms * 1e6))] = ok
    stages = [StageCounts(0, (0,) * BUCKETS)] * (len(STAGES) - 1)
    return Section(
        1,
        ok + failed + 7,
        tuple(outcomes),
        (*stages, StageCounts(0, tuple(buckets))),
        EMPTY.labels,
    )


def test_what_a_section_says() -> None:
    """Failures are those that ended as failed; durations are of answers."""
    section = counted(300, 100, 2.0)
    assert count_failed(section) == 100
    assert failed_share(section) == 0.25
    assert failed_share(counted(FEWEST_BEFORE // 2, 10, 2.0)) == 0.0
    measured = durations_of(section, counted(FEWEST_BEFORE, 0, 1.0))
    assert measured.timed == 300
    assert measured.p95_ms == pytest.approx(2.0, rel=0.1)
    assert measured.before_ms == pytest.approx(1.0, rel=0.1)
    assert durations_of(section, counted(FEWEST_BEFORE - 1, 0, 1.0)).before_ms == 0.0
    assert durations_of(EMPTY).p95_ms == 0.0
    among = durations_among(counted(40, 0, 5.0).stages[-1].buckets, measured)
    assert (among.timed, among.before_ms) == (40, measured.before_ms)
    assert among.p95_ms == pytest.approx(5.0, rel=0.1)


def said(samples: int, *alarms: Alarm, scores: tuple[Score, ...] = ()) -> ModelWatch:
    """Return what a model's monitor says."""
    return ModelWatch(
        "kws", 7, Monitored(samples=samples, alarms=alarms, scores=scores)
    )


OFF = Alarm("shipped", "output", active=True, raised=1)


@pytest.mark.parametrize(
    ("drift", "state", "reason"),
    [
        (OutputDrift(watched=9, alarmed=True), "undecided", ""),
        (OutputDrift(watched=10, alarmed=True), "failed", "drift"),
        (OutputDrift(watched=10, alarmed=True, before=True), "undecided", ""),
        (OutputDrift(watched=10, alarmed=True, moved=True), "undecided", ""),
        (OutputDrift(watched=10**6, ratio=0.99), "undecided", ""),
    ],
)
def test_drift_of_the_output(drift: OutputDrift, state: str, reason: str) -> None:
    """It fails early, after a few samples, unless something else explains it."""
    known = Evidence(1.0, 100, 0, FAST, drift=drift)
    verdict = judge_probation(known, RULES, BUDGETS)
    assert (verdict.state, str(verdict.reason)) == (state, reason)


def test_drift_is_told_with_its_score() -> None:
    """The detail says how far, and after how many samples."""
    drift = OutputDrift(watched=250, alarmed=True, ratio=1.8)
    verdict = judge_probation(Evidence(1.0, 300, 0, FAST, drift=drift), RULES, BUDGETS)
    assert verdict.detail == (
        "its output is not that of its profile: 1.80 times the threshold after "
        "250 samples"
    )


@given(
    anchor=st.sampled_from(ANCHORS),
    scope=st.sampled_from(SCOPES),
    active=st.booleans(),
)
def test_only_the_output_beside_its_profile_counts(
    anchor: str, scope: str, *, active: bool
) -> None:
    """Law: neither input drift nor the site's baseline fails a candidate."""
    alarm = Alarm(anchor, scope, active=active, raised=3)  # type: ignore[arg-type]  # sampled
    found = output_drift(said(500, alarm), None, None)
    assert found.alarmed is (active and (anchor, scope) == ("shipped", "output"))


def test_what_is_known_of_a_drift() -> None:
    """Samples since the swap; the highest score of the output beside its profile."""
    scores = (
        Score("shipped", "all", "mewma", 9.0),
        Score("site", "output", "mewma", 8.0),
        Score("shipped", "output", "etable", 0.5),
        Score("shipped", "output", "mewma", 1.5),
    )
    now = said(500, OFF, scores=scores)
    assert output_drift(now, said(400), said(9)) == OutputDrift(100, True, 1.5)
    assert output_drift(now, None, said(9, OFF)) == OutputDrift(500, True, 1.5, True)
    assert output_drift(None, None, said(9, OFF)) == OutputDrift()


def moving(
    *, active: bool = False, raised: int = 0, ratio: float = 0.0, output: bool = True
) -> ModelWatch:
    """Return what a monitor says whose input is, was or may soon be off."""
    alarm = Alarm("shipped", "input", active=active, raised=raised)
    scores = (
        Score("shipped", "input", "mewma", ratio),
        Score("shipped", "output", "mewma", 1.5),
    )
    return said(500, *((OFF, alarm) if output else (alarm,)), scores=scores)


@pytest.mark.parametrize(
    ("now", "since", "before", "blamed"),
    [
        (moving(), None, None, True),
        (moving(ratio=CALM), None, said(9), True),
        # A door was opened during the probation: off, off before, or soon to be off.
        (moving(active=True, raised=1), None, said(9), False),
        (moving(raised=1), None, said(9), False),
        (moving(ratio=CALM + 0.01), None, said(9), False),
        # An alarm of an earlier trial is none of this one.
        (moving(raised=1), moving(raised=1), said(9), True),
        (moving(raised=2), moving(raised=1), said(9), False),
        # The model before it answered as it should on an input as foreign to it.
        (moving(raised=1), None, moving(active=True, output=False), True),
        (moving(ratio=0.7), None, moving(ratio=0.6, output=False), True),
        (moving(raised=1), None, moving(raised=1, output=False), False),
        (moving(raised=1), None, moving(active=True), False),
    ],
)
def test_an_input_that_moves_blames_nobody(
    now: ModelWatch,
    since: ModelWatch | None,
    before: ModelWatch | None,
    *,
    blamed: bool,
) -> None:
    """Only where its input is calm, or was foreign before, it is the candidate."""
    assert output_drift(now, since, before).blamed is blamed


@given(
    raised=st.integers(0, 5),
    more=st.integers(0, 5),
    ratio=st.floats(0, 9),
    further=st.floats(0, 9),
    active=st.booleans(),
)
def test_more_drift_of_the_input_excuses_more(
    *, raised: int, more: int, ratio: float, further: float, active: bool
) -> None:
    """Law: who is excused stays so when the input moves further."""
    now = moving(raised=raised, ratio=ratio)
    later = moving(active=active, raised=raised + more, ratio=ratio + further)
    if output_drift(later, None, said(9)).blamed:
        assert output_drift(now, None, said(9)).blamed


@given(
    watched=st.integers(0, 10**6),
    alarmed=st.booleans(),
    before=st.booleans(),
    ratio=st.floats(0, 1e9),
)
def test_a_candidate_that_no_alarm_names_is_not_failed(
    *, watched: int, alarmed: bool, before: bool, ratio: float
) -> None:
    """Law: without an alarm, or beside a model that had it too, drift fails nobody."""
    drift = OutputDrift(watched, alarmed, ratio, before)
    verdict = judge_probation(Evidence(60.0, 100, 0, FAST, drift=drift), RULES, BUDGETS)
    fails = alarmed and not before and watched >= 10
    assert verdict.state == ("failed" if fails else "passed")
