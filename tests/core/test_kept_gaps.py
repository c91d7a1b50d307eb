"""What was not kept is said in runs that excuse nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.audit_events import parse_event, render_event
from agent.core.kept_gaps import MAX_RUNS, NOT_KEPT, Gap, Gaps, find_gaps, render_gaps
from agent.core.receipts import name_word

DOOR = name_word("door")


def said(gaps: Gaps) -> list[Gap]:
    """Return what an auditor reads of what was gathered: through events as logged."""
    events = [
        parse_event(render_event(NOT_KEPT, 1e9, facts))
        for name, runs in gaps.take().items()
        for facts in render_gaps(name, runs)
    ]
    return find_gaps(events)


@given(st.lists(st.sampled_from(["kept", "turned away", "failed"]), max_size=60))
def test_runs_are_what_was_not_kept(fates: list[str]) -> None:
    """Each that was not kept is in a run; none that was kept is."""
    gaps = Gaps()
    accepted = [seq for seq, fate in enumerate(fates) if fate != "turned away"]
    for seq, fate in enumerate(fates):  # as they come
        if fate == "turned away":
            gaps.miss("door", seq, late=False)
        else:
            gaps.hit("door", late=False)
    for seq in accepted:  # as the disk takes them, all of them later
        if fates[seq] == "kept":
            gaps.hit("door", late=True)
        else:
            gaps.miss("door", seq, late=True)
    excused = {seq for gap in said(gaps) for seq in range(gap.first, gap.last + 1)}
    assert excused == {seq for seq, fate in enumerate(fates) if fate != "kept"}


@given(
    st.lists(
        st.tuples(st.integers(0, 10**12), st.integers(0, 50)).map(
            lambda it: (it[0], it[0] + it[1])
        ),
        max_size=300,
    )
)
def test_runs_are_given_back(runs: list[tuple[int, int]]) -> None:
    """Through as many events as it takes, none of them cut short."""
    events = [
        parse_event(render_event(NOT_KEPT, 1e9, facts))
        for facts in render_gaps("door", runs)
    ]
    assert find_gaps(events) == [Gap(DOOR, *run) for run in runs]


def test_pipelines_do_not_excuse_each_other() -> None:
    """One is busy, and the other one is not."""
    gaps = Gaps()
    gaps.miss("door", 1, late=False)
    gaps.hit("gate", late=False)
    gaps.miss("door", 3, late=False)
    assert said(gaps) == [Gap(DOOR, 1, 3)]
    assert said(gaps) == []


def test_they_are_bounded() -> None:
    """A disk that takes every second one makes no log of it: the last run grows."""
    gaps = Gaps()
    for seq in range(0, 4 * MAX_RUNS, 2):
        gaps.miss("door", seq, late=True)
        gaps.hit("door", late=True)
    found = said(gaps)
    assert len(found) == MAX_RUNS
    assert found[-1].last == 4 * MAX_RUNS - 2


def test_other_events_and_strange_words_are_passed_over() -> None:
    """Whatever an event says: no fault of who reads it."""
    strange = render_event(
        NOT_KEPT, 1.0, {"pipeline": "door", "runs_0": "x 4- -5 6-7-8 9"}
    )
    other = render_event("model.answers", 1.0, {"runs_0": "1-5"})
    assert find_gaps([parse_event(strange), parse_event(other)]) == [
        Gap(DOOR, 4, 4),
        Gap(DOOR, 9, 9),
    ]
