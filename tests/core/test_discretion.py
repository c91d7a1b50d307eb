"""Privacy mode: nothing that is shown can be read back to one answer."""

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

from agent.core.discretion import (
    MAX_KEPT,
    SMALL,
    WINDOW_SAMPLES,
    Discretion,
    join_small,
)
from agent.core.snapshot import PipelineSnapshot
from agent.core.watching import Monitored
from tests.fakes.monitored import MONITORED, watch, watched

counts = st.lists(st.integers(0, 40), min_size=10, max_size=10)


def seen(samples: int, **fields: object) -> PipelineSnapshot:
    """Return a pipeline whose monitor has watched so many samples."""
    said = {"samples": samples, **fields}
    return watched("door", watch(2, replace_struct(MONITORED, **said)))


def monitored(pipeline: PipelineSnapshot) -> Monitored:
    """Return what is shown of its monitor."""
    return pipeline.watch[0].monitored


def words(pipeline: PipelineSnapshot) -> list[tuple[int, ...]]:
    """Return the counts by label that differ from 0, of each model."""
    return [tuple(filter(None, one.section.labels)) for one in pipeline.counts]


def test_nothing_is_shown_of_the_first_samples() -> None:
    """Before a window is full there is nothing to hide one answer in."""
    shown = Discretion().hide(seen(WINDOW_SAMPLES - 1))
    assert sum(monitored(shown).confidence) == 0
    assert monitored(shown).features == ()
    assert monitored(shown).accuracy == -1
    assert words(shown) == [(), ()]


def test_a_full_window_is_shown_until_the_next_is_full() -> None:
    """One more answer changes nothing; 250 more do."""
    discretion = Discretion()
    first = discretion.hide(seen(WINDOW_SAMPLES, accuracy=0.5))
    for samples in (WINDOW_SAMPLES + 1, 2 * WINDOW_SAMPLES - 1):
        later = discretion.hide(seen(samples, accuracy=0.6, confidence=(99,) * 10))
        assert monitored(later).confidence == monitored(first).confidence
        assert monitored(later).accuracy == 0.5
    later = discretion.hide(seen(2 * WINDOW_SAMPLES, accuracy=0.6))
    assert monitored(later).accuracy == 0.6


def test_answers_go_by_no_label() -> None:
    """All are ``other``, and those of unwatched models are not shown at all."""
    shown = Discretion().hide(seen(5_000, predictions=(600, 400, 3)))
    assert words(shown) == [(), (1003,)]
    assert [one.labels for one in shown.counts] == [(), ()]
    assert shown.counts[1].section.labels[-1] == 1003


def test_a_small_sum_is_not_shown() -> None:
    """Nine answers are nobody's business."""
    shown = Discretion().hide(seen(5_000, predictions=(5, 4)))
    assert words(shown) == [(), ()]


def test_what_operators_act_on_is_live() -> None:
    """Alarms, scores, the pace and the cost of the monitor."""
    discretion = Discretion()
    discretion.hide(seen(5_000))
    later = monitored(discretion.hide(seen(5_001, share=0.5, alarms=())))
    assert (later.samples, later.share, later.alarms) == (5_001, 0.5, ())
    assert later.scores == MONITORED.scores


def test_hiding_twice_hides_no_more() -> None:
    """A page and a scrape may both be shown what was hidden before."""
    once = Discretion().hide(seen(5_000))
    assert Discretion().hide(once) == once


def test_pipelines_and_versions_are_told_apart() -> None:
    """Each has its own window."""
    discretion = Discretion()
    discretion.hide(seen(5_000))
    other = replace(seen(10), name="gate")
    assert sum(monitored(discretion.hide(other)).confidence) == 0


def test_what_is_remembered_is_bounded() -> None:
    """Versions come for years."""
    discretion = Discretion()
    for version in range(2 * MAX_KEPT):
        discretion.hide(watched("door", watch(version, MONITORED)))
    assert len(discretion._shown) == MAX_KEPT


@example(true=[9, 9] + [0] * 8, more=[1] + [0] * 9)  # 18 were shown; 10 are large
@given(true=counts, more=counts)
def test_law_shown_counts_never_fall_nor_exceed_the_true_ones(
    true: list[int], more: list[int]
) -> None:
    """They are a Prometheus histogram, and they never invent an answer."""
    nothing = (0,) * 10
    shown = join_small(true, nothing)
    later_true = [a + b for a, b in zip(true, more, strict=True)]
    later = join_small(later_true, shown)
    for end in range(1, 11):
        assert 0 <= sum(shown[:end]) <= sum(later[:end]) <= sum(later_true[:end])
    assert sum(true) - sum(shown) < SMALL


@given(true=counts)
def test_law_no_first_count_is_small(true: list[int]) -> None:
    """None of them, or ten at least."""
    assert all(n == 0 or n >= SMALL for n in join_small(true, (0,) * 10))
