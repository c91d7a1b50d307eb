"""Distances of held-out vectors: those that unseen sources have, too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.core.drift.distance import cross_distances
from agent.core.drift.opened import Floats
from agent.core.drift.packing import unpack_floats, unpack_triangle
from agent.core.drift.reference import build_distance

CHANNELS, SOURCES, EACH = 32, 20, 20


def draw(seed: int, apart: float) -> tuple[Floats, NDArray[np.intp]]:
    """Vectors (400, 32) of twenty sources, and the source of each."""
    chance = np.random.default_rng(seed)
    sources = np.repeat(np.arange(SOURCES), EACH)
    centres = apart * chance.normal(size=(SOURCES, CHANNELS))
    return centres[sources] + chance.normal(size=(len(sources), CHANNELS)), sources


def distances(learnt: Floats, vectors: Floats) -> Floats:
    """As a board measures them with what was learnt."""
    centre, precision = build_distance(learnt)
    away = vectors - unpack_floats(centre, -1)
    squares = away @ unpack_triangle(precision, symmetric=True) * away
    found: Floats = np.sqrt(squares.sum(axis=1))
    return found


@pytest.mark.parametrize("apart", [0.0, 0.5])
def test_unseen_sources_are_no_further_away(apart: float) -> None:
    """A board's mean is .15 standard deviations off at most; learnt from it, .3."""
    shifts: list[float] = []
    leaks: list[float] = []
    for seed in range(10):
        vectors, sources = draw(seed, apart)
        unseen = distances(vectors, draw(100 + seed, apart)[0])
        for shift, mine in (
            (shifts, cross_distances(vectors, sources)),
            (leaks, distances(vectors, vectors)),
        ):
            shift.append((unseen.mean() - mine.mean()) / mine.std())
    assert abs(float(np.mean(shifts))) < 0.15
    assert float(np.mean(leaks)) > 0.3


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(20, 60), st.integers(1, 4))
def test_any_sources_give_distances(seed: int, count: int, sources: int) -> None:
    """Finite and none below 0, however few sources; without any, stretches are."""
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(count, 3))
    known = chance.integers(0, sources, count)
    found = cross_distances(vectors, known)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    alone = cross_distances(vectors, np.full(count, 7))
    assert alone.tolist() == cross_distances(vectors, None).tolist()
