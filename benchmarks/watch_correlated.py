"""Streams that remember: does the monitor choose an N at which its thresholds hold?

Each stream is a board of its own: a new monitor, 20,000 samples at full rate, of which
it is shown those it asks for. Both valid ways to calibrate are tried: with an ordered
recording, and with samples without order.
"""

import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.monitor import Monitor
from benchmarks.drift_scenarios import digit_world
from benchmarks.drift_scenarios_sensors import CHANGES, sensor_world
from benchmarks.drift_scenarios_shifts import NONE
from benchmarks.rows import Row
from benchmarks.watch_runs import (
    MISSED,
    PRE,
    Found,
    active,
    geometric_mean,
    mean_recall,
    new_monitor,
    pick,
    raised,
    run_shift,
)
from benchmarks.watch_subjects import (
    Tensors,
    Watched,
    digit_manifest,
    digit_tensors,
    make_watched,
    read_all,
    sensor_manifest,
    sensor_tensors,
)

SAMPLES = 20_000  # of a stream, at full rate
RECORDED = 40_000  # samples of the ordered recording that a profile is made of
SCENE = 20  # frames of one scene, on average
VIDEO_RECORDED = 20_000
Kind = Literal["AR(.95) sensors", "video-like frames"]
KINDS: tuple[Kind, ...] = ("AR(.95) sensors", "video-like frames")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one stream: whether it alarmed, the N it chose, what it saw."""

    alarmed: bool
    interval: int
    watched: int


def correlated_rows(streams: int) -> list[Row]:
    """Return the probability of a false alarm in 20,000 samples, and the N chosen."""
    jobs = [(kind, ordered, streams) for kind in KINDS for ordered in (True, False)]
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1)) as pool:
        outcomes = list(pool.map(_run_streams, jobs))
    rows = []
    for (kind, ordered, _), found in zip(jobs, outcomes, strict=True):
        title = f"{kind}, {'ordered' if ordered else 'unordered'} calibration"
        alarmed = statistics.mean(one.alarmed for one in found)
        what = f"{title}: P(false alarm in 20,000 samples)"
        rows.append(Row("watch", what, alarmed, "", 0.05))
        chosen = statistics.median(one.interval for one in found)
        rows.append(Row("watch", f"{title}: N chosen", chosen, "samples"))
    return rows


def sensor_rows(runs: int) -> list[Row]:
    """Return delay and recall of changes of one of 32 channels, without memory."""
    world = sensor_world()
    random = np.random.default_rng(31)
    held_out = sensor_tensors(world, world.draw(4000, random).rows)
    watched = make_watched(sensor_manifest(), held_out, groups=None, random=random)
    null = read_all(
        watched.reader, sensor_tensors(world, world.draw(8000, random).rows)
    )
    found = []
    for name, change in CHANGES.items():
        changed = change(world.draw(4000, random).rows, random)
        looks = read_all(watched.reader, sensor_tensors(world, changed))
        delays = [
            run_shift(
                lambda: new_monitor(watched.shipped),
                lambda: pick(null, PRE, random),
                lambda looks=looks: pick(looks, MISSED, random),  # type: ignore[misc]  # bound now
                ([("shipped", "input"), ("shipped", "output"), ("shipped", "all")],),
            )[0]
            for _ in range(runs)
        ]
        found.append(Found(name, tuple(delays)))
    rows = [
        Row("watch", "sensors: delay, gm of medians", geometric_mean(found), "samples"),
        Row("watch", "sensors: recall", mean_recall(found), ""),
    ]
    rows += [
        Row("watch", f"sensors, {one.name}: delay", one.delay, "samples")
        for one in found
    ]
    return rows


def _run_streams(job: tuple[Kind, bool, int]) -> list[Outcome]:
    """Make a profile, then run streams against it."""
    kind, ordered, streams = job
    os.nice(10)
    random = np.random.default_rng(21)
    if kind == "AR(.95) sensors":
        watched, draw = _sensors(random, ordered=ordered)
    else:
        watched, draw = _video(random, ordered=ordered)
    return [_run_stream(watched, draw()) for _ in range(streams)]


def _run_stream(watched: Watched, tensors: list[Tensors]) -> Outcome:
    """Show a stream to a new monitor."""
    monitor = new_monitor(watched.shipped)
    seen = sum(1 for _ in _feed(monitor, watched, tensors))
    alarmed = any(raised(monitor).values()) or bool(active(monitor))
    return Outcome(alarmed, monitor.say().interval, seen)


def _feed(monitor: Monitor, watched: Watched, tensors: list[Tensors]) -> Iterator[int]:
    """Read and show what the monitor asks for; yield the numbers of those samples."""
    at = 0
    while at < len(tensors):
        looks = read_all(watched.reader, tensors[at : at + 1])
        monitor.observe(
            looks.values[0],
            int(looks.index[0]),
            float(looks.confidence[0]),
            int(looks.checksum[0]),
            at + 1,
        )
        yield at
        at += monitor.interval


Draw = Callable[[], list[Tensors]]


def _sensors(random: np.random.Generator, *, ordered: bool) -> tuple[Watched, Draw]:
    """Return a watched machine, and what draws recordings of it."""
    world = sensor_world()
    seen = world.record(RECORDED, random) if ordered else world.draw(4000, random)
    held_out = sensor_tensors(world, seen.rows)
    watched = make_watched(
        sensor_manifest(), held_out, groups=None, random=random, ordered=ordered
    )
    return watched, lambda: sensor_tensors(world, world.record(SAMPLES, random).rows)


def _video(random: np.random.Generator, *, ordered: bool) -> tuple[Watched, Draw]:
    """Return watched frames of pool A, and what draws video of pool B's scenes."""
    world = digit_world()

    def film(pool: NDArray[np.intp], count: int) -> NDArray[np.intp]:
        cuts = random.random(count) < 1 / SCENE
        cuts[0] = True
        held = np.maximum.accumulate(np.where(cuts, np.arange(count), 0))
        return random.choice(pool, count)[held]

    def shoot(sources: NDArray[np.intp]) -> list[Tensors]:
        return digit_tensors(world, world.frames(sources, NONE, random))

    pool = world.pool_a
    sources = film(pool, VIDEO_RECORDED) if ordered else np.repeat(pool, 4)
    # A recording's groups are its sessions: here the whole is one.
    watched = make_watched(
        digit_manifest(),
        shoot(sources),
        groups=None if ordered else sources,
        random=random,
        ordered=ordered,
    )
    return watched, lambda: shoot(film(world.pool_b, SAMPLES))
