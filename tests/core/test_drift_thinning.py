"""Thinning: streams without memory are not slowed, others are; drift is no memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.drift.correlation import (
    LAGS,
    autocorrelation,
    correlated,
    wanted_spacing,
)
from agent.core.drift.mewma import Whitener
from agent.core.drift.opened import Floats
from agent.core.drift.thinning import Thinning, next_prime
from tests.fakes.drift_streams import mixed, reference, scenes, slow

TARGET = 0.05


def thinned(
    rows: Floats, target: float = TARGET, least: int = 1
) -> tuple[Thinning, list[int]]:
    """A stream seen as often as it asks (or less); the numbers that counted."""
    thinning = Thinning(rows.shape[1], target, Whitener(reference()))
    taken = []
    seq = 0
    while seq < len(rows):
        counted = thinning.counts(seq)
        if counted:
            taken.append(seq)
        thinning.update(rows[seq], seq, counted=counted)
        seq += max(thinning.interval, least)
    return thinning, taken


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_without_memory_is_not_slowed(seed: int) -> None:
    """Every one of 20,000 samples counts."""
    thinning, taken = thinned(mixed(seed, 20_000))
    assert thinning.trusted
    assert thinning.spacing == 1
    assert len(taken) == 20_000
    assert abs(thinning.autocorrelation) < TARGET


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("memory", "low", "high"), [(0.5, 3, 11), (0.95, 29, 150)])
def test_memory_is_spaced_out(seed: int, memory: float, low: int, high: int) -> None:
    """The spacing is about where ``memory ** N`` is the target: 4.3 and 58 samples."""
    thinning, _ = thinned(slow(seed, 4000, memory))
    assert low <= thinning.spacing <= high


def test_an_ordered_calibration_allows_more() -> None:
    """With a target of .3 a memory of .95 is watched more than twice as much."""
    strict, _ = thinned(slow(1, 2000, 0.95))
    ordered, _ = thinned(slow(1, 2000, 0.95), target=0.3)
    assert 2 * ordered.spacing < strict.spacing


@pytest.mark.parametrize("seed", range(3))
def test_scenes_are_spaced_by_their_length(seed: int) -> None:
    """Of twenty frames of a scene about one counts."""
    thinning, taken = thinned(scenes(seed, 12_000, 20))
    assert 17 <= thinning.spacing <= 90
    gaps = np.diff(np.array(taken[-50:]))
    assert int(gaps.min()) >= 17


@pytest.mark.parametrize("at", [64, 200, 511, 2000])
@pytest.mark.parametrize("size", [1.0, 3.0, 30.0])
def test_a_shift_is_not_memory(at: int, size: float) -> None:
    """Wherever it happens, a step is in one block, and medians do not see it."""
    rows = mixed(3, 4000)
    rows[at:] += size * reference().sd
    assert thinned(rows)[0].spacing == 1


def test_a_ramp_is_not_memory() -> None:
    """Two standard deviations over 2,000 samples do not slow the watch."""
    rows = mixed(3, 4000)
    rows += np.linspace(0, 4, 4000)[:, None] * reference().sd
    assert thinned(rows)[0].spacing == 1


def test_a_stuck_input_is_not_memory() -> None:
    """Features that do not move at all say nothing about memory."""
    rows = np.tile(mixed(3, 1), (4000, 1))
    thinning, _ = thinned(rows)
    assert (thinning.spacing, thinning.trusted) == (1, True)


def test_memory_in_one_direction_is_enough() -> None:
    """One slow direction among eight spaces the stream, though every feature has it."""
    fast, lasting = mixed(1, 4000), slow(2, 4000, 0.95)
    mix = np.random.default_rng(7).normal(size=(8, 8))
    direction = (lasting - 20) @ np.linalg.inv(mix)
    rows = (fast - 20) @ np.linalg.inv(mix)
    rows[:, 0] = direction[:, 0]
    thinning, _ = thinned(rows @ mix + 20)
    assert thinning.spacing >= 11


def test_alarms_wait_until_memory_is_known() -> None:
    """Four blocks of 128 samples; not one more."""
    thinning = Thinning(8, TARGET, Whitener(None))
    for seq, row in enumerate(mixed(1, 512)):
        assert not thinning.trusted
        thinning.update(row, seq, counted=thinning.counts(seq))
    assert thinning.trusted


def test_memory_that_comes_later_widens_at_once() -> None:
    """A stream that begins to remember is spaced within a few looks."""
    rows = np.concatenate([mixed(1, 4000), slow(2, 8000, 0.95)])
    assert thinned(rows)[0].spacing > 20


def test_memory_that_goes_narrows_slowly() -> None:
    """A scene that stood still for an hour does not leave the watch wide for ever."""
    early, _ = thinned(slow(2, 4000, 0.9))
    late, _ = thinned(np.concatenate([slow(2, 4000, 0.9), mixed(1, 120_000)]))
    assert late.spacing < early.spacing


@pytest.mark.parametrize("least", [7, 200])
def test_a_caller_that_cannot_watch_so_often_may_leave_out(least: int) -> None:
    """Gaps wider than asked break nothing, and samples that count stay spaced."""
    thinning, taken = thinned(slow(2, 200_000, 0.95), least=least)
    assert thinning.trusted
    gaps = np.diff(np.array(taken))
    assert int(gaps.min()) >= least
    assert 1 <= thinning.spacing < 400


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_autocorrelation_ignores_level_and_scale(seed: int) -> None:
    """Moved by a constant and multiplied, a block remembers as much."""
    rows = np.random.default_rng(seed).normal(size=(128, 2))
    expected = autocorrelation(rows)
    assert expected == pytest.approx(autocorrelation(rows * 5 + 100), abs=1e-6)
    assert (len(LAGS), 2) == expected.shape


def test_autocorrelation_is_numpys() -> None:
    """On a long stream it is the ordinary estimate, lag by lag."""
    rows = slow(5, 50_000, 0.8, width=1)
    centred = rows[:, 0] - rows[:, 0].mean()
    for at, lag in enumerate(LAGS):
        usual = float(np.mean(centred[lag:] * centred[:-lag]) / centred.var())
        assert usual == pytest.approx(float(autocorrelation(rows)[at, 0]), abs=0.02)


def test_one_block_decides_nothing() -> None:
    """Three blocks without memory outweigh one that has it."""
    calm = [autocorrelation(mixed(seed, 128)) for seed in range(3)]
    wild = autocorrelation(slow(4, 128, 0.95))
    assert correlated([*calm, wild], 128, TARGET) is None
    assert wanted_spacing([*calm, wild], 128, TARGET) == 1
    assert wanted_spacing([wild] * 4, 128, TARGET) > 10


@given(st.integers(2, 5000))
def test_spacings_share_no_factor_with_a_period(number: int) -> None:
    """A prime is not below what was asked, and hardly above."""
    prime = next_prime(number)
    assert number <= prime <= number + 40
    assert all(prime % part for part in range(2, int(prime**0.5) + 1))


def test_a_short_block_does_not_hide_memory() -> None:
    """Corrected for what a block of 128 misses, spacings are about the true 58."""
    found = []
    for seed in range(15):
        rows = slow(seed, 512, 0.95)
        blocks = [autocorrelation(rows[at : at + 128]) for at in range(0, 512, 128)]
        found.append(wanted_spacing(blocks, 128, TARGET))
    assert 45 <= float(np.median(found)) <= 75
