"""Adding sections: order and grouping do not matter, and closing loses nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.counts import EMPTY, add_sections, close_section, final_block
from agent.core.histogram import BUCKETS
from agent.core.statistics_block import (
    MAX_LABELS,
    OUTCOMES,
    STAGES,
    Block,
    Section,
    StageCounts,
)

numbers = st.integers(min_value=0, max_value=10**12)


def vectors(length: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Return vectors with a few counts in them: full ones would only be slow."""
    places = st.dictionaries(st.integers(0, length - 1), numbers, max_size=4)
    return places.map(lambda at: tuple(at.get(i, 0) for i in range(length)))


stages = st.builds(StageCounts, numbers, vectors(BUCKETS))


@st.composite
def sections(draw: st.DrawFn) -> Section:
    """Return a section with some samples in flight."""
    outcomes = draw(vectors(len(OUTCOMES)))
    return Section(
        generation=draw(st.integers(0, 100)),
        received=sum(outcomes) + draw(st.integers(0, 1)),
        outcomes=outcomes,
        stages=draw(st.tuples(*[stages] * len(STAGES))),
        labels=draw(vectors(MAX_LABELS + 1)),
    )


@given(sections(), sections())
def test_order_does_not_matter(one: Section, other: Section) -> None:
    """Whichever worker is folded first."""
    assert add_sections(one, other) == add_sections(other, one)


@given(sections(), sections(), sections())
def test_grouping_does_not_matter(a: Section, b: Section, c: Section) -> None:
    """However many workers were folded together before."""
    assert add_sections(add_sections(a, b), c) == add_sections(a, add_sections(b, c))


@given(sections())
def test_nothing_adds_nothing(section: Section) -> None:
    """The empty section is neutral."""
    assert add_sections(EMPTY, section) == section


@given(sections(), sections())
def test_every_sum_is_the_sum(one: Section, other: Section) -> None:
    """Received and in flight add up like everything else."""
    both = add_sections(one, other)
    assert both.in_flight == one.in_flight + other.in_flight
    assert sum(both.labels) == sum(one.labels) + sum(other.labels)


@given(sections(), st.integers(0, len(OUTCOMES) - 1))
def test_closing_leaves_nothing_in_flight(section: Section, outcome: int) -> None:
    """What was in flight ended as the one outcome, and nothing else changed."""
    closed = close_section(section, outcome)
    grown = [
        after - before
        for before, after in zip(section.outcomes, closed.outcomes, strict=True)
    ]
    assert closed.in_flight == 0
    assert sum(grown) == grown[outcome] == section.in_flight
    assert (closed.received, closed.stages, closed.labels) == (
        section.received,
        section.stages,
        section.labels,
    )


@given(sections(), st.integers(0, len(OUTCOMES) - 1))
def test_closing_twice_is_closing_once(section: Section, outcome: int) -> None:
    """A second time there is nothing to close."""
    closed = close_section(section, outcome)
    assert close_section(closed, outcome) == closed


def block(received: int, ended: int, next_seq: int) -> Block:
    """Return a block whose worker took, ended and numbered so many samples."""
    buckets = (ended, *(0,) * (BUCKETS - 1))
    section = Section(
        generation=1,
        received=received,
        outcomes=(ended, *(0,) * (len(OUTCOMES) - 1)),
        stages=(StageCounts(0, buckets),) * len(STAGES),
        labels=(0,) * (MAX_LABELS + 1),
    )
    return Block(2, 0, 0, False, 0, 0, 0, next_seq, (0,) * 8, (section, EMPTY))


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        pytest.param(block(5, 5, 6), 9, id="between two samples"),
        pytest.param(block(5, 4, 6), 9, id="with one in flight"),
        pytest.param(block(5, 4, 5), 9, id="taken and not yet numbered"),
    ],
)
def test_the_next_number_follows_the_last_sample(last: Block, expected: int) -> None:
    """Wherever in a sample the last copy lies, no number comes twice."""
    final = final_block(block(8, 8, 9), last)
    assert final is not None
    assert final.next_seq == expected


def test_a_number_that_no_sample_explains_is_not_believed() -> None:
    """A scribbled word does not become the number of the next sample."""
    final = final_block(block(8, 8, 10**9), block(5, 5, 6))
    assert final is not None
    assert final.next_seq <= 10
