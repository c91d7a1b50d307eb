"""A bad version and its canary, by the planner of ``tinyward fleet rollout``.

The planner decides whom to tell; the owner tells them by raising ``percent`` in the
group file. Both draw boards in the same order, so that a share can be chosen that takes
in exactly those that were told.
"""

import hashlib
from dataclasses import dataclass

from agent.core import waves
from agent.core.inventory import BoardTable
from agent.core.schedule import HASH_RANGE
from benchmarks.fleet_board import FleetBoard
from benchmarks.fleet_world import World, salt

CANARY = "1%"
LOOK = 0.1  # poll periods between two looks at the boards, as an operator's terminal
WATCHED = 3.0  # poll periods that are watched after the rollout stopped


@dataclass(frozen=True, slots=True)
class Stopped:
    """What came of a bad version.

    Attributes:
        canary: Boards of the first wave.
        told: Those of them that were told before it stopped, and ``failed`` of these.
        next_wave: Boards of the next wave, and ``touched`` of them: they fetched or
            tried it.
        stopped_s: From the first board that was told to the stop; None for no stop.
        why: In the planner's words.
        healed: Of those that tried it, how many run the version before it again.
    """

    canary: int
    told: int
    failed: int
    next_wave: int
    touched: int
    stopped_s: float | None
    why: str
    healed: int


async def canary(world: World) -> Stopped:
    """Roll out a version that fails on every board, and see where it stops."""
    version, before = world.next_version(), world.boards[0].version
    world.bad.add(version)
    boards = {board.id: board for board in world.boards}
    # Nobody connects to these: in this fleet the owner reads the boards' reports.
    rows = [BoardTable(name, "127.0.0.1") for name in boards]
    drawn = waves.draw_waves(rows, (CANARY, "all"), salt(version))
    plan = waves.Plan(drawn, at_once=len(boards))
    fetched = {name: it.fetched_bytes for name, it in boards.items()}
    began_s = world.clock.at_s()
    course = await _roll_out(world, plan, version, boards)
    stopped_s = world.clock.at_s() - began_s
    await world.pass_time(WATCHED * world.poll_s)
    told = [name for name, it in course.boards.items() if it.told]
    touched = [it.id for it in world.boards if it.touched(version, fetched[it.id])]
    tried = [it for it in world.boards if version in it.trials.tried]
    return Stopped(
        canary=len(drawn[0].boards),
        told=len(told),
        failed=sum(_standing(boards[it], version) == "failed" for it in told),
        next_wave=len(drawn[1].boards),
        touched=sum(it in drawn[1].boards for it in touched),
        stopped_s=stopped_s if course.phase is waves.Phase.PAUSED else None,
        why=course.why,
        healed=sum(it.version == before for it in tried),
    )


async def _roll_out(
    world: World, plan: waves.Plan, version: int, boards: dict[str, FleetBoard]
) -> waves.Course:
    """Do what the planner says until it pauses, or is done."""
    course = waves.begin(plan, world.clock())
    while True:
        now = world.clock()
        course = course.with_boards(_reports(course, boards, version, now))
        decision = waves.decide(plan, course, now)
        course = waves.carry_out(course, decision, now)
        match decision.act:
            case waves.Act.TELL:
                told = [it for it in boards if course.boards[it].told]
                world.publish(version, share_of(told, list(boards), version))
            case waves.Act.WAIT:
                await world.pass_time(LOOK * world.poll_s)
            case waves.Act.PASS:
                pass
            case _:
                # The operator's gate closed: nothing more starts.
                world.publish(version, 0.0, paused=True)
                return course


def _reports(
    course: waves.Course, boards: dict[str, FleetBoard], version: int, now: float
) -> dict[str, waves.BoardCourse]:
    """Return what boards that were told say about themselves, where it is news."""
    news = {}
    for name, known in course.boards.items():
        standing = _standing(boards[name], version)
        if known.told and standing:
            same = known.standing == standing
            news[name] = waves.BoardCourse(
                standing=waves.Standing(standing),
                told=known.told,
                told_at=known.told_at,
                settled_at=(
                    0.0 if standing == "updating" else known.settled_at if same else now
                ),
                seen_at=now,
            )
    return news


def _standing(board: FleetBoard, version: int) -> str:
    """Return where a board is with a version, empty where it has not begun."""
    job = board.poller.intake.job
    if job is not None and job.version == version:
        return "updating"
    if board.version == version:
        return "committed"
    return "failed" if version in board.trials.tried else ""


def share_of(told: list[str], boards: list[str], version: int) -> float:
    """Return the ``percent`` that takes in those who were told, and nobody else."""
    last = max(_draw(name, version) for name in told)
    rest = [it for it in (_draw(name, version) for name in boards) if it > last]
    # Halfway to the next board: floats are exact enough between two of 64 bits.
    upper = min(rest, default=HASH_RANGE)
    return (last + upper) / 2 / HASH_RANGE * 100


def _draw(board: str, version: int) -> int:
    """Return what ``agent.core.schedule.takes_part`` draws for a board."""
    seed = salt(version).encode() + b"\0" + board.encode()
    return int.from_bytes(hashlib.sha256(seed).digest()[:8], "big")
