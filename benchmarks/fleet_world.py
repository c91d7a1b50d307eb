"""A fleet, its network, its server and its owner, all on this machine.

``fleet_world`` begins with boards that run version 1 and have nothing to do.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from agent.core.targets import GroupFile
from agent.publish.pack import render_bundle
from agent.publish.repository import Assignment, init_repository
from benchmarks.fleet_board import GROUP, MODEL, PIPELINE, FleetBoard, Shared
from benchmarks.fleet_clock import Clock
from benchmarks.fleet_relay import Ledger, Relay
from benchmarks.fleet_server import Asked, FleetServer
from tests.fakes.bundles import GOLDEN, manifest

BUNDLE_BYTES = 400_000  # more than one block of everything, small enough for thousands
LONG_AGO_S = 10_000_000.0
LOOK_S = 1.0  # simulated: how often the owner looks whether boards have arrived


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed in a span of simulated time.

    Attributes:
        seconds: Of the span; ``requests`` answered in it.
        http_bytes: Heads and bodies, both ways, as nginx counts them.
        wire_bytes: The same with TLS, as TCP carried them.
        idle_segments: TCP segments of connections that ended for being idle, on
            average: what one look takes on the wire.
        handshakes: Connections that ended up in nginx's log; ``resumed`` of them.
        per_second: Requests of each simulated second.
        looks_per_second: Looks of all boards, those that failed as well.
    """

    seconds: float
    requests: int
    http_bytes: int
    wire_bytes: int
    idle_segments: float
    handshakes: int
    resumed: int
    per_second: list[int]
    looks_per_second: list[int]


class World:
    """Everything that a scenario may touch.

    Attributes:
        boards: All of them; every second one is reached through ``bumpy``.
        poll_s: Their period.
        bad: Versions that fail their trials; may be added to.
        bundle_bytes: Of the version that was published last.
        looks: Unix seconds of every look of every board, failed ones included.
    """

    def __init__(
        self, here: Path, count: int, poll_s: float, tell: Callable[[float], None]
    ) -> None:
        self.clock = Clock()
        self.repository = init_repository(here / "repo", None, b"", now=self.clock())
        self.server = FleetServer(here / "nginx", here / "repo")
        self.ledger = Ledger()
        self.smooth, self.bumpy = Relay(self.ledger, 1), Relay(self.ledger, 2)
        self.poll_s = poll_s
        self.bad: set[int] = set()
        self.looks: list[float] = []
        self.boards: list[FleetBoard] = []
        self._here, self._count = here, count
        self._tell = tell
        self._published = self.bundle_bytes = 0

    async def populate(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start the server and the network, then switch boards on."""
        self.publish(1)
        self.server.start()
        for relay in (self.smooth, self.bumpy):
            await relay.open(self.server.port)
        shared = Shared(
            here=self._here,
            root=self.repository.first_root(),
            ca=self.server.authority.file,
            clock=self.clock,
            poll_s=self.poll_s,
            bad=self.bad,
            pool={},
            looks=self.looks,
        )
        ports = (self.smooth.port, self.bumpy.port)
        self.boards = [
            FleetBoard(number, ports[number % 2], shared)
            for number in range(self._count)
        ]
        return [group.create_task(board.live()) for board in self.boards]

    async def close(self) -> None:
        """End the server, and the network."""
        for relay in (self.smooth, self.bumpy):
            await relay.shut()
        self.server.stop()

    # --- what an owner does

    def next_version(self) -> int:
        """Return the first version that was not published."""
        return self._published + 1

    def publish(
        self, version: int, percent: float = 100.0, *, paused: bool = False
    ) -> GroupFile:
        """Publish a version for a share of the boards; larger shares keep them."""
        if version > self._published:
            content = bundle(version)
            self.repository.add(content, model=MODEL, version=version)
            self._published, self.bundle_bytes = version, len(content)
        rules = Assignment(percent=percent, salt=salt(version), paused=paused)
        wanted = {PIPELINE: (MODEL, version)}
        file = self.repository.assign(GROUP, wanted, assignment=rules)
        self.sign()
        return file

    def sign(self) -> None:
        """Sign what is staged, or the timestamp alone, and let it look settled.

        Files that changed within the last second have no ETag that counts (see
        ``agent.trust.answers.is_settled``). Simulated minutes are real milliseconds, so
        that files get times that lie back, as far apart as simulated time says.
        """
        self.repository.publish(self.clock())
        real_s = time.time()  # noqa: TID251 - file times are the system's
        moment_s = real_s - LONG_AGO_S + self.clock.at_s()
        for path in (self._here / "repo").rglob("*"):
            if path.is_file() and path.stat().st_mtime > real_s - LONG_AGO_S / 10:
                os.utime(path, (moment_s, moment_s))

    async def pass_time(self, seconds: float) -> None:
        """Let simulated time pass, and tell of it."""
        ends_s = self.clock.at_s() + seconds
        while (left_s := ends_s - self.clock.at_s()) > 0:
            await asyncio.sleep(min(left_s, self.poll_s / 20))
            self._tell(self.clock.at_s())

    async def until(
        self, arrived: Callable[[FleetBoard], bool], share: float, patience_s: float
    ) -> float | None:
        """Wait until a share of the boards has arrived; return how long that took.

        Returns:
            Simulated seconds; None where that was not within ``patience_s``.
        """
        began_s = self.clock.at_s()
        while sum(map(arrived, self.boards)) < share * len(self.boards):
            if self.clock.at_s() - began_s > patience_s:
                return None
            await asyncio.sleep(LOOK_S)
            self._tell(self.clock.at_s())
        return self.clock.at_s() - began_s

    # --- what was seen

    def traffic(self, began_s: float, ended_s: float) -> Traffic:
        """Return what passed on connections that began in a span of time."""
        passed = self.ledger.passed
        inside = {
            number for number, it in enumerate(passed) if began_s <= it.at_s < ended_s
        }
        asked = [it for it in self.server.asked() if it.connection in inside]
        times = [passed[it.connection].at_s - began_s for it in asked]
        began = self.clock.began + began_s
        looks = [at - began for at in self.looks]
        first = _first_of_each(asked)
        return Traffic(
            seconds=ended_s - began_s,
            requests=len(asked),
            http_bytes=sum(it.http_bytes for it in asked),
            wire_bytes=sum(
                passed[it].up_bytes + passed[it].down_bytes for it in inside
            ),
            idle_segments=_mean([it for n in inside if (it := passed[n].segments)]),
            handshakes=len(first),
            resumed=sum(it.resumed for it in first),
            per_second=_counted(times, ended_s - began_s),
            looks_per_second=_counted(looks, ended_s - began_s),
        )


@contextlib.asynccontextmanager
async def fleet_world(
    count: int, poll_s: float, tell: Callable[[float], None]
) -> AsyncIterator[World]:
    """Make a fleet of boards that run version 1, and end it.

    Its files lie in memory where that is possible: this is no benchmark of a disk.

    Raises:
        FileNotFoundError: nginx is not installed.
        TimeoutError: Boards do not come up.
    """
    shm = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    where = shm if os.access(shm, os.W_OK) else None
    here = Path(tempfile.mkdtemp(prefix="tinyward-fleet-", dir=where))
    world = World(here, count, poll_s, tell)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = await world.populate(group)
            if await world.until(lambda it: it.version == 1, 1.0, 4 * poll_s) is None:
                raise TimeoutError("not all boards installed version 1")
            yield world
            for task in tasks:
                task.cancel()
    finally:
        await world.close()
        shutil.rmtree(here, ignore_errors=True)


def salt(version: int) -> str:
    """Return what draws the boards of a version's waves."""
    return f"wave-{version}"


def bundle(version: int) -> bytes:
    """Return a bundle that opens, of about ``BUNDLE_BYTES``; no two are alike."""
    variants = {"int8": hashlib.shake_128(b"%d" % version).digest(BUNDLE_BYTES)}
    return render_bundle(manifest(variants, version), variants, GOLDEN)


def _mean(values: list[int]) -> float:
    """Return the mean of some values, 0 of none."""
    return sum(values) / len(values) if values else 0.0


def _first_of_each(asked: list[Asked]) -> list[Asked]:
    """Return the first request of each connection."""
    first: dict[int, Asked] = {}
    for it in asked:
        first.setdefault(it.connection, it)
    return list(first.values())


def _counted(times: list[float], seconds: float) -> list[int]:
    """Return how many of some moments lie in each second from 0 on."""
    counts = [0] * max(1, int(seconds))
    for at in times:
        if 0 <= at < len(counts):
            counts[int(at)] += 1
    return counts
