"""Fitting: whitening whitens, counts count, constant features are left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from agent.core.drift.fitting import (
    RIDGE,
    count_bins,
    find_bins,
    fit_reference,
    fit_whitening,
    levels,
    standardise,
)
from tests.fakes.drift_streams import mixed


def test_whitened_rows_are_white() -> None:
    """Their covariance is the identity, but for the ridge."""
    rows = mixed(1, 5000)
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    white = np.cov(rows @ fit_whitening(rows), rowvar=False)
    expected = np.eye(rows.shape[1])
    assert float(np.abs(white - expected)[~np.eye(8, dtype=bool)].max()) < 0.5
    assert (np.diagonal(white) <= 1 + 1e-9).all()
    whitening = fit_whitening(rows)
    ridged = np.cov(rows, rowvar=False)
    ridged[np.diag_indices(8)] *= 1 + RIDGE
    assert np.linalg.inv(ridged) == pytest.approx(whitening @ whitening.T, rel=1e-6)


def test_a_constant_feature_does_not_move() -> None:
    """Its sd is 0, not the rounding of its mean; it takes part in no whitening."""
    rows = mixed(1, 500)
    rows[:, 3] = 0.1
    found = fit_reference([f"f{at}" for at in range(8)], rows)
    assert found.moving.tolist() == [at != 3 for at in range(8)]
    assert float(found.sd[3]) == 0.0
    assert not found.whitening[[3, 11]].any()
    assert not found.whitening[:, [3, 11]].any()


def test_a_feature_of_two_values_at_one_distance_is_left_out() -> None:
    """Its |z| never moves, and its spread cannot be divided by."""
    rows = mixed(1, 500)
    rows[:, 2] = np.where(np.arange(500) % 2, 1.0, -1.0)
    found = fit_reference([f"f{at}" for at in range(8)], rows)
    assert bool(np.isfinite(found.whitening).all())


@given(st.integers(0, 2**32 - 1))
def test_bins_are_ranks(seed: int) -> None:
    """A value's bin is the number of edges not above it."""
    chance = np.random.default_rng(seed)
    edges = np.sort(chance.integers(0, 9, size=(3, 15)), axis=1).astype(float)
    rows = chance.integers(-1, 10, size=(5, 3)).astype(float)
    expected = [
        [int(np.searchsorted(edges[at], row[at], side="right")) for at in range(3)]
        for row in rows
    ]
    assert expected == find_bins(rows, edges).tolist()


def test_bins_do_not_depend_on_the_rounding_of_a_tenth() -> None:
    """0.1 as float64 is in the bin that begins with 0.1 as float32."""
    edges = np.full((1, 15), np.float64(np.float32(0.1)))
    assert find_bins(np.array([[0.1]]), edges).tolist() == [[15]]


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_every_sample_is_counted_once(count: int, seed: int) -> None:
    """Each feature's counts add up to the samples."""
    bins = np.random.default_rng(seed).integers(0, 16, size=(count, 3))
    counts = count_bins(bins)
    assert [count] * 3 == counts.sum(axis=1).tolist()
    assert np.bincount(bins[:, 1], minlength=16).tolist() == counts[1].tolist()


def test_quantiles_are_quantiles() -> None:
    """A sixteenth of the reference lies in each bin, as ranks say."""
    rows = mixed(3, 1600)
    found = fit_reference([f"f{at}" for at in range(8)], rows)
    assert int(np.abs(found.counts - 100).max()) <= 1
    ranks = rankdata(rows[:, 0])
    assert int(np.sum(ranks <= 800)) == int(found.counts[0, :8].sum())


def test_levels_are_centred_and_scaled() -> None:
    """[z, |z|] of the reference has mean 0 and sd 1."""
    rows = mixed(4, 3000)
    found = fit_reference([f"f{at}" for at in range(8)], rows)
    z = standardise(rows, found.mean, found.sd)
    level = levels(z, found.abs_mean, found.abs_sd)
    assert np.zeros(8) == pytest.approx(level.mean(axis=0)[8:], abs=1e-9)
    assert np.ones(8) == pytest.approx(level.std(axis=0)[8:], abs=1e-9)
