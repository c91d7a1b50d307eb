"""The table e-detector: bets are fair, sums are Shiryaev-Roberts', alarms are rare."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.drift.etable import BETS, THRESHOLD, Etable, bet_table, rank_scores
from agent.core.drift.fitting import find_bins
from agent.core.drift.opened import Columns, Floats
from agent.core.profile import BINS
from tests.fakes.drift_streams import COLUMNS, mixed, reference

counts = st.lists(st.integers(0, 500), min_size=BINS, max_size=BINS).filter(any)


@given(counts)
def test_scores_are_centred_and_bounded(one: list[int]) -> None:
    """Over the reference both scores have mean 0, and none leaves [-1/2, 1/2]."""
    table = np.array([one])
    scores = rank_scores(table)
    share = table[0] / table.sum()
    assert float(np.abs(scores).max()) <= 0.5
    assert share @ scores[0] == pytest.approx(0, abs=1e-12)


@given(counts, st.floats(0, 0.5))
def test_no_bet_pays_more_than_is_fair(one: list[int], eps: float) -> None:
    """Samples of the reference itself pay at most 1 in the mean, and nothing ruins."""
    table = np.array([one])
    pays = bet_table(table, np.array([eps]))
    share = table[0] / table.sum()
    assert pays.shape == (1, BINS, BETS)
    assert float((share @ pays[0]).max()) <= 1 + 1e-9
    assert float(pays.min()) > 0


@given(counts, counts, st.floats(0, 0.5))
def test_a_tolerated_shift_pays_at_most_what_is_fair(
    one: list[int], other: list[int], eps: float
) -> None:
    """Any distribution whose mean scores stay within eps pays at most 1."""
    table = np.array([one])
    share = np.array(other) / sum(other)
    moved = float(np.abs(share @ rank_scores(table)[0]).max())
    if moved <= eps:
        pays = bet_table(table, np.array([eps]))
        assert float((share @ pays[0]).max()) <= 1 + 1e-9


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=25)
def test_batches_are_the_recursion(seed: int, sizes: list[int]) -> None:
    """After any batches the sums are those of ``M <- (1 + M) * pay``, one by one."""
    found = reference()
    bins = np.random.default_rng(seed).integers(0, BINS, size=(sum(sizes), 8))
    etable = Etable(found, COLUMNS)
    pays = bet_table(found.counts, found.eps)
    sums = np.zeros((8, BETS))
    at = 0
    for size in sizes:
        part = bins[at : at + size]
        at += size
        for row in part:
            sums = (1 + sums) * pays[np.arange(8), row]
        ratio = etable.update(part)[etable.scopes.index("all")]
        mean = float(sums.mean())
        expected = max(math.log(mean), 0.0) / math.log(THRESHOLD)
        assert expected == pytest.approx(ratio, abs=1e-5)
        if mean >= THRESHOLD:
            return


def ratios(etable: Etable, rows: Floats) -> list[float]:
    """The highest ratio of any scope after each batch of 16."""
    bins = find_bins(rows, reference().edges)
    return [
        max(etable.update(bins[at : at + 16])) for at in range(0, len(bins) - 15, 16)
    ]


def test_nothing_alarms_while_nothing_happens() -> None:
    """100,000 samples of the reference's own source stay below the threshold."""
    etable = Etable(reference(), COLUMNS)
    assert max(ratios(etable, mixed(1, 100_000))) < 0.9


def test_its_false_alarms_are_as_rare_as_promised() -> None:
    """Without tolerance the sums still obey E[M_n] <= n, over 200 streams."""
    found = reference(mixed(0, 20_000), eps=0.0)
    ends = []
    for seed in range(200):
        etable = Etable(found, COLUMNS)
        bins = find_bins(mixed(seed + 1, 64), found.edges)
        ends.append(THRESHOLD ** etable.update(bins)[-1])
    assert float(np.mean(ends)) < 64 * 1.5


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_a_shift_is_confirmed_soon(shift: float) -> None:
    """One standard deviation, up or down, takes fewer than 160 samples."""
    found = reference()
    rows = mixed(1, 320) + shift * found.sd
    assert max(ratios(Etable(found, COLUMNS), rows)[:10]) >= 1


@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_a_change_of_spread_is_confirmed(factor: float) -> None:
    """Twice the noise and half of it are found with the mean where it was."""
    found = reference()
    rows = found.mean + factor * (mixed(1, 640) - found.mean)
    assert max(ratios(Etable(found, COLUMNS), rows)) >= 1


def test_a_tolerated_shift_is_never_confirmed() -> None:
    """A twentieth of a standard deviation is a rank of 0.02: within eps."""
    found = reference()
    rows = mixed(1, 50_000) + 0.05 * found.sd
    assert max(ratios(Etable(found, COLUMNS), rows)) < 1


def test_an_alarm_holds_while_bets_win_and_no_longer() -> None:
    """It stays at its threshold, and falls once nothing is to be won; started anew: 0.

    Started again by itself, the drift would alarm again and again.
    """
    found = reference()
    etable = Etable(found, COLUMNS)
    said = ratios(etable, mixed(1, 960) + 2 * found.sd)
    first = next(at for at, ratio in enumerate(said) if ratio >= 1)
    assert min(said[first + 1 :]) > 0.99
    assert max(said[first + 1 :]) < 1.85
    assert ratios(etable, mixed(3, 960))[-1] < 0.5
    ratios(etable, mixed(1, 960) + 2 * found.sd)
    etable.restart(0)
    again = etable.update(find_bins(mixed(2, 16), found.edges))
    assert again[0] < 0.5 < again[2]
    etable.restart()
    assert max(ratios(etable, mixed(2, 16))) < 0.5


def test_scopes_follow_columns() -> None:
    """Without output columns there is no output; without any feature, nothing."""
    columns: Columns = {"input": np.arange(8), "output": np.zeros(0, np.intp)}
    assert Etable(reference(), columns).scopes == ("input", "all")
    still = reference(np.ones((100, 8)))
    etable = Etable(still, columns)
    assert etable.update(np.zeros((3, 8), np.intp)) == []
