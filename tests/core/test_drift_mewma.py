"""MEWMA: sample by sample as along a path, chi-squared at rest, and soon above it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.stats import chi2

from agent.core.drift.fitting import fit_reference
from agent.core.drift.mewma import (
    LAMBDA,
    STEP,
    Mewma,
    Whitener,
    dimensions,
    ewma_path,
    mewma_path,
)
from agent.core.drift.opened import Columns, Floats, OpenReference
from tests.fakes.drift_streams import COLUMNS, WIDTH, mixed, reference


def statistics(reference: OpenReference, rows: Floats) -> Floats:
    """Statistics (n, scopes), sample by sample."""
    mewma = Mewma(reference, COLUMNS)
    return np.array([mewma.update(row[None])[0] for row in rows])


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.floats(-3, 3))
@settings(max_examples=25)
def test_a_path_is_what_updates_give(seed: int, count: int, shift: float) -> None:
    """The statistics of a whole stream are those of ``update``, but for rounding."""
    found = reference()
    rows = mixed(seed, count) + shift * found.sd
    path = mewma_path(rows, found, COLUMNS)
    expected = np.stack([path[scope] for scope in ("input", "output", "all")], axis=1)
    assert expected == pytest.approx(statistics(found, rows), rel=1e-2, abs=1e-2)


@given(st.lists(st.integers(1, STEP), min_size=1, max_size=30))
@settings(max_examples=25)
def test_several_samples_are_as_good_as_one_by_one(sizes: list[int]) -> None:
    """However samples come together, each has the statistics it would have alone."""
    found = reference()
    rows = mixed(sum(sizes), sum(sizes)) + found.sd
    together = Mewma(found, COLUMNS)
    ends = np.cumsum([0, *sizes])
    got = [s for a, b in pairwise(ends) for s in together.update(rows[a:b])]
    expected = statistics(found, rows)
    assert expected == pytest.approx(np.array(got), rel=1e-3, abs=1e-3)


@given(st.integers(1, 45), st.integers(0, 45))
@settings(max_examples=25)
def test_chunks_of_a_wide_factor_are_the_whole(width: int, inputs: int) -> None:
    """Columns without their zeros at the end give what the dense matrix gives."""
    found = reference(np.random.default_rng(1).normal(size=(300, width)))
    columns: Columns = {
        "input": np.arange(min(inputs, width)),
        "output": np.arange(min(inputs, width), width),
    }
    rows = np.random.default_rng(2).normal(size=(4, width))
    mewma = Mewma(found, columns)
    got = np.array(mewma.update(rows))
    path = mewma_path(rows, found, columns)
    expected = np.stack([path[scope] for scope in mewma.scopes], axis=1)
    assert expected == pytest.approx(got, rel=1e-2, abs=1e-2)


@given(st.integers(0, 2**32 - 1), st.floats(-1e30, 1e30))
@settings(max_examples=25)
def test_samples_kept_in_half_precision_whiten_the_same(seed: int, wild: float) -> None:
    """A block of them gives the directions that the samples themselves give."""
    whiten = Whitener(reference())
    rows = mixed(seed, 20)
    rows[3, 3] = wild
    kept = np.zeros(rows.shape, whiten.kept)
    for row, out in zip(rows, kept, strict=True):
        whiten.shrink(row, out)
    assert kept.dtype == np.float16
    assert whiten(rows) == pytest.approx(whiten.directions(kept), abs=0.02)


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_mean_is_the_recursion(count: int, seed: int) -> None:
    """Blocks of a triangular matrix give what scipy's recursive filter gives."""
    rows = np.random.default_rng(seed).normal(size=(count, 3))
    expected = lfilter([LAMBDA], [1, LAMBDA - 1], rows, axis=0)
    assert expected == pytest.approx(ewma_path(rows), abs=1e-12)


def test_at_rest_it_is_chi_squared() -> None:
    """Its mean and its 99 % quantile are those of chi-squared, scope by scope."""
    found = fit_reference([f"f{at}" for at in range(WIDTH)], mixed(0, 50_000))
    path = mewma_path(mixed(1, 200_000), found, COLUMNS)
    for scope, terms in dimensions(found, COLUMNS).items():
        late = path[scope][500:]
        # The ridge takes some five per cent, the skew of |z| gives some to the tail.
        assert 0.85 < float(late.mean()) / terms < 1.1
        assert 0.85 < float(np.quantile(late, 0.99) / chi2.isf(0.01, terms)) < 1.25


def test_input_and_output_see_their_own_columns_only() -> None:
    """A shift of the output is none of the input's business, and the other way."""
    found = reference()
    rows = mixed(1, 400)
    moved = rows.copy()
    moved[:, 5] += 3 * found.sd[5]
    still, after = (mewma_path(part, found, COLUMNS) for part in (rows, moved))
    assert still["input"] == pytest.approx(after["input"])
    assert float(after["output"][-1]) > 100
    assert float(after["all"][-1]) > 100


def test_a_wider_spread_is_a_shift() -> None:
    """Noise of twice the size, with the mean where it was, is found by |z|."""
    found = reference()
    rows = found.mean + 2 * (mixed(1, 400) - found.mean)
    assert float(mewma_path(rows, found, COLUMNS)["all"][-1]) > 60


def test_a_shift_of_one_sd_is_found_within_thirty_samples() -> None:
    """The delay that theory gives for such a shift, with fixed seeds."""
    found = reference()
    delays = []
    for seed in range(20):
        path = mewma_path(mixed(seed, 200) + found.sd, found, COLUMNS)["all"]
        delays.append(int(np.argmax(path > 60)))
    assert float(np.median(delays)) < 30


def test_one_wild_sample_does_not_alarm() -> None:
    """A pixel of 1e30 is clipped: what it adds is forgotten without an alarm."""
    found = reference()
    rows = mixed(1, 300)
    rows[100] = 1e30
    assert float(mewma_path(rows, found, COLUMNS)["all"].max()) < 60


def test_constant_features_take_no_part() -> None:
    """Whatever they do later, no statistic sees it, and nothing is divided by 0."""
    rows = mixed(1, 500)
    rows[:, 3] = 1.0
    found = replace(reference(rows), thresholds={"all": 60.0})
    later = mixed(2, 300)
    assert dimensions(found, COLUMNS) == {"input": 6, "output": 4, "all": 14}
    assert float(statistics(found, later).max()) < 60


def test_without_features_of_a_scope_there_is_no_such_scope() -> None:
    """A model without confidence has no output; one that never moved has nothing."""
    nothing = np.zeros(0, np.intp)
    columns: Columns = {"input": np.arange(WIDTH), "output": nothing}
    assert Mewma(reference(), columns).scopes == ("input", "all")
    still = reference(np.ones((100, WIDTH)))
    mewma = Mewma(still, columns)
    assert mewma.scopes == ()
    assert mewma.update(np.ones((1, WIDTH))) == [[]]


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_a_degenerate_whitening_is_deaf_not_mad(rank: int) -> None:
    """What it does not know it ignores: no infinite statistic, none that is not."""
    found = reference()
    broken = np.zeros_like(found.whitening)
    broken[:, :rank] = found.whitening[:, :rank]
    rows = statistics(replace(found, whitening=broken), mixed(1, 300))
    assert bool(np.isfinite(rows).all())
    assert float(rows.max()) < 60


def test_its_shift_is_the_mean_in_standard_deviations() -> None:
    """After a while under a shift of one sd of one feature it says 1."""
    found = reference()
    mewma = Mewma(found, COLUMNS)
    for row in mixed(1, 500):
        row[2] += found.sd[2]
        mewma.update(row[None])
    assert float(mewma.shift()[2]) == pytest.approx(1.0, abs=0.3)


def test_restarted_it_knows_nothing() -> None:
    """The statistic of a first sample does not depend on what was before."""
    found = reference()
    mewma = Mewma(found, COLUMNS)
    rows = mixed(1, 3)
    (first,) = mewma.update(rows[:1])
    mewma.update(rows[1:2] + 5 * found.sd)
    mewma.restart()
    assert first == pytest.approx(mewma.update(rows[:1])[0])


def test_a_whitener_gives_uncorrelated_directions() -> None:
    """Their covariance is diagonal, nearly; without a reference nothing is done."""
    rows = mixed(1, 4000)
    white = np.corrcoef(Whitener(reference())(rows), rowvar=False)
    assert float(np.abs(white - np.eye(WIDTH)).max()) < 0.4
    assert rows.tolist() == Whitener(None)(rows).tolist()
