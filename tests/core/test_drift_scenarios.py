"""The benchmark's scenarios: the same every time, and as harmful as they say."""

import numpy as np
import pytest

from benchmarks.drift_scenarios import DigitWorld, digit_world
from benchmarks.drift_scenarios_sensors import CHANGES, SensorWorld
from benchmarks.drift_scenarios_shifts import (
    COLD_START,
    HELD_OUT,
    KNOWN,
    NONE,
    Shift,
)

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def test_frames_repeat() -> None:
    """Two worlds train the same network and draw the same frames."""
    seen = []
    for world in (DigitWorld(), digit_world()):
        random = np.random.default_rng(1)
        sources = world.draw(world.pool_b, 50, KNOWN[0], random)
        frames = world.frames(sources, KNOWN[0], random)
        seen.append((frames.tobytes(), world.answer(frames).softmax.tobytes()))
    assert seen[0] == seen[1]


def test_readings_repeat() -> None:
    """Two machines give the same readings and answers."""
    seen = []
    for world in (SensorWorld(), SensorWorld()):
        rows = world.record(200, np.random.default_rng(2)).rows
        seen.append((rows.tobytes(), world.answer(rows).tobytes()))
    assert seen[0] == seen[1]


def test_pools_share_no_source() -> None:
    """No source image is in two pools, and none is of the digit left out."""
    world = digit_world()
    pools = [world.train, world.pool_a, world.pool_b, world.novel]
    every = np.concatenate(pools)
    assert len(every) == len(set(every.tolist()))
    assert [len(pool) for pool in pools] == [600, 500, 517, 180]


def test_lists_are_apart() -> None:
    """Known and held-out shifts are eighteen each, and none is in both."""
    known, held_out = ({shift.name for shift in part} for part in (KNOWN, HELD_OUT))
    assert (len(known), len(held_out)) == (18, 18)
    assert set() == known & held_out
    assert sum(shift.harmful for shift in KNOWN) == 7
    assert set(COLD_START) <= known


def accuracy(world: DigitWorld, shift: Shift) -> float:
    """Return the network's accuracy under a shift."""
    random = np.random.default_rng(3)
    sources = world.draw(world.pool_b, 1000, shift, random)
    return world.accuracy(sources, world.answer(world.frames(sources, shift, random)))


@pytest.mark.parametrize(
    "shift", [s for s in (*KNOWN, *HELD_OUT) if s.harmful], ids=lambda s: s.name
)
def test_harmful_shifts_do_harm(shift: Shift) -> None:
    """Each harmful shift costs two points of accuracy at least."""
    world = digit_world()
    assert accuracy(world, shift) < accuracy(world, NONE) - 0.02


@pytest.mark.parametrize("name", CHANGES)
def test_changes_change_two_channels_at_most(name: str) -> None:
    """A change of the machine touches channel 5, or swaps it with 9."""
    rows = SensorWorld().draw(300, np.random.default_rng(4)).rows
    changed = CHANGES[name](rows, np.random.default_rng(5))
    touched = set(np.flatnonzero((rows != changed).any(axis=0)).tolist())
    assert {5} <= touched <= {5, 9}
