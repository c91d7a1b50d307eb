"""Streams of features with known properties, and references fitted to them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.fitting import fit_reference
from agent.core.drift.monitor import Monitor, Setup
from agent.core.drift.opened import Columns, OpenReference

Floats = NDArray[np.float64]
WIDTH = 8
NAMES = tuple(f"f{at}" for at in range(WIDTH))
COLUMNS: Columns = {"input": np.arange(4), "output": np.array([4, 5])}
CLASSES = 4
# Well above the highest of 10,000 samples in which nothing happens (see
# agent.core.drift.site: 26 + 1.8 per term of 8, 4 and 16 terms).
THRESHOLDS = {"input": 42.0, "output": 36.0, "all": 60.0}


def mixed(seed: int, count: int, width: int = WIDTH) -> Floats:
    """Samples (count, width) of correlated normal features, far from 0."""
    mix = np.random.default_rng(7).normal(size=(width, width))
    return np.random.default_rng(seed).normal(size=(count, width)) @ mix + 20.0


def slow(seed: int, count: int, memory: float, width: int = WIDTH) -> Floats:
    """The same with an autocorrelation of ``memory`` from a sample to the next."""
    mix = np.random.default_rng(7).normal(size=(width, width))
    drawn = np.random.default_rng(seed).normal(size=(count, width))
    rows = np.empty_like(drawn)
    last = drawn[0]
    for at, step in enumerate(drawn):
        last = memory * last + np.sqrt(1 - memory**2) * step
        rows[at] = last
    return rows @ mix + 20.0


def scenes(seed: int, count: int, length: int, width: int = WIDTH) -> Floats:
    """Like video: the same scene for ``length`` frames, with half as much noise."""
    chance = np.random.default_rng(seed)
    kept = np.repeat(mixed(seed + 1, count // length + 1, width), length, axis=0)
    spread = mixed(0, 2000, width).std(axis=0)
    noise = 0.5 * chance.normal(size=(count, width)) * spread
    found: Floats = (kept[:count] - 20.0 + noise) / np.sqrt(1.25) + 20.0
    return found


def reference(
    rows: Floats | None = None, eps: float = 0.05, target: float = 0.05
) -> OpenReference:
    """A reference with thresholds, of 2,000 samples or of these."""
    found = mixed(0, 2000) if rows is None else rows
    names = tuple(f"f{at}" for at in range(found.shape[1]))
    return replace(
        fit_reference(names, found),
        thresholds=THRESHOLDS,
        eps=np.full(found.shape[1], eps),
        target=target,
        classes=(500,) * CLASSES,
        digest="0" * 64,
    )


@dataclass(frozen=True, slots=True)
class Transition:
    """What was active when an alarm changed, at a sample's number."""

    seq: int
    active: frozenset[tuple[str, str]]


def scattered(seq: int) -> int:
    """A label for each sample, all as often, in no order that a spacing would meet."""
    return (seq * 2654435761 >> 7) % CLASSES


def drive(
    monitor: Monitor,
    rows: Floats,
    answers: Callable[[int], int] = scattered,
    first: int = 0,
) -> list[Transition]:
    """Show a monitor a stream, as often as it asks; return what changed."""
    return list(_drive(monitor, rows, answers, first))


def _drive(
    monitor: Monitor, rows: Floats, answers: Callable[[int], int], first: int
) -> Iterator[Transition]:
    seq = first
    while seq < first + len(rows):
        if monitor.observe(rows[seq - first], answers(seq), 0.9, seq, seq):
            yield Transition(seq, active(monitor))
        seq += monitor.interval


def active(monitor: Monitor) -> frozenset[tuple[str, str]]:
    """(anchor, scope) of the alarms that are active."""
    alarms = monitor.say().alarms
    return frozenset((alarm.anchor, alarm.scope) for alarm in alarms if alarm.active)


def setup(shipped: OpenReference | None = None) -> Setup:
    """What a monitor of these streams is told."""
    return Setup(NAMES, COLUMNS, CLASSES, shipped=shipped, site_samples=0)
