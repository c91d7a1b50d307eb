"""``update``, ``publish`` and ``poll``: what updates cost while they happen, and idle.

The daemon runs in this process, so that the loop's own histogram and the CPU seconds of
a look can be read; its worker, its children and nginx are processes of their own.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

from agent.cli.places import read_settings
from agent.core.counts import EMPTY, add_sections
from agent.core.histogram import quantile
from agent.core.manifest import TrialRules
from agent.core.statistics_block import Section
from agent.daemon import Daemon
from agent.store import Store
from benchmarks.boards import RealBoard, real_board
from benchmarks.rows import Row, median
from benchmarks.server import served
from benchmarks.subjects import subject

BUNDLE_BYTES = 10_000_000
P99_RATIO, ACTIVE_S, POLL_MS, REFRESH_MS = 1.5, 3.0, 5.0, 30.0
BEFORE_S = 5.0
LOOK_S = 0.005
WHILE_S = 2.0  # pokes are a second apart
PATIENCE_S = 60.0
RULES = TrialRules(shadow_samples=200, probation_s=2.0)


async def run_update(rounds: int) -> list[Row]:
    """Return what an update of a 10 MB bundle does to the loop under full load."""
    ratios, took, lost = [], [], 0
    with _board(poll_s=100_000.0) as board:
        async with _daemon(board) as daemon:
            for version in range(2, rounds + 2):
                _publish(board, version, RULES, BUNDLE_BYTES)
                before = _counted(daemon)
                await asyncio.sleep(BEFORE_S)
                began = _counted(daemon)
                seconds = await _updated(daemon, version)
                ended = _counted(daemon)
                took.append(sum(seconds.values()))
                ratios.append(_p99(began, ended) / _p99(before, began))
                lost += ended.received - sum(ended.outcomes) - ended.in_flight
                lost += sum(ended.outcomes[1:])
    ratio, spread = median(ratios)
    named = f"{BUNDLE_BYTES // 1_000_000} MB"
    return [
        Row("update", f"{named}: samples lost or failed", lost, "", 0),
        Row("update", f"{named}: p99 / before", ratio, "", P99_RATIO, spread=spread),
        Row("update", f"{named}: look to active", median(took)[0], "s"),
    ]


async def run_publish(rounds: int) -> list[Row]:
    """Return the time from publish to active on a board that polls once a second."""
    totals: list[float] = []
    phases: dict[str, list[float]] = {}
    with _board(poll_s=1.0) as board:
        async with _daemon(board) as daemon:
            for version in range(2, rounds + 2):
                _publish(board, version, TrialRules(), 0)
                began = time.monotonic()
                seconds = await _updated(daemon, version, knock=False)
                totals.append(time.monotonic() - began)
                for phase, spent in seconds.items():
                    phases.setdefault(phase, []).append(spent * 1000)
    total, spread = median(totals)
    first = Row(
        "publish", "kws: publish to active", total, "s", ACTIVE_S, spread=spread
    )
    waiting = phases.pop("IDLE", [0.0])
    rows = [Row("publish", "waiting for the next look", median(waiting)[0], "ms")]
    rows += [Row("publish", name, median(ms)[0], "ms") for name, ms in phases.items()]
    return [first, *rows]


async def run_poll(rounds: int) -> list[Row]:
    """Return the CPU time of a look with nothing new, and of one with something."""
    idle, full = [], []
    with _board(poll_s=100_000.0) as board:
        async with _daemon(board) as daemon:
            for _ in range(rounds):
                idle.append(await _look_ms(daemon))
                board.repository.publish(time.time())  # noqa: TID251 - as its owner does
                full.append(await _look_ms(daemon))
    poll, poll_spread = median(idle)
    refresh, refresh_spread = median(full)
    return [
        Row("poll", "nothing new: CPU", poll, "ms", POLL_MS, spread=poll_spread),
        Row("poll", "refresh: CPU", refresh, "ms", REFRESH_MS, spread=refresh_spread),
    ]


@contextlib.contextmanager
def _board(poll_s: float) -> Iterator[RealBoard]:
    """Make a board that follows an nginx server."""
    with real_board(subject("kws")) as board, served(board.here / "repo") as address:
        board.configure(poll_s=poll_s)
        path = board.here / "agent.toml"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(f"{board.here}/repo", address), encoding="utf-8")
        yield board


@contextlib.asynccontextmanager
async def _daemon(board: RealBoard) -> AsyncIterator[Daemon]:
    """Run the daemon in this process until its first model answers."""
    store = Store.open(board.here / "state")
    daemon = Daemon(
        read_settings(board.here / "agent.toml"),
        store,
        board.here / "state",
        root=(board.here / "root.json").read_bytes(),
        socket=board.here / "inner.sock",
        announce=lambda _where: None,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(daemon.run())
        async with asyncio.timeout(PATIENCE_S):
            while not daemon.snapshot().pipelines[0].ready:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        try:
            yield daemon
        finally:
            daemon.ask_to_stop()
            await running
            store.close()


def _publish(board: RealBoard, version: int, rules: TrialRules, size: int) -> None:
    """Publish the same model as another version, padded to about ``size`` bytes."""
    content = board.subject.renumbered(version, rules, size)
    name = board.subject.name
    board.repository.add(content, model=name, version=version)
    board.repository.assign("all", {name: (name, version)})
    board.repository.publish(time.time())  # noqa: TID251 - as its owner does


async def _updated(
    daemon: Daemon, version: int, *, knock: bool = True
) -> dict[str, float]:
    """Let the daemon look, wait until a version is committed; return s by phase."""
    if knock:
        daemon.poke()
    seconds: dict[str, float] = {}
    phase, since = "IDLE", time.monotonic()
    deadline = since + PATIENCE_S
    while not _committed(daemon, version):
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(str(daemon.snapshot().update))
        seconds[phase] = seconds.get(phase, 0.0) + now - since
        phase, since = daemon.snapshot().update.phase, now
        await asyncio.sleep(LOOK_S)
    return seconds


def _committed(daemon: Daemon, version: int) -> bool:
    """Whether a version answers and is committed."""
    pipeline = daemon.snapshot().pipelines[0]
    active = pipeline.active
    return (
        active is not None
        and active.version == version
        and pipeline.state == "active"
        and daemon.snapshot().update.phase == "IDLE"
    )


async def _look_ms(daemon: Daemon) -> float:
    """Let the daemon look once; return the CPU milliseconds that it took.

    What the daemon does anyhow in that time (the board's readings, its watch) is
    measured beside it and taken off.
    """
    anyhow = await _cpu_ms()
    last = daemon.snapshot().update.last_look
    daemon.poke()
    with_look = await _cpu_ms()
    if daemon.snapshot().update.last_look <= last:
        raise TimeoutError("it did not look")
    return with_look - anyhow


async def _cpu_ms() -> float:
    """Return the CPU milliseconds of this process while a look would go on."""
    began = time.process_time()
    await asyncio.sleep(WHILE_S)
    return (time.process_time() - began) * 1000


def _counted(daemon: Daemon) -> Section:
    """Return what all versions have answered so far."""
    total = EMPTY
    for counts in daemon.snapshot().pipelines[0].counts:
        total = add_sections(total, counts.section)
    return total


def _p99(before: Section, after: Section) -> float:
    """Return the p99 in ns of what was answered in between."""
    earlier, later = before.stages[-1].buckets, after.stages[-1].buckets
    return quantile([b - a for a, b in zip(earlier, later, strict=True)], 0.99)
