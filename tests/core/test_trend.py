"""Trends: differences of snapshots, of whichever model answers."""

from dataclasses import replace

import pytest

from agent.core.snapshot import PipelineSnapshot
from agent.core.trend import KEPT, Trend, TrendPoint
from agent.core.watching import Monitored, Score
from tests.fakes.monitored import watch, watched
from tests.fakes.snapshots import pipeline

QUIET = Monitored(samples=1)
SCORED = Monitored(samples=1, scores=(Score("shipped", "all", "mewma", 1.75),))


def newest(*shown: PipelineSnapshot) -> TrendPoint:
    """Return the point that a trend makes of the last of some looks, 2 s apart."""
    trend = Trend()
    for number, one in enumerate(shown):
        trend.add(one, 1000.0 + 2 * number, 2.0 * number)
    return trend.points()[-1]


def test_a_first_look_is_no_point() -> None:
    """There is nothing to be compared with; nor is a clock that stands still."""
    trend = Trend()
    trend.add(pipeline(), 1000.0, 5.0)
    trend.add(pipeline(), 1002.0, 5.0)
    assert trend.points() == ()


def test_points_are_bounded() -> None:
    """A daemon that runs for a year keeps fifteen minutes."""
    trend = Trend()
    for number in range(KEPT + 10):
        trend.add(pipeline(), 1000.0 + number, float(number))
    assert len(trend.points()) == KEPT


def test_without_new_answers_there_are_no_percentiles() -> None:
    """A pause is a rate of 0, and no latency of 0."""
    point = newest(pipeline(), pipeline())
    assert (point.rate, point.p50_ms, point.p99_ms) == (0.0, None, None)


def test_rates_are_per_second() -> None:
    """Answers since the look before, over the time between both."""
    before = replace(pipeline(), counts=())
    answered = sum(counts.section.outcomes[0] for counts in pipeline().counts)
    assert newest(before, pipeline()).rate == pytest.approx(answered / 2)


@pytest.mark.parametrize("began", [(1, 2), (2, 1)])
def test_drift_is_that_of_the_model_that_answers(began: tuple[int, int]) -> None:
    """After a rollback it is not the monitor that began last."""
    said = {1: QUIET, 2: SCORED}
    shown = watched("door", *(watch(version, said[version]) for version in began))
    assert shown.active is not None
    assert shown.active.version == 2
    assert newest(shown, shown).drift == 1.75


def test_without_an_answering_model_there_is_no_drift() -> None:
    """What nobody compares has no score."""
    shown = replace(watched("door", watch(2, SCORED)), active=None)
    assert newest(shown, shown).drift is None
