"""Waves: who is told next, when a wave is over, and what is never done."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.gates import COUNTED
from agent.core.inventory import GateTable
from agent.core.reasons import Reason
from agent.core.waves import (
    ENDED,
    Act,
    BoardCourse,
    Course,
    Decision,
    Phase,
    Plan,
    Standing,
    Wave,
    begin,
    carry_out,
    decide,
    readings,
    resume,
    untell,
    wake,
)
from agent.core.waves_course import Before, Health, is_settled
from agent.core.waves_seen import JUDGED, unseen

START = 1_795_000_000.0
GATE = GateTable(soak_s=10.0, deadline_s=1000.0)
FATES = ("commits", "fails", "hangs", "leaves", "slows", "was there", "loses its way")
STEP_S = 1.0


@dataclass
class World:
    """Boards with a fate each, and a rollout that finds out.

    Attributes:
        fates: What becomes of a board once it is told.
        told: Board -> how often.
    """

    plan: Plan
    fates: dict[str, str]
    course: Course = field(init=False)
    now: float = START
    told: dict[str, int] = field(default_factory=dict)
    chance: Random = field(default_factory=lambda: Random(1))  # noqa: S311 - no secret

    def __post_init__(self) -> None:
        self.course = begin(self.plan, self.now)

    def decisions(self, limit: int = 100_000) -> Iterator[Decision]:
        """Yield every decision until the rollout rests."""
        for _ in range(limit):
            decision = decide(self.plan, self.course, self.now)
            yield decision
            if decision.act is Act.REST:
                return
            self.course = carry_out(self.course, decision, self.now)
            if decision.act is Act.TELL:
                for name in decision.boards:
                    self.told[name] = self.told.get(name, 0) + 1
            if decision.act is Act.WAIT:
                self.now = max(self.now + STEP_S, min(decision.until, self.now + 60))
                self.live()
                self.look()
        raise AssertionError("it does not end")

    def live(self) -> None:
        """Let every board that was told do what it does."""
        news = {}
        for name, board in self.course.boards.items():
            if board.standing in {Standing.TOLD, Standing.UPDATING}:
                news[name] = self.next(name, board)
        self.course = self.course.with_boards(news)

    def look(self) -> None:
        """Look at some of the boards that are at an end, as a slow network lets us."""
        judged = [it for it in self.course.boards.items() if it[1].standing in JUDGED]
        self.course = self.course.with_boards(
            {
                name: replace(board, seen_at=self.now, lost_at=0.0)
                for name, board in judged
                if self.fates[name] != "leaves" and self.chance.random() < 0.5
            }
        )

    def next(self, name: str, board: BoardCourse) -> BoardCourse:
        """Return what becomes of a board."""
        board = replace(board, seen_at=self.now)
        health = Health(samples=99, latency_ratio=1.0)
        committed = replace(
            board, standing=Standing.COMMITTED, settled_at=self.now, health=health
        )
        slow = Health(samples=99, latency_ratio=9.0, p95_ms=18.0, allowed_ms=3.0)
        became = {
            "fails": replace(board, standing=Standing.FAILED, reason="golden"),
            "hangs": replace(board, standing=Standing.UPDATING),
            "leaves": replace(board, lost_at=board.lost_at or self.now),
            "slows": replace(committed, health=slow),
            "was there": replace(untell(board), standing=Standing.RUNS),
        }
        if self.fates[name] == "loses its way" and not board.lost_at:
            return replace(board, lost_at=self.now)
        return became.get(self.fates[name], replace(committed, lost_at=0.0))


def plan_of(*sizes: int, gate: GateTable = GATE, at_once: int = 2) -> Plan:
    """Return waves of some sizes, boards ``0.0``, ``0.1``, ``1.0``..."""
    waves = [
        Wave(f"{index}", tuple(f"{index}.{n}" for n in range(size)))
        for index, size in enumerate(sizes)
    ]
    return Plan(tuple(waves), gate, at_once, patience_s=5.0)


shares = st.sampled_from([0.0, 0.1, 0.34, 1.0])
gates = st.builds(
    GateTable,
    soak_s=st.sampled_from([0.5, 30.0]),
    deadline_s=st.sampled_from([20.0, 500.0]),
    failed_share=shares,
    unreachable_share=shares,
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a rollout and the fates of its boards."""
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    plan = plan_of(*sizes, gate=draw(gates), at_once=draw(st.integers(1, 4)))
    names = [name for wave in plan.waves for name in wave.boards]
    usual = st.sampled_from(FATES) if draw(st.booleans()) else st.just("commits")
    fates = {name: draw(usual) for name in names}
    return World(plan, fates, chance=draw(st.randoms(use_true_random=False)))


@given(worlds())
@settings(deadline=None)
def test_whatever_boards_do_the_rules_are_kept(world: World) -> None:
    """Not beyond the wave, past a gate, more at once, or twice; and it ends."""
    plan = world.plan
    for decision in world.decisions():
        reached = {n for w in plan.waves[: world.course.wave + 1] for n in w.boards}
        closed = [
            reading
            for wave in range(world.course.wave + 1)
            for reading in readings(plan, world.course, world.now, wave)
            if reading.closes
        ]
        if decision.act in {Act.TELL, Act.PASS, Act.DONE}:
            assert closed == []
        rows = [(name, world.course.boards[name]) for name in sorted(reached)]
        if decision.act in {Act.TELL, Act.PASS, Act.DONE}:
            since = world.course.awake_at
            if decision.act is not Act.TELL:
                ended = [
                    it.settled_at + plan.gate.soak_s
                    for it in map(
                        world.course.boards.__getitem__,
                        plan.waves[world.course.wave].boards,
                    )
                    if it.standing in ENDED
                ]
                since = max([since, *ended])
            assert unseen(rows, JUDGED, world.course.awake_at, world.now, 5.0) == ()
            assert unseen(rows, COUNTED, since, world.now, 5.0) == ()
        if decision.act is Act.TELL:
            assert set(decision.boards) <= reached
            assert {world.course.boards[n].standing for n in decision.boards} == {
                Standing.NEW
            }
            flying = [
                it
                for it in world.course.boards.values()
                if it.is_under_way(world.now, plan.patience_s)
            ]
            assert len(flying) + len(decision.boards) <= plan.at_once
        if decision.act is Act.PASS:
            wave = plan.waves[world.course.wave]
            assert all(
                is_settled(world.course.boards[n], world.now, plan.patience_s)
                for n in wave.boards
            )
        assert max(world.told.values(), default=0) <= 1
        untouched = set(world.course.boards) - reached
        assert all(world.course.boards[n] == BoardCourse() for n in untouched)
    assert world.course.phase in {Phase.DONE, Phase.PAUSED}


@given(worlds(), st.integers(0, 40))
@settings(deadline=None)
def test_a_laptop_that_dies_changes_no_decision(world: World, death: int) -> None:
    """What is read back from a file decides the same, at every moment."""
    for index, decision in enumerate(world.decisions()):
        if index == death:
            raw = msgspec.json.encode(world.course)
            world.course = msgspec.json.decode(raw, type=Course)
            assert decision == decide(world.plan, world.course, world.now)
        saved = msgspec.json.decode(msgspec.json.encode(world.course), type=Course)
        assert decision == decide(world.plan, saved, world.now)


@given(worlds(), st.lists(st.booleans(), max_size=3))
@settings(deadline=None)
def test_a_board_is_told_again_only_when_an_operator_says_so(
    world: World, retries: list[bool]
) -> None:
    """Once, and once more for each resumption that asks for it."""
    for retry in [False, *retries]:
        world.course = resume(world.course, world.now, retry=retry)
        list(world.decisions())
        assert world.course.retries <= sum(retries)
        assert max(world.told.values(), default=0) <= 1 + world.course.retries


def test_a_good_version_goes_through_all_waves() -> None:
    """Two at once, a soak after each wave, and done."""
    world = World(plan_of(1, 3), dict.fromkeys(("0.0", "1.0", "1.1", "1.2"), "commits"))
    made = [it for it in world.decisions() if it.act is not Act.WAIT]
    expected = [
        (Act.TELL, ("0.0",)),
        (Act.PASS, ()),
        (Act.TELL, ("1.0", "1.1")),
        (Act.TELL, ("1.2",)),
        (Act.DONE, ()),
        (Act.REST, ()),
    ]
    assert expected == [(it.act, it.boards) for it in made]
    assert world.now >= START + 2 * GATE.soak_s


def test_a_bad_version_stops_at_the_canary() -> None:
    """The gate names the wave, the share and the board; nobody else was told."""
    fates = {"0.0": "fails"} | {f"1.{n}": "commits" for n in range(5)}
    world = World(plan_of(1, 5), fates)
    last = [it for it in world.decisions() if it.act is Act.PAUSE]
    why = "wave 0: failed: 1 of 1 boards (100 %), at most 0 % allowed: 0.0 (golden)"
    assert [(Reason.GATE, why)] == [(it.reason, it.why) for it in last]
    assert world.told == {"0.0": 1}
    assert (world.course.phase, world.course.reason) == (Phase.PAUSED, "gate")


def test_a_wave_before_that_turns_bad_stops_the_next() -> None:
    """A canary that begins to drift is no canary any more."""
    world = World(plan_of(1, 2), {})
    course = replace(world.course, wave=1)
    drifting = BoardCourse(
        standing=Standing.COMMITTED,
        told=1,
        seen_at=START,
        health=Health(critical=True),
    )
    course = course.with_boards({"0.0": drifting})
    decision = decide(world.plan, course, START)
    assert (decision.act, decision.boards) == (Act.PAUSE, ("0.0",))


def test_somebody_elses_order_pauses_with_their_words() -> None:
    """Two operators: the second is named before any gate is."""
    world = World(plan_of(2), {})
    said = "somebody else ordered door = kws 9"
    other = BoardCourse(Standing.OVERRULED, detail=said, told=1, seen_at=START)
    course = world.course.with_boards({"0.0": other})
    decision = decide(world.plan, course, START)
    todo = "settle it with them; --retry orders it again, over theirs"
    expected = (Act.PAUSE, Reason.ROLLOUT, f"0.0: {said}; {todo}")
    assert expected == (decision.act, decision.reason, decision.why)


def test_who_does_not_answer_is_told_nothing() -> None:
    """It is waited for; with patience over, the gate counts it."""
    world = World(plan_of(2, at_once=4), dict.fromkeys(("0.0", "0.1"), "commits"))
    away = replace(world.course.boards["0.0"], lost_at=START)
    course = world.course.with_boards({"0.0": away})
    assert decide(world.plan, course, START).boards == ("0.1",)
    later = decide(world.plan, course, START + 5.0)
    assert (later.act, later.boards) == (Act.PAUSE, ("0.0",))


def test_a_wave_that_takes_too_long_pauses() -> None:
    """The deadline counts from the beginning of the wave, or from a resumption."""
    world = World(plan_of(1), {"0.0": "hangs"})
    decisions = list(world.decisions())
    assert decisions[-1].reason == Reason.DEADLINE
    assert world.now >= START + GATE.deadline_s
    world.course = resume(world.course, world.now)
    assert decide(world.plan, world.course, world.now).act is Act.WAIT


@pytest.mark.parametrize("clock", [START - 86_400, START + 1])
def test_a_clock_that_jumps_back_soaks_no_longer(clock: float) -> None:
    """The soak is as long as it was meant at most."""
    world = World(plan_of(1), {"0.0": "commits"})
    done = BoardCourse(Standing.COMMITTED, told=1, settled_at=START, seen_at=START)
    course = world.course.with_boards({"0.0": done})
    if clock < START:
        course = wake(course, clock - START, clock)
        course = course.with_boards(
            {"0.0": replace(course.boards["0.0"], seen_at=clock)}
        )
        later = decide(world.plan, course, clock + GATE.soak_s)
        assert (later.act, later.look) == (Act.WAIT, True)
    decision = decide(world.plan, course, clock)
    assert clock < decision.until <= clock + GATE.soak_s


def test_an_abort_ends_it_for_good() -> None:
    """Nothing is decided after it, and nobody is told."""
    world = World(plan_of(2), dict.fromkeys(("0.0", "0.1"), "commits"))
    asked = Decision(Act.ABORT, reason=Reason.REQUESTED, why="asked for")
    course = carry_out(world.course, asked, START)
    assert (course.phase, course.why) == (Phase.ABORTED, "asked for")
    assert decide(world.plan, course, START).act is Act.REST
    assert [row.act for row in course.log] == ["abort"]


def test_news_of_strangers_are_no_news() -> None:
    """A board that the rollout does not have is not taken up by hearsay."""
    course = begin(plan_of(1), START)
    assert course == course.with_boards({"other": BoardCourse(Standing.COMMITTED)})


@given(worlds(), st.integers(0, 40), st.floats(-1e5, -6.0) | st.floats(6.0, 1e5))
@settings(deadline=None)
def test_after_a_break_nobody_is_told_before_boards_were_seen(
    world: World, when: int, slept_s: float
) -> None:
    """A sleep, or a clock that was set: at most a look is waited for, and all ends."""
    for index, decision in enumerate(world.decisions()):
        if index == when and decision.act is Act.WAIT:
            world.now += slept_s
            world.course = wake(world.course, slept_s, world.now)
            reached = world.plan.waves[: world.course.wave + 1]
            judged = [
                name
                for wave in reached
                for name in wave.boards
                if world.course.boards[name].standing in JUDGED
            ]
            found = decide(world.plan, world.course, world.now + 0.001)
            if judged:
                assert (found.act, found.look) == (Act.WAIT, True)
                assert set(found.boards) <= set(judged)
            lost = world.course.boards.values()
            assert not any(it.is_lost(world.now, 5.0) for it in lost)
    assert world.course.phase in {Phase.DONE, Phase.PAUSED}


@given(worlds())
@settings(deadline=None)
def test_a_second_attempt_forgets_nothing_that_we_gave(world: World) -> None:
    """Whoever is told once more keeps how it was before, and what it was given."""
    list(world.decisions())
    given_once = {
        name: replace(
            board, generation=3, mark=7, before={"door": Before(runs="kws 7")}
        )
        for name, board in world.course.boards.items()
    }
    course = resume(world.course.with_boards(given_once), world.now, retry=True)
    assert {(3, 7, "kws 7")} >= {
        (it.generation, it.mark, it.before["door"].runs)
        for it in course.boards.values()
    }


def test_a_deadline_that_passed_asleep_pauses_nobody_unseen() -> None:
    """An hour with the lid closed: who was on trial is looked at first."""
    world = World(plan_of(1), {"0.0": "hangs"})
    flying = BoardCourse(Standing.UPDATING, told=1, seen_at=START)
    course = replace(world.course.with_boards({"0.0": flying}), awake_at=START + 2000)
    found = decide(world.plan, course, START + 2000)
    assert (found.act, found.boards, found.look) == (Act.WAIT, ("0.0",), True)


@pytest.mark.parametrize("sick", [{"health": Health(silent=True)}, {"down_at": START}])
def test_who_runs_it_and_does_not_answer_is_waited_for_and_then_bad(
    sick: dict[str, object],
) -> None:
    """No sample after the soak is no proof: the wave waits until its deadline."""
    plan = plan_of(1)
    board = BoardCourse(
        Standing.COMMITTED, told=1, settled_at=START, seen_at=START + 11
    )
    board = replace(board, **sick)
    course = begin(plan, START).with_boards({"0.0": board})
    early = decide(plan, course, START + 11)
    assert (early.act, early.boards, early.look) == (Act.WAIT, ("0.0",), False)
    late = decide(plan, course, START + GATE.deadline_s)
    assert (late.act, late.boards, late.reason) == (Act.PAUSE, ("0.0",), Reason.GATE)


def test_a_clock_set_back_loses_nobody() -> None:
    """Half a second back with a board out of reach: it still is on its way."""
    board = BoardCourse(Standing.TOLD, told=1, lost_at=START)
    assert board.is_under_way(START - 0.5, 5.0)
