"""Adding up reports over workers: nothing falls, nothing overflows, no false news."""

from functools import reduce

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.watch_totals import (
    LIMIT,
    active_alarms,
    add,
    rest,
    rise,
    transitions,
    with_anchor,
)
from agent.core.watching import (
    ANCHORS,
    CONFIDENCE_BUCKETS,
    SCOPES,
    Alarm,
    AnchorState,
    FeatureDrift,
    Monitored,
    Score,
)

QUIET = Monitored()
counts = st.integers(0, LIMIT)
few = st.integers(0, 5)
alarms = st.builds(
    Alarm,
    anchor=st.sampled_from(ANCHORS),
    scope=st.sampled_from(SCOPES),
    active=st.booleans(),
    confirmed=st.booleans(),
    raised=st.one_of(few, counts),
)
reports = st.builds(
    Monitored,
    samples=counts,
    interval=st.integers(1, 1000),
    spent_ns=counts,
    share=st.floats(0, 1),
    windows=counts,
    alarms=st.lists(alarms, max_size=16).map(tuple),
    confidence=st.lists(
        counts, min_size=CONFIDENCE_BUCKETS, max_size=CONFIDENCE_BUCKETS
    ).map(tuple),
    # Eighths add up without rounding, so that sums of them are associative.
    confidence_sum=st.integers(0, 10**6).map(lambda n: n / 8),
    repeated=counts,
    invalid=st.dictionaries(st.sampled_from(["nan", "range", "shape"]), counts),
    predictions=st.lists(counts, max_size=65).map(tuple),
)


def alarm(*, active: bool = True, confirmed: bool = False, raised: int = 1) -> Alarm:
    """Return an alarm about the input beside the site's baseline."""
    return Alarm("site", "input", active=active, confirmed=confirmed, raised=raised)


def loud(*, active: bool = True, confirmed: bool = False, raised: int = 1) -> Monitored:
    """Return what a monitor says with one alarm."""
    return Monitored(alarms=(alarm(active=active, confirmed=confirmed, raised=raised),))


def counters(said: Monitored) -> dict[str, float]:
    """Return every counter of a report by a name of its own."""
    found: dict[str, float] = {
        "samples": said.samples,
        "spent_ns": said.spent_ns,
        "windows": said.windows,
        "repeated": said.repeated,
        "confidence_sum": said.confidence_sum,
    }
    found |= {f"confidence {at}": n for at, n in enumerate(said.confidence)}
    found |= {f"prediction {at}": n for at, n in enumerate(said.predictions)}
    found |= {f"invalid {why}": n for why, n in said.invalid.items()}
    return found | {f"{it.anchor} {it.scope}": it.raised for it in said.alarms}


def by_scope(said: Monitored) -> dict[tuple[str, str], Alarm]:
    """Index the alarms; the order is not part of what they say."""
    return {(it.anchor, it.scope): it for it in said.alarms}


@given(st.lists(reports, max_size=6))
def test_counters_never_fall(told: list[Monitored]) -> None:
    """Law: whatever a worker reports, no counter falls or gets lost."""
    before = QUIET
    for report in told:
        now = rise(before, report)
        known = counters(now)
        lost = {
            name: count
            for name, count in counters(before).items()
            if known.get(name, -1) < count
        }
        assert lost == {}
        before = now


@given(reports, reports)
def test_counters_of_a_sum_are_at_least_those_of_both(
    one: Monitored, two: Monitored
) -> None:
    """Law: another worker takes nothing away, and adds what it says."""
    total = counters(add(rise(QUIET, one), rise(QUIET, two)))
    for part in (counters(rise(QUIET, one)), counters(rise(QUIET, two))):
        assert {k: n for k, n in part.items() if total[k] < n} == {}


@given(reports, reports, reports)
def test_add_is_associative(one: Monitored, two: Monitored, three: Monitored) -> None:
    """Law: it does not matter when the totals of dead workers are summed."""
    left, right = add(add(one, two), three), add(one, add(two, three))
    assert replace(left, alarms=()) == replace(right, alarms=())
    assert by_scope(left) == by_scope(right)


@given(reports)
def test_nothing_before_leaves_a_report_as_it_is(report: Monitored) -> None:
    """Law: the first worker's report is the total; of two same alarms one is left."""
    total = add(QUIET, report)
    assert replace(total, alarms=()) == replace(report, alarms=())
    assert by_scope(total) == by_scope(report)


@given(st.lists(reports, min_size=1, max_size=5))
def test_sums_can_be_sent_and_shown(told: list[Monitored]) -> None:
    """Law: what workers lie about stays within what the types say."""
    total = reduce(add, told)
    assert msgspec.json.decode(msgspec.json.encode(total), type=Monitored) == total


@given(reports, reports)
def test_transitions_lead_from_one_to_the_other(
    before: Monitored, now: Monitored
) -> None:
    """Law: the active alarms, with what was raised and cleared, are the active ones."""
    active = set(active_alarms(before))
    for change in transitions(before, now):
        key = (change.alarm.anchor, change.alarm.scope)
        if change.event == "drift.alarm":
            active.add(key)
        if change.event == "drift.cleared":
            active.remove(key)
    assert active == set(active_alarms(now))


@given(reports)
def test_the_same_again_is_no_news(report: Monitored) -> None:
    """Law: a report that says what the last one did has no transition."""
    assert transitions(report, report) == ()


@pytest.mark.parametrize(
    ("before", "now", "events"),
    [
        (QUIET, loud(), ["drift.alarm"]),
        (QUIET, loud(confirmed=True), ["drift.alarm", "drift.confirmed"]),
        (loud(), loud(confirmed=True), ["drift.confirmed"]),
        (loud(confirmed=True), loud(), []),
        (loud(), loud(active=False), ["drift.cleared"]),
        (loud(), QUIET, ["drift.cleared"]),
        (loud(active=False), QUIET, []),
        (loud(), loud(raised=2), ["drift.alarm"]),
        (
            loud(confirmed=True),
            loud(confirmed=True, raised=2),
            ["drift.alarm", "drift.confirmed"],
        ),
        (QUIET, loud(active=False, confirmed=True), []),
    ],
)
def test_transitions(before: Monitored, now: Monitored, events: list[str]) -> None:
    """Each way an alarm can go has its events, and a report without one has none."""
    assert [it.event for it in transitions(before, now)] == events


def test_an_alarm_that_a_new_worker_was_handed_is_not_raised_again() -> None:
    """Latched through a worker's death: still active, raised as often as before."""
    before = add(QUIET, loud(raised=3))
    after = add(before, loud(raised=0))
    assert after.alarms == (alarm(raised=3),)
    assert transitions(before, after) == ()


def test_what_raised_an_alarm_stays_known_in_the_next_worker() -> None:
    """It was handed the alarm, not its score; an alarm of its own has its own."""
    told = replace(alarm(), score=1.5, evidence=1.25)
    before = Monitored(alarms=(told,))
    assert add(before, loud(raised=0)).alarms == (told,)
    again = Monitored(alarms=(replace(alarm(), score=3.0),))
    (found,) = add(before, again).alarms
    assert (found.score, found.evidence) == (3.0, 1.25)


def test_gauges_are_those_of_the_last() -> None:
    """Interval, share, scores and features are never summed."""
    one = Monitored(interval=5, share=0.5, scores=(Score("site", "all", "mewma", 2.0),))
    two = Monitored(interval=7, share=0.25)
    total = add(one, two)
    assert (total.interval, total.share, total.scores) == (7, 0.25, ())


def test_not_a_number_never_gets_in() -> None:
    """A sum that is NaN leaves the sum before as it was."""
    report = Monitored(confidence_sum=float("nan"))
    assert rise(Monitored(confidence_sum=2.5), report).confidence_sum == 2.5
    assert rise(QUIET, report).confidence_sum == 0.0


def test_what_answers_no_more_alarms_no_more() -> None:
    """Of a model that was replaced the counters stay, and nothing is active."""
    said = Monitored(
        samples=9,
        share=0.5,
        alarms=(alarm(confirmed=True),),
        scores=(Score("site", "input", "mewma", 2.0),),
        features=(FeatureDrift("site", "mean", 3.0),),
        anchors=(AnchorState("site", valid=True),),
    )
    assert rest(said) == Monitored(
        samples=9, alarms=(alarm(active=False, confirmed=False),)
    )


@given(reports)
def test_the_rest_has_every_counter(report: Monitored) -> None:
    """Law: a model that is replaced loses no count."""
    assert counters(rest(rise(QUIET, report))) == counters(rise(QUIET, report))


def test_one_anchor_is_replaced() -> None:
    """What the daemon knows about an anchor stands in the place of what was said."""
    site, mine = AnchorState("site", valid=True), AnchorState("shipped", valid=False)
    said = Monitored(anchors=(AnchorState("shipped", valid=True), site))
    assert with_anchor(said, mine).anchors == (mine, site)
    twice = Monitored(anchors=(site, site))
    assert with_anchor(twice, mine).anchors == (mine, site)
