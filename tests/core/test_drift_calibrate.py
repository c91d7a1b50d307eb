"""Calibration: thresholds, tolerances and notes out of held-out data."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.core.drift.calibrate import MIN_SAMPLES, Calibrated, calibrate
from agent.core.drift.calibrate_delays import EVERYTHING, LONGEST, expected_delays
from agent.core.drift.calibrate_plan import (
    IID_TARGET,
    ORDERED_TARGET,
    HeldOut,
    make_plan,
)
from agent.core.drift.calibrate_streams import (
    CHUNKS,
    chunk_runs,
    draw_blocks,
    draw_sticky,
    find_interval,
    split_groups,
)
from agent.core.drift.mewma import mewma_path
from agent.core.drift.opened import Columns

WIDTH, SOURCES, EACH = 4, 40, 25
COLUMNS: Columns = {"input": np.array([0, 1, 2]), "output": np.array([3])}
NAMES = ("mean", "sd", "gradient", "confidence")


def values_of(
    seed: int, *, apart: float, sources: int = SOURCES
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return (n, 4) features of sources whose levels lie apart, and the sources."""
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(sources), EACH)
    levels = random.normal(0, apart, (sources, WIDTH))
    return levels[groups] + random.normal(size=(len(groups), WIDTH)), groups


def held_out(seed: int = 1, *, apart: float = 0.3) -> HeldOut:
    """Return held-out data of forty sources, with three classes and labels."""
    values, groups = values_of(seed, apart=apart)
    random = np.random.default_rng(seed + 1)
    index = random.integers(0, 3, len(values))
    confidence = random.choice([0.25, 0.5, 0.75, 1.0], len(values))
    right = random.random(len(values)) < confidence
    return HeldOut(
        features=NAMES,
        columns=COLUMNS,
        values=values,
        index=index,
        groups=groups,
        classes=3,
        confidence=confidence,
        right=right,
    )


def memory(seed: int, count: int, lag: float) -> NDArray[np.float64]:
    """Return (count, 4) of an AR(1) process with this lag-1 autocorrelation."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, WIDTH))
    for at in range(1, count):
        rows[at] = lag * rows[at - 1] + np.sqrt(1 - lag**2) * rows[at]
    return rows


def calibrated(data: HeldOut, *, splits: int = 12) -> Calibrated:
    """Calibrate with few splits: enough to compare, fast enough to run often."""
    return calibrate(data, np.random.default_rng(3), splits=splits)


def alarms(found: Calibrated, apart: float) -> int:
    """Count streams of 2,000 samples of unseen sources that pass a threshold."""
    values, _ = values_of(99, apart=apart)
    random = np.random.default_rng(98)
    count = 0
    for _ in range(20):
        stream = values[random.integers(0, len(values), 2000)]
        paths = mewma_path(stream, found.reference, COLUMNS)
        over = [paths[s].max() > found.reference.thresholds[s] for s in paths]
        count += any(over)
    return count


# --- Streams -----------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=80).filter(
        lambda groups: len(set(groups)) > 1
    ),
    st.integers(0, 2**32 - 1),
)
def test_split_groups_law(groups: list[int], seed: int) -> None:
    """Halves share no group, and together they are all rows, each once."""
    named = np.array(groups)
    halves = split_groups(named, np.random.default_rng(seed))
    both = np.concatenate([halves.reference, halves.stream])
    assert list(range(len(groups))) == sorted(both.tolist())
    assert set() == set(named[halves.reference]) & set(named[halves.stream])
    sizes = {len(set(named[rows])) for rows in (halves.reference, halves.stream)}
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 50), st.floats(0, 0.9), st.integers(0, 2**32 - 1))
def test_draw_sticky_law(count: int, repeat: float, seed: int) -> None:
    """A sticky stream is as long as asked for and holds given rows only."""
    rows = np.array([3, 5, 8])
    drawn = draw_sticky(rows, count, repeat, np.random.default_rng(seed))
    assert count == len(drawn)
    assert set(drawn.tolist()) <= {3, 5, 8}


@pytest.mark.parametrize("repeat", [0.05, 0.3, 0.8])
def test_draw_sticky_remembers(repeat: float) -> None:
    """The lag-1 autocorrelation of a sticky stream is the chance to repeat."""
    random = np.random.default_rng(4)
    values = random.normal(size=5000)
    drawn = values[draw_sticky(np.arange(5000), 40_000, repeat, random)]
    found = np.corrcoef(drawn[:-1], drawn[1:])[0, 1]
    assert repeat == pytest.approx(found, abs=0.02)


@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
)
def test_draw_blocks_law(lengths: list[int], interval: int, seed: int) -> None:
    """Rows of a block are ``interval`` apart and never cross from run to run."""
    runs = np.repeat(np.arange(len(lengths)), lengths)
    rows = np.arange(len(runs))
    drawn = draw_blocks(rows, runs, interval, 300, np.random.default_rng(seed))
    if drawn is None:
        return
    assert len(drawn) == 300
    steps = np.diff(drawn)
    inside = (steps == interval) & (np.diff(runs[drawn]) == 0)
    # A new block begins at most once in the ten samples of the shortest.
    assert (~inside).sum() <= 300 // 10


def test_draw_blocks_of_too_short_runs() -> None:
    """Runs without ten samples at the interval are no order to draw from."""
    runs = np.repeat(np.arange(10), 20)
    rows = np.arange(200)
    assert draw_blocks(rows, runs, 5, 100, np.random.default_rng(1)) is None


def test_draw_blocks_skips_rows_of_the_other_half() -> None:
    """Rows that are not next to each other are two stretches, though of one run."""
    runs = np.zeros(400, np.intp)
    rows = np.concatenate([np.arange(100), np.arange(300, 400)])
    drawn = draw_blocks(rows, runs, 2, 500, np.random.default_rng(2))
    assert drawn is not None
    assert set(drawn.tolist()) <= set(rows.tolist())


def test_chunk_runs_parts_one_recording() -> None:
    """A recording of one source is cut in parts; one of many is cut by source."""
    assert len(np.unique(chunk_runs(np.zeros(1000, np.intp)))) == CHUNKS
    returning = np.repeat([0, 1, 0, 1, 0, 1, 0, 1], 10)
    assert list(np.repeat(np.arange(8), 10)) == chunk_runs(returning).tolist()


def test_find_interval_of_a_stream_that_remembers() -> None:
    """AR(.95) is thinned to about one in 24, where .95 ** 24 is .3."""
    rows = memory(5, 20_000, 0.95)
    found = find_interval(rows, np.zeros(len(rows), np.intp), ORDERED_TARGET)
    assert found is not None
    assert pytest.approx(found[0], abs=0.06) == 0.95
    assert 16 <= found[1] <= 34


def test_find_interval_without_memory() -> None:
    """Independent samples are all used."""
    rows = memory(6, 4000, 0.0)
    found = find_interval(rows, np.zeros(len(rows), np.intp), ORDERED_TARGET)
    assert found is not None
    assert found[1] == 1


def test_find_interval_of_short_runs() -> None:
    """Of runs of ten samples nothing is said."""
    rows = memory(7, 400, 0.9)
    assert find_interval(rows, np.repeat(np.arange(40), 10), ORDERED_TARGET) is None


# --- Plans -------------------------------------------------------------------------


def test_plan_with_groups() -> None:
    """With enough groups thresholds are grouped; only the missing order is noted."""
    plan = make_plan(held_out())
    assert (
        plan.calibration,
        plan.groups,
        plan.target,
    ) == ("grouped", SOURCES, IID_TARGET)
    assert len(plan.notes) == 1
    assert plan.notes[0].startswith("no ordered recording")


@pytest.mark.parametrize("groups", [None, 3])
def test_plan_without_enough_groups(groups: int | None) -> None:
    """Without groups, or with three, it is iid-calibrated and says so."""
    data = held_out()
    known = None if groups is None else np.arange(len(data.values)) % groups
    plan = make_plan(replace(data, groups=known))
    assert ("iid", groups or 0) == (plan.calibration, plan.groups)
    assert plan.notes[0].startswith("iid-calibrated")


def test_plan_of_a_recording() -> None:
    """An ordered recording gives its memory, an interval and the higher target."""
    rows = memory(8, 8000, 0.9)
    data = HeldOut(NAMES, COLUMNS, rows, np.full(8000, -1), ordered=True)
    plan = make_plan(data)
    assert (plan.calibration, plan.target) == ("ordered", ORDERED_TARGET)
    assert pytest.approx(plan.autocorrelation, abs=0.06) == 0.9
    assert 7 <= plan.interval <= 18


def test_plan_of_scraps() -> None:
    """A recording in scraps is used as samples without order, and that is noted."""
    data = held_out()
    plan = make_plan(replace(data, ordered=True))
    assert (
        plan.calibration,
        plan.runs,
        plan.autocorrelation,
    ) == ("grouped", None, -1.0)
    assert any("shorter than" in note for note in plan.notes)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_notes_fit_a_profile(*, ordered: bool, grouped: bool) -> None:
    """Whatever is noted is no longer than the 200 characters a profile takes."""
    data = held_out()
    data = replace(data, ordered=ordered, groups=data.groups if grouped else None)
    assert max(len(note) for note in make_plan(data).notes) <= 200


# --- Calibration -------------------------------------------------------------------


def test_thresholds_hold_for_unseen_sources() -> None:
    """Grouped thresholds are quiet where iid ones alarm: sources differ."""
    data = held_out(apart=0.5)
    grouped = calibrated(data)
    iid = calibrated(replace(data, groups=None))
    for scope in ("input", "all"):
        higher = grouped.reference.thresholds[scope]
        assert higher > iid.reference.thresholds[scope]
    assert alarms(grouped, 0.5) == 0


def test_shipped_thresholds_are_above_those_of_a_site() -> None:
    """A site's baseline is of its own source, so its thresholds are lower."""
    reference = calibrated(held_out(apart=0.5)).reference
    assert reference.site_thresholds["all"] < reference.thresholds["all"]
    assert reference.site_count == 2000


def test_sources_widen_tolerances() -> None:
    """The more sources differ, the larger a shift of ranks the e-detector tolerates."""
    alike, apart = (calibrated(held_out(apart=how)).reference.eps for how in (0.0, 1.0))
    assert (apart > alike).all()
    assert (alike > 0).all()
    assert (apart <= 0.5).all()


def test_calibration_repeats() -> None:
    """The same data and generator give the same thresholds."""
    first, second = (calibrated(held_out()).reference for _ in range(2))
    assert first.thresholds == second.thresholds
    assert first.eps.tolist() == second.eps.tolist()


def test_everything_of_the_reference_is_filled() -> None:
    """Classes, accuracy, target and the way of calibration are in the reference."""
    data = held_out()
    found = calibrated(data)
    reference = found.reference
    assert data.right is not None
    assert len(data.values) == sum(reference.classes) == reference.count
    assert float(data.right.mean()) == reference.accuracy
    assert (
        reference.calibration,
        reference.target,
        reference.autocorrelation,
    ) == ("grouped", IID_TARGET, -1.0)
    assert {"input", "output", "all", "prediction"} == set(reference.thresholds)
    assert (found.groups, found.interval) == (SOURCES, 1)


def test_atc_threshold_gives_the_accuracy() -> None:
    """As many confidences lie at the ATC threshold or above as answers were right."""
    data = held_out()
    data = replace(
        data,
        confidence=np.linspace(0, 1, len(data.values)),
        right=np.arange(len(data.values)) % 10 < 7,
    )
    reference = calibrated(data, splits=2).reference
    assert data.confidence is not None
    above = float((data.confidence >= reference.confidence).mean())
    assert pytest.approx(above, abs=0.002) == 0.7


def test_without_labels_no_accuracy_is_claimed() -> None:
    """Without knowing which answers were right, ATC stays unknown."""
    reference = calibrated(replace(held_out(), right=None), splits=2).reference
    assert (reference.confidence, reference.accuracy) == (-1.0, -1.0)


def test_without_classes_nothing_is_predicted() -> None:
    """A model without labels has no threshold for its predictions."""
    data = replace(held_out(), classes=0, index=np.full(SOURCES * EACH, -1))
    reference = calibrated(data, splits=2).reference
    assert "prediction" not in reference.thresholds
    assert reference.classes == ()


def test_prediction_threshold_is_never_below_theory() -> None:
    """The factor of the class test is 1 at least, and more if sources differ in it."""
    data = held_out()
    same = calibrated(data, splits=4).reference
    assert data.groups is not None
    skewed = calibrated(replace(data, index=data.groups % 3), splits=4).reference
    assert 1.0 <= same.thresholds["prediction"] < skewed.thresholds["prediction"]


def test_many_labels_are_folded_before_they_are_compared() -> None:
    """A hundred labels in equal shares: as a board counts them, they do not differ."""
    data = held_out()
    index = np.random.default_rng(6).integers(0, 100, len(data.values))
    reference = calibrated(replace(data, index=index, classes=100), splits=2).reference
    assert len(reference.classes) == 65
    assert sum(reference.classes) == len(data.values)
    assert reference.classes[-1] > 20 * max(reference.classes[:-1]) / 2
    assert 1.0 <= reference.thresholds["prediction"] < 1.5


def test_a_constant_feature_is_left_out() -> None:
    """A feature that never moved calibrates to finite thresholds without it."""
    data = held_out()
    values = data.values.copy()
    values[:, 1] = 7.5
    reference = calibrated(replace(data, values=values), splits=4).reference
    assert reference.moving.tolist() == [True, False, True, True]
    assert all(np.isfinite(limit) for limit in reference.thresholds.values())


def test_a_recording_keeps_its_memory() -> None:
    """An ordered recording is thinned, and gives higher thresholds than chance."""
    rows = memory(9, 6000, 0.9)
    data = HeldOut(NAMES, COLUMNS, rows, np.full(6000, -1), ordered=True)
    ordered = calibrated(data)
    free = calibrated(replace(data, values=memory(9, 6000, 0.0), ordered=False))
    assert ordered.reference.calibration == "ordered"
    assert ordered.interval > 5
    for scope in ("input", "all"):
        higher = ordered.reference.site_thresholds[scope]
        assert higher > free.reference.site_thresholds[scope]


def test_too_few_samples() -> None:
    """Fewer samples than halves need are no calibration."""
    data = held_out()
    few = replace(
        data, values=data.values[: MIN_SAMPLES - 1], index=data.index[: MIN_SAMPLES - 1]
    )
    with pytest.raises(ValueError, match="99 samples are too few, 100 are needed"):
        calibrate(few, np.random.default_rng(1))


def test_progress_is_told() -> None:
    """Whoever waits is told after each split."""
    told: list[tuple[int, int]] = []
    calibrate(
        held_out(),
        np.random.default_rng(1),
        splits=3,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


@settings(max_examples=5, deadline=None)
@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e3))
def test_thresholds_know_no_units_law(offset: float, scale: float) -> None:
    """Features in other units are calibrated to the same thresholds."""
    data = held_out()
    other = replace(data, values=data.values * scale + offset * scale)
    first, second = (calibrated(one, splits=2).reference for one in (data, other))
    for scope, limit in first.thresholds.items():
        assert limit == pytest.approx(second.thresholds[scope], rel=0.02)


# --- Delays ------------------------------------------------------------------------


def test_larger_shifts_are_found_sooner() -> None:
    """The expected delay of every feature falls with the size of its shift."""
    found = calibrated(held_out(apart=0.0))
    by_shift: dict[str, list[int]] = {}
    for delay in found.delays:
        samples = LONGEST + 1 if delay.samples is None else delay.samples
        by_shift.setdefault(delay.shift, []).append(samples)
    assert {*NAMES, EVERYTHING} == set(by_shift)
    for delays in by_shift.values():
        assert delays == sorted(delays, reverse=True)
        assert delays[-1] < 60


def test_what_is_not_found_has_no_delay() -> None:
    """With thresholds out of reach no shift has a delay."""
    data = held_out()
    reference = calibrated(data, splits=2).reference
    deaf = replace(reference, thresholds=dict.fromkeys(reference.thresholds, 1e9))
    random = np.random.default_rng(5)
    delays = expected_delays(data.values, deaf, COLUMNS, random)
    assert {None} == {delay.samples for delay in delays}
