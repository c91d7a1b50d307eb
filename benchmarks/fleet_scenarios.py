"""What happens to a simulated fleet, one thing after the other.

Each scenario leaves a fleet that runs one version and has nothing to do, so that any
of them may come next; the bad version comes last.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from agent.core.schedule import takes_part
from benchmarks.fleet_relay import Weather
from benchmarks.fleet_world import Traffic, World

STEADY_S = 3600.0
# Long enough that every board has met it several times; and one that only each second
# or third retry of the eager kind would have met.
OUTAGES = (1.0, 12.0)  # in poll periods
AFTER = 3.0  # poll periods that are watched after a recovery
# What an owner signs while the server is away: each look that follows asks for more.
What = Literal["timestamp", "version"]
NEWS: tuple[What, ...] = get_args(What)
PATIENCE = 24.0  # poll periods until a board counts as stuck
FLAPPING = Weather(refused=0.3, cut_bytes=(10_000, 200_000))
WAVES = (1.0, 10.0, 100.0)


@dataclass(frozen=True, slots=True)
class Steady:
    """Nothing new for an hour."""

    traffic: Traffic
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Outage:
    """A server that was away.

    Attributes:
        away_s: For how long.
        before: As much time before it as was watched ``after`` it came back.
        whole: From the beginning of one to the end of the other.
        all_current_s: When the last board had looked successfully, after it was back.
    """

    away_s: float
    before: Traffic
    after: Traffic
    whole: Traffic
    all_current_s: float | None


@dataclass(frozen=True, slots=True)
class News:
    """Something signed, once while nothing is wrong and once during an outage.

    Attributes:
        calm: From the signature on, for as long as ``outage.after``.
    """

    what: What
    calm: Traffic
    outage: Outage


@dataclass(frozen=True, slots=True)
class Flapping:
    """A version that half of the boards get through a bad network.

    Attributes:
        stuck: Boards that never got it.
        resumed_bytes: Fetched once, though a connection broke behind them.
        fetched_bytes: Of the half that flapped; ``needed_bytes`` what it asked for.
    """

    stuck: int
    took_s: float
    cuts: int
    refused: int
    resumed_bytes: int
    fetched_bytes: int
    needed_bytes: int


@dataclass(frozen=True, slots=True)
class WaveSeen:
    """One wave of a rollout.

    Attributes:
        boards: Its size, those of the waves before included.
        took_s: Until 99 % of them ran the version; None where they did not.
        outside: Boards that fetched or tried it and should not have.
        cpu_s: Of the server.
    """

    percent: float
    boards: int
    took_s: float | None
    outside: int
    traffic: Traffic
    cpu_s: float
    bundle_bytes: int


async def steady(world: World) -> Steady:
    """Let nothing happen for an hour."""
    began_s, cpu_s = world.clock.at_s(), world.server.cpu_s()
    await world.pass_time(STEADY_S)
    traffic = world.traffic(began_s, world.clock.at_s())
    return Steady(traffic, world.server.cpu_s() - cpu_s)


async def day(world: World) -> Traffic:
    """Let a whole day pass, in which the owner signs the timestamp every six hours."""
    began_s = world.clock.at_s()
    for _ in range(4):
        await world.pass_time(6 * 3600.0)
        world.sign()
    return world.traffic(began_s, world.clock.at_s())


async def news(world: World, what: What) -> News:
    """Sign something, then once more during an outage of one period."""

    def sign() -> None:
        if what == "version":
            world.publish(world.next_version())
        else:
            world.sign()

    sign()
    began_s = world.clock.at_s()
    await world.pass_time(AFTER * world.poll_s)
    calm = world.traffic(began_s, world.clock.at_s())
    return News(what, calm, await outage(world, 1.0, sign))


def nothing() -> None:
    """Sign nothing."""


async def outage(
    world: World, periods: float, meanwhile: Callable[[], None] = nothing
) -> Outage:
    """End the server, wait, start it again, and look how the boards come back."""
    watched_s = AFTER * world.poll_s
    began_s = world.clock.at_s()
    await world.pass_time(watched_s)
    gone_s = world.clock.at_s()
    for relay in (world.smooth, world.bumpy):
        await relay.shut()
    world.server.stop()
    await world.pass_time(periods * world.poll_s)
    meanwhile()
    world.server.start()
    for relay in (world.smooth, world.bumpy):
        await relay.open(world.server.port)
    back_s = world.clock.at_s()
    back = world.clock()
    took_s = await world.until(lambda it: it.last_look >= back, 1.0, watched_s)
    await world.pass_time(back_s + watched_s - world.clock.at_s())
    ended_s = world.clock.at_s()
    return Outage(
        away_s=back_s - gone_s,
        before=world.traffic(began_s, gone_s),
        after=world.traffic(back_s, ended_s),
        whole=world.traffic(began_s, ended_s),
        all_current_s=took_s,
    )


async def flapping(world: World) -> Flapping:
    """Publish a version while connections of every second board break all the time."""
    version = world.next_version()
    half = world.boards[1::2]
    bytes_before = [dict(it.poller.snapshot().bytes) for it in half]
    cuts, refused = world.ledger.cuts, len(world.ledger.refused)
    world.bumpy.weather = FLAPPING
    world.publish(version)
    began_s = world.clock.at_s()
    patience_s = PATIENCE * world.poll_s
    took_s = await world.until(lambda it: it.version == version, 1.0, patience_s)
    world.bumpy.weather = Weather()
    grown = {
        kind: sum(
            it.poller.snapshot().bytes[kind] - before[kind]
            for it, before in zip(half, bytes_before, strict=True)
        )
        for kind in ("full", "resumed")
    }
    seen = Flapping(
        stuck=sum(it.version != version for it in world.boards),
        took_s=took_s or world.clock.at_s() - began_s,
        cuts=world.ledger.cuts - cuts,
        refused=len(world.ledger.refused) - refused,
        resumed_bytes=grown["resumed"],
        fetched_bytes=grown["full"],
        needed_bytes=len(half) * world.bundle_bytes,
    )
    await world.pass_time(world.poll_s)
    return seen


async def waves(world: World) -> list[WaveSeen]:
    """Roll a version out by raising ``percent`` in the group file."""
    version = world.next_version()
    return [await _wave(world, version, percent) for percent in WAVES]


async def _wave(world: World, version: int, percent: float) -> WaveSeen:
    """Raise the share of boards that take part, and wait for them."""
    began_s, cpu_s = world.clock.at_s(), world.server.cpu_s()
    fetched = {it.id: it.fetched_bytes for it in world.boards}
    file = world.publish(version, percent)
    inside = {it.id for it in world.boards if takes_part(file, it.id)}
    # 99 % of those that take part: the others count as arrived.
    late = 0.01 * len(inside) / len(world.boards)
    took_s = await world.until(
        lambda it: it.id not in inside or it.version == version,
        1.0 - late,
        PATIENCE * world.poll_s,
    )
    # Until the last has looked: what comes later belongs to the next wave.
    left_s = began_s + 2 * world.poll_s - world.clock.at_s()
    await world.pass_time(max(left_s, 0.0))
    return WaveSeen(
        percent=percent,
        boards=len(inside),
        took_s=took_s,
        outside=sum(
            it.touched(version, fetched[it.id])
            for it in world.boards
            if it.id not in inside
        ),
        traffic=world.traffic(began_s, world.clock.at_s()),
        cpu_s=world.server.cpu_s() - cpu_s,
        bundle_bytes=world.bundle_bytes,
    )
