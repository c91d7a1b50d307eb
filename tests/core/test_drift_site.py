"""The board's own baseline: what it keeps, what it refuses, and when it can be had."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.core.drift.mewma import mewma_path
from agent.core.drift.opened import Floats, OpenReference
from agent.core.drift.site import (
    MOST_ROWS,
    SITE_EPS,
    SUSPECT_SAMPLES,
    Collection,
    parse_baseline,
    render_baseline,
    table_threshold,
)
from agent.core.profile import MAX_PROFILE_BYTES
from agent.core.watching import Scope
from agent.errors import BundleRefusedError
from tests.fakes.drift_streams import CLASSES, COLUMNS, NAMES, mixed, scattered, slow


def collected(rows: Floats) -> Collection:
    """A collection of all these samples."""
    found = Collection(len(rows), rows.shape[1], CLASSES)
    for at, row in enumerate(rows):
        assert found.add(row, scattered(at)) == (at == len(rows) - 1)
    return found


def frozen(rows: Floats) -> OpenReference:
    """Their baseline, with a table's thresholds."""
    return collected(rows).freeze(NAMES, COLUMNS, {})


def test_a_baseline_is_what_was_kept() -> None:
    """Rendered and parsed it is the same, rounded to float32, and alarms the same."""
    found = frozen(mixed(1, 2000))
    raw = render_baseline(found)
    again = parse_baseline(raw, NAMES)
    assert found.classes == again.classes
    assert found.thresholds == again.thresholds
    for name in ("mean", "sd", "abs_mean", "abs_sd", "edges", "eps"):
        assert getattr(again, name) == pytest.approx(getattr(found, name), rel=1e-6)
    rows = mixed(2, 300)
    expected = mewma_path(rows, found, COLUMNS)["all"]
    assert expected == pytest.approx(mewma_path(rows, again, COLUMNS)["all"], rel=1e-3)
    assert raw == render_baseline(parse_baseline(raw, NAMES))


def test_it_holds_no_sample_and_is_small() -> None:
    """Forty features fit the bound; no value of a sample is in it."""
    rows = np.random.default_rng(1).normal(size=(2000, 40))
    names = tuple(f"f{at}" for at in range(40))
    found = Collection(2000, 40, 65)
    for at, row in enumerate(rows):
        found.add(row, at % 65)
    frozen_reference = found.freeze(names, {}, {})
    assert len(render_baseline(frozen_reference)) <= MAX_PROFILE_BYTES
    extremes = np.concatenate([rows.min(axis=0), rows.max(axis=0)]).astype(np.float32)
    kept = np.concatenate([frozen_reference.edges.ravel(), frozen_reference.mean])
    assert not np.isin(extremes, kept.astype(np.float32)).any()


def test_samples_are_overwritten() -> None:
    """After freezing nothing of them is left in memory."""
    found = collected(mixed(1, 500))
    found.freeze(NAMES, COLUMNS, {})
    assert not found._rows.any()
    assert found.collected == 0


def test_what_was_before_an_alarm_is_left_out() -> None:
    """The last hundred samples may be what alarmed."""
    found = Collection(500, 8, CLASSES)
    for row in mixed(1, 150):
        found.add(row, 0)
    for _ in range(40):
        found.distrust()
        assert found.collected == 150 - SUSPECT_SAMPLES
    found.add(mixed(1, 1)[0], 0)
    found.distrust()
    assert found.collected == 0


def test_of_a_long_collection_an_even_choice_is_fitted() -> None:
    """The loop waits for no more than 2,000 rows; they are of the whole time."""
    found = Collection(5000, 8, CLASSES)
    for at, row in enumerate(mixed(1, 5000)):
        row[0] = at
        assert found.add(row, scattered(at)) == (at == 4999)
    kept = found._rows[:, 0].copy()
    assert (len(kept), found.collected) == (MOST_ROWS, 5000)
    assert set(np.diff(kept).tolist()) == {2, 3}
    opened = found.freeze(NAMES, COLUMNS, {})
    assert (opened.count, sum(opened.classes)) == (MOST_ROWS, 5000)


def test_thresholds_are_never_below_what_its_own_halves_show() -> None:
    """A place whose samples remember each other gets higher ones than a table's."""
    calm, restless = frozen(mixed(1, 2000)), frozen(slow(1, 2000, 0.9))
    table = 28 + 1.8 * 16
    assert table <= calm.thresholds["all"] < 1.2 * table
    assert restless.thresholds["all"] > 2 * table
    assert float(restless.eps.max()) > SITE_EPS


@given(st.integers(2, 70), st.integers(50, 3000), st.integers(50, 3000))
def test_fewer_samples_alarm_later(terms: int, one: int, other: int) -> None:
    """The table's threshold falls with samples as far as 2,000, and no further."""
    fewer, more = sorted((one, other))
    expected = table_threshold(terms, more)
    assert expected <= table_threshold(terms, fewer)
    assert table_threshold(terms, 2000) == table_threshold(terms, 3000)
    assert table_threshold(terms, 2000) == 28 + 1.8 * terms


@pytest.mark.parametrize("count", [200, 500])
def test_a_small_baseline_is_quiet_too(count: int) -> None:
    """No false alarm in 10 times 4,000 samples; with a table for 2,000 there are."""
    highest = []
    for seed in range(10):
        found = frozen(mixed(seed, count))
        path = mewma_path(mixed(100 + seed, 4000), found, COLUMNS)["all"]
        assert float(path.max()) < found.thresholds["all"]
        highest.append(float(path.max()))
    assert count > 200 or max(highest) > 28 + 1.8 * 16


def test_a_loop_longer_than_its_baseline_is_quiet() -> None:
    """A recording of 600 that goes round, of which a baseline saw the first third."""
    rows = mixed(3, 600, 15)
    names = tuple(f"f{at}" for at in range(15))
    columns: dict[Scope, NDArray[np.intp]] = {
        "input": np.arange(13),
        "output": np.arange(13, 15),
    }
    found = collected(rows[:200]).freeze(names, columns, {})
    path = mewma_path(np.tile(rows, (5, 1)), found, columns)
    for scope, statistics in path.items():
        assert float(statistics.max()) < found.thresholds[scope]


def test_a_profile_states_thresholds() -> None:
    """Those that it has are used; a table's where it has none."""
    found = collected(mixed(1, 2000)).freeze(NAMES, COLUMNS, {"all": 99.0})
    assert found.thresholds["all"] == 99.0
    assert found.thresholds["input"] >= 28 + 1.8 * 8


def test_no_false_alarm_against_its_own_place() -> None:
    """20,000 more samples of the same place stay below its thresholds."""
    found = frozen(mixed(1, 2000))
    path = mewma_path(mixed(2, 20_000), found, COLUMNS)
    assert float(path["all"].max()) < found.thresholds["all"]


def test_constant_features_and_no_classes_freeze() -> None:
    """A place where nothing moves, of a model without labels, has a baseline too."""
    found = Collection(100, 8, 0)
    for row in np.ones((100, 8)):
        found.add(row, -1)
    reference = found.freeze(NAMES, COLUMNS, {})
    assert not reference.moving.any()
    assert parse_baseline(render_baseline(reference), NAMES).classes == ()


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(raw: bytes) -> None:
    """No bytes but a baseline's are one, and nothing else is raised."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_baseline(raw, NAMES)
    assert caught.value.reason == "profile"


GOOD = render_baseline(frozen(mixed(1, 200)))


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_baseline_is_refused_or_usable(data: st.DataObject) -> None:
    """One byte changed: refused, or finite numbers that can be compared with."""
    at = data.draw(st.integers(0, len(GOOD) - 1))
    raw = GOOD[:at] + bytes([data.draw(st.integers(0, 255))]) + GOOD[at + 1 :]
    try:
        found = parse_baseline(raw, NAMES)
    except BundleRefusedError:
        return
    path = mewma_path(mixed(2, 10), found, COLUMNS)
    assert all(bool(np.isfinite(part).all()) for part in path.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2),
        ("features_version", 999),
        ("features", ["other"] * 8),
        ("count", 1),
        ("mean", ""),
        ("whitening", "AAAA"),
        ("counts", "AAAAAA=="),
        ("thresholds", {"all": 0}),
        ("thresholds", {"all": -1.0}),
        ("surprise", 1),
    ],
)
def test_each_wrong_field_is_refused(field: str, value: object) -> None:
    """Another schema, other features, other sizes, thresholds that always alarm."""
    content = json.loads(GOOD)
    content[field] = value
    with pytest.raises(BundleRefusedError):
        parse_baseline(json.dumps(content).encode(), NAMES)


@pytest.mark.parametrize(
    ("field", "value"),
    [("sd", -1.0), ("sd", np.nan), ("mean", np.inf), ("eps", 0.6), ("edges", None)],
)
def test_impossible_numbers_are_refused(field: str, value: float | None) -> None:
    """Spreads below 0, NaN, tolerances of everything, quantiles that fall."""
    found = parse_baseline(GOOD, NAMES)
    array = getattr(found, field).copy()
    if value is None:
        array = array[:, ::-1]
    else:
        array[0] = value
    broken = replace(found, **{field: array})
    with pytest.raises(BundleRefusedError):
        parse_baseline(render_baseline(broken), NAMES)


@pytest.mark.parametrize("factor", [0.0, 1e-12, 1e12, 5e29])
def test_a_whitening_of_no_samples_is_refused(factor: float) -> None:
    """Finite numbers by which nothing would ever alarm, or everything be infinite."""
    found = parse_baseline(GOOD, NAMES)
    broken = replace(found, whitening=factor * found.whitening)
    with pytest.raises(BundleRefusedError, match="whitening"):
        parse_baseline(render_baseline(broken), NAMES)


def test_a_baseline_of_another_size_is_refused() -> None:
    """More than a profile may be is not even parsed."""
    with pytest.raises(BundleRefusedError):
        parse_baseline(b" " * (MAX_PROFILE_BYTES + 1), NAMES)
