"""Diagnostics and the small detectors: PSI, KS, classes, repeats, accuracy, latches."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2, ks_2samp

from agent.core.drift import classes, windows
from agent.core.drift.accuracy import Accuracy
from agent.core.drift.answers import MAX_LABELS, Answers
from agent.core.drift.classes import Classes, chi2_quantile
from agent.core.drift.fitting import count_bins, find_bins
from agent.core.drift.latch import QUIET_SAMPLES, Latch
from agent.core.drift.repeats import MARGIN, STUCK_SAMPLES, Repeats
from agent.core.drift.windows import Window, ks, psi
from tests.fakes.drift_streams import mixed, reference

counts = st.lists(st.integers(0, 500), min_size=16, max_size=16).filter(any)


@given(counts, counts)
def test_psi_is_never_negative(one: list[int], other: list[int]) -> None:
    """Every term has two factors of the same sign; equal counts give 0."""
    first, second = np.array([one]), np.array([other])
    assert float(psi(first, second)[0]) >= 0
    assert float(psi(first, first)[0]) == pytest.approx(0)


def test_psi_is_what_our_definition_says() -> None:
    """Sixteen bins, a half added to each, natural logarithm: computed by hand."""
    one, other = np.full((1, 16), 10), np.array([[20] * 8 + [0] * 8])
    low, high = 0.5 / 168, 20.5 / 168
    expected = 8 * (high - 1 / 16) * math.log(high * 16)
    expected += 8 * (low - 1 / 16) * math.log(low * 16)
    assert expected == pytest.approx(float(psi(one, other)[0]))


@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_ks_is_scipys_at_most(seed: int, shift: float) -> None:
    """Seen at the bins' edges the distance is the exact one or a little less."""
    found, rows = mixed(0, 2000), mixed(seed, 256) + shift
    fitted = reference(found)
    window = count_bins(find_bins(rows, fitted.edges))
    exact = ks_2samp(found[:, 0], rows[:, 0]).statistic
    ours = float(ks(fitted.counts, window)[0])
    assert ours <= float(exact) + 1e-6
    assert float(exact) - ours < 0.08  # a bin holds a sixteenth


def test_a_window_closes_and_begins_again() -> None:
    """What it says is of the last complete window; the next starts from nothing."""
    fitted = reference()
    window = Window(fitted.counts)
    moved = find_bins(mixed(1, 128) + 3 * fitted.sd, fitted.edges)
    still = find_bins(mixed(2, 256), fitted.edges)
    assert not window.update(moved)
    assert float(window.psi.max()) == 0
    assert window.update(moved)
    assert float(window.psi.min()) > 1
    assert float(window.ks.min()) > 0.5
    assert window.update(still)
    assert float(window.psi.max()) < 0.2
    assert windows.WINDOW_SAMPLES == 256


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 9, 30, 63])
@pytest.mark.parametrize("level", [1e-2, 1e-3, classes.LEVEL])
def test_the_quantile_is_scipys(freedom: int, level: float) -> None:
    """Never below the exact one, and at most a twentieth above."""
    exact = float(chi2.isf(level, freedom))
    assert exact - 1e-6 <= chi2_quantile(freedom, level) <= 1.05 * exact


def test_classes_are_chi_squared_at_rest() -> None:
    """Windows of the same shares, a finite reference: the mean is the freedom."""
    chance = np.random.default_rng(1)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    statistics = []
    for _ in range(400):
        found = Classes(chance.multinomial(1000, shares).tolist())
        for index in chance.choice(4, size=249, p=shares):
            found.update(int(index))
        statistics.append(found.statistic())
    assert pytest.approx(float(np.mean(statistics)), rel=0.15) == 3
    assert float(np.mean(np.array(statistics) > chi2.isf(0.05, 3))) < 0.09


def show(found: Classes, indices: list[int]) -> list[float]:
    """The ratio after each window that these answers close."""
    return [found.ratio for index in indices if found.update(index)]


def test_another_mixture_of_classes_alarms() -> None:
    """A class of a tenth that becomes a third is above the threshold in one window."""
    chance = np.random.default_rng(2)
    found = Classes([900, 100])
    quiet = chance.choice(2, size=2500, p=[0.9, 0.1]).tolist()
    assert max(show(found, quiet)) < 1
    assert min(show(found, chance.choice(2, size=250, p=[0.67, 0.33]).tolist())) > 1
    assert Classes([900, 100], factor=1e6).ratio == 0


def test_rare_classes_share_a_group() -> None:
    """Ten labels that hardly ever come do not alarm when two of them come."""
    found = Classes([1000, 1000, *[2] * 10])
    assert max(show(found, [0, 1] * 124 + [7, 9])) < 1


@pytest.mark.parametrize("rare", [0.0005, 0.001, 0.004, 0.02, 0.08, 0.1, 0.3])
@pytest.mark.parametrize("known", [200, 2000, 100_000])
def test_two_labels_alarm_no_oftener_than_they_may(rare: float, known: int) -> None:
    """By the exact binomial: the worst share of a window's answers is 3 times nominal.

    Two groups at 5 expected answers are 9 times, at .3 expected 87 times.
    """
    seen = round(known * rare)
    found = Classes([known - seen, seen])
    alarms = 0.0
    for count in range(250 + 1 if found.compared else 0):
        show(found, [1] * count + [0] * (250 - count))
        alarms += float(binom.pmf(count, 250, rare)) * (found.ratio > 1)
    assert alarms < 3 * classes.LEVEL


@pytest.mark.parametrize("labels", [4, 10, 65])
@pytest.mark.parametrize("falling", [0, 1])
def test_windows_alarm_as_often_as_they_may(labels: int, falling: int) -> None:
    """Equal shares and Zipf's, references of 2,000: 2.5e-3 in 20,000 windows.

    The level is a hundred times that in use, so that so few windows show it.
    """
    chance = np.random.default_rng(labels + falling)
    shares = 1.0 / np.arange(1, labels + 1) ** falling
    shares /= shares.sum()
    over = 0
    for _ in range(20):
        found = Classes(chance.multinomial(2000, shares).tolist())
        limit = chi2.isf(100 * classes.LEVEL, len(found._expected) - 1)
        for seen in chance.multinomial(250, shares, 1000):
            found._window, found._samples = seen.tolist(), 250
            over += found.statistic() > limit
    assert over / 20_000 < 2.5 * 100 * classes.LEVEL


@given(st.lists(st.integers(0, 2000), min_size=2, max_size=65).filter(any))
def test_every_group_of_labels_is_expected_often_enough(counts: list[int]) -> None:
    """Twenty of a window at least, whatever the reference saw; shares add up to 1."""
    found = Classes(counts)
    assert float(found._expected.sum()) == pytest.approx(1)
    assert found.compared == (len(found._expected) > 1)
    if found.compared:
        assert float(found._expected.min()) * 250 >= classes.EXPECTED_LEAST - 1e-9


@pytest.mark.parametrize("reference_counts", [[], [500], [0, 0, 0]])
def test_without_classes_nothing_alarms(reference_counts: list[int]) -> None:
    """No labels, one class only, a reference without answers: there is no ratio."""
    found = Classes(reference_counts)
    for index in [0, 0, 1, -1] * 200:
        found.update(index)
    assert found.ratio == 0


@given(st.lists(st.integers(0, 3), max_size=200))
def test_repeats_are_runs(checksums: list[int]) -> None:
    """Above 1 only after more than thirty equal checksums in a row; all are counted."""
    found = Repeats()
    run = 0
    for at, checksum in enumerate(checksums):
        run = run + 1 if at and checksum == checksums[at - 1] else 0
        assert (found.update(checksum) > 1) <= (run > STUCK_SAMPLES)
    expected = sum(a == b for a, b in pairwise(checksums))
    assert expected == found.repeated


def test_what_repeats_by_nature_is_given_longer() -> None:
    """A slow thermometer alarms once or twice, not for ever; a freeze still alarms."""
    found = Repeats()
    alarms = [
        value for value in range(50) if max(found.update(value) for _ in range(100)) > 1
    ]
    assert len(alarms) <= 2
    assert max(found.update(99) for _ in range(MARGIN * 100 + 101)) > 1


def test_accuracy_is_the_share_above() -> None:
    """Unknown at first, then a mean, then about the last window."""
    found = Accuracy(0.8)
    for _ in range(20):
        found.update(0.9)
    assert found.value == -1
    for _ in range(236):
        found.update(0.9)
    assert found.value == pytest.approx(1.0)
    for _ in range(1000):
        found.update(0.5)
    assert found.value < 0.05


@pytest.mark.parametrize(("threshold", "confidence"), [(-1, 0.5), (0.5, -1)])
def test_without_threshold_or_confidence_accuracy_is_unknown(
    threshold: float, confidence: float
) -> None:
    """It is -1, never a share; NaN is no confidence either."""
    found = Accuracy(threshold)
    for _ in range(500):
        found.update(confidence)
        found.update(math.nan)
    assert found.value == -1


@given(st.lists(st.tuples(st.integers(-2, 1000), st.floats(-1, 2)), max_size=50))
def test_answers_are_counted_once(answers: list[tuple[int, float]]) -> None:
    """Labels beyond the last counter share it; what is no confidence is not counted."""
    found = Answers(1001)
    for index, confidence in answers:
        found.update(index, confidence)
    found.close()
    assert len(found.closed) == MAX_LABELS + 1
    assert sum(index >= 0 for index, _ in answers) == sum(found.closed)
    assert sum(0 <= c <= 1 for _, c in answers) == sum(found.confidence)


def test_answers_show_the_last_window() -> None:
    """Counts by label stay as they were until a window closes."""
    found = Answers(3)
    found.update(1, 1.0)
    found.update(7, 0.05)
    assert found.closed == (0, 0, 0)
    found.close()
    assert found.closed == (0, 1, 0)
    assert found.confidence == [1, *[0] * 8, 1]


@given(st.lists(st.floats(0, 2), max_size=40), st.integers(1, 100))
def test_a_latch_is_raised_above_and_cleared_after_a_long_quiet(
    ratios: list[float], samples: int
) -> None:
    """Raised by a ratio above 1 only; cleared after enough samples in a row below."""
    latch = Latch()
    quiet = 0
    for ratio in ratios:
        before = latch.active
        change = latch.update(ratio, samples)
        quiet = quiet + samples if ratio < 0.5 else 0
        if ratio > 1:
            assert latch.active
        elif not before:
            assert not latch.active
        assert (change == "cleared") <= (quiet >= QUIET_SAMPLES)


def test_a_latch_says_what_changed_once() -> None:
    """Raised, confirmed, cleared; each said at the sample that did it."""
    latch = Latch()
    assert latch.update(1.5) == "raised"
    assert latch.update(2.0) == ""
    assert latch.confirm(1.25) == "confirmed"
    assert latch.confirm(3.0) == ""
    assert (latch.score, latch.evidence) == (1.5, 1.25)
    said = [latch.update(0.1) for _ in range(QUIET_SAMPLES)]
    assert said == [""] * (QUIET_SAMPLES - 1) + ["cleared"]
    assert (latch.active, latch.confirmed, latch.raised) == (False, False, 1)


def test_bets_alone_raise_an_alarm() -> None:
    """The detector with the theoretical threshold needs no second opinion."""
    latch = Latch()
    assert latch.confirm(1.25) == "raised"
    assert (latch.detector, latch.confirmed, latch.raised) == ("etable", True, 1)
    assert (latch.score, latch.evidence) == (1.25, 1.25)


def test_what_was_latched_stays_so() -> None:
    """An alarm of the last worker is active from the start, and was not raised here."""
    latch = Latch(active=True)
    assert (latch.active, latch.raised) == (True, 0)
    assert latch.update(1.5) == ""
