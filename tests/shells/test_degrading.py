"""The conductor: ladders of several pipelines, orders that fail, the log's lines."""

import asyncio
import logging
from dataclasses import dataclass, field, replace

import pytest

from agent.core.degradation import (
    DegradeSteps,
    LadderState,
    Level,
    Measure,
    SafeOutput,
)
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.settings import DegradeSettings
from agent.supervise.degrading import RETRY_S, Degrading
from tests.fakes.digits import in_loop, until
from tests.fakes.held_pipeline import HeldPipeline, with_steps

HALF, ONE, SMALL = Measure.HALF_RATE, Measure.ONE_THREAD, Measure.SMALL_VARIANT
STEPS = DegradeSteps(
    suspect=(HALF,),
    degraded=(ONE, SMALL),
    safe=(Measure.SAFE_OUTPUT,),
    safe_output=SafeOutput("stop", 0.5),
)
COOL, WARM, HOT = 60.0, 82.0, 90.0
LOGGER = "agent.supervise.degrading"


@dataclass
class Bench:
    """A conductor whose clock and board are the test's."""

    pipelines: dict[str, HeldPipeline]
    celsius: float = COOL
    now_s: float = 1000.0
    limits: DegradeSettings = field(
        default_factory=lambda: DegradeSettings(patience_s=20.0, calm_s=10.0)
    )

    def __post_init__(self) -> None:
        """Build the conductor."""
        self.it = Degrading(
            self.pipelines,
            lambda: BoardReadings(temperatures=(("soc", self.celsius),)),
            lambda: self.limits,
            clock=lambda: self.now_s,
            wall=lambda: 5e8 + self.now_s,
        )

    async def looks(self, count: int) -> None:
        """Look so often, a second apart, and carry out what that asks for."""
        for _ in range(count):
            for name in self.it.look():
                await self.it.carry_out(name)
            self.now_s += 1.0

    def state(self, name: str = "door") -> LadderState:
        """Return where a pipeline stands."""
        return self.it.states()[name]


def changes(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the transitions as the log tells them."""
    return [
        f"{line['pipeline']}: {line['from']} -> {line['to']}, {line['reason']}"
        f" ({line['detail']}): {line['measures']}"
        for line in (record.__dict__ for record in caplog.records)
        if line["msg"] == "degradation.changed"
    ]


@in_loop
async def test_a_hot_board_does_less_and_recovers() -> None:
    """Level by level: what was ordered, what is shown, and how often it came there."""
    door = HeldPipeline(steps=STEPS, lacks=(SMALL,))
    bench = Bench({"door": door})
    await bench.looks(5)
    assert (bench.state(), door.orders) == (LadderState(), [])
    bench.celsius = WARM
    await bench.looks(4)
    suspect = bench.state()
    assert (suspect.level, suspect.measures) == (Level.SUSPECT, (HALF,))
    assert (suspect.reasons, suspect.detail) == (("heat",), "soc 82 C, 80 C allowed")
    assert suspect.since == 5e8 + 1007.0
    bench.celsius = HOT
    await bench.looks(4)
    degraded = bench.state()
    assert (degraded.measures, degraded.lacking) == ((HALF, ONE), (SMALL,))
    await bench.looks(25)
    assert bench.state().level is Level.SAFE
    assert door.orders[-1] == (
        (HALF, ONE, SMALL, Measure.SAFE_OUTPUT),
        STEPS.safe_output,
    )
    bench.celsius = COOL
    await bench.looks(40)
    assert bench.state().level is Level.NORMAL
    assert bench.state().measures == bench.state().lacking == ()
    assert [measures for measures, _ in door.orders] == [
        (HALF,),
        (HALF, ONE, SMALL),
        (HALF, ONE, SMALL, Measure.SAFE_OUTPUT),
        (HALF, ONE, SMALL),
        (HALF,),
        (),
    ]
    assert bench.state().transitions == (
        (Level.SUSPECT, "heat", 1),
        (Level.DEGRADED, "heat", 1),
        (Level.SAFE, "heat", 1),
        (Level.DEGRADED, "calm", 1),
        (Level.SUSPECT, "calm", 1),
        (Level.NORMAL, "calm", 1),
    )


def test_each_transition_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """With its reason, both numbers, and what is done about it."""
    caplog.set_level(logging.INFO, LOGGER)

    @in_loop
    async def case() -> None:
        bench = Bench({"door": HeldPipeline(steps=STEPS, lacks=(SMALL,))})
        bench.celsius = HOT
        await bench.looks(10)
        bench.celsius = COOL
        await bench.looks(30)

    case()
    measures = "half_rate, one_thread, small_variant"
    assert changes(caplog) == [
        f"door: normal -> degraded, heat (soc 90 C, 85 C allowed): {measures}",
        "door: degraded -> suspect, calm (): half_rate",
        "door: suspect -> normal, calm (): ",
    ]
    levels = [it.levelname for it in caplog.records if it.msg == "degradation.changed"]
    assert levels == ["WARNING", "INFO", "INFO"]
    lacking = [it for it in caplog.records if it.msg == "degradation.lacking"]
    assert [it.__dict__["detail"] for it in lacking] == ["small_variant"]


@in_loop
async def test_without_settings_the_manifest_says() -> None:
    """That of the committed model; without one there is nothing to do less."""
    door = HeldPipeline(committed=with_steps(DegradeSteps(suspect=(ONE,))))
    bare, strict = HeldPipeline(), HeldPipeline(steps=DegradeSteps())
    strict.committed = door.committed
    bench = Bench({"door": door, "bare": bare, "strict": strict}, celsius=WARM)
    await bench.looks(4)
    assert {it.level for it in bench.it.states().values()} == {Level.SUSPECT}
    assert door.holding == (ONE,)
    assert (bare.orders, strict.orders) == ([], [])
    door.committed = with_steps(DegradeSteps(suspect=(HALF,)))
    await bench.looks(1)
    assert door.holding == (HALF,)


@in_loop
async def test_an_order_that_fails_is_given_again() -> None:
    """Not at every look; what is shown is what holds, not what was asked for."""
    door = HeldPipeline(steps=STEPS)
    door.error = DeviceError("no word from the worker", reason=Reason.HANG)
    bench = Bench({"door": door}, celsius=WARM)
    await bench.looks(5)
    assert (len(door.orders), bench.state().measures) == (1, ())
    door.error = None
    await bench.looks(int(RETRY_S))
    assert (len(door.orders), bench.state().measures) == (2, (HALF,))
    await bench.looks(20)
    assert len(door.orders) == 2


@in_loop
async def test_a_transition_does_not_wait_for_the_next_try() -> None:
    """What is worse now is told at once."""
    door = HeldPipeline(steps=STEPS)
    door.error = DeviceError("no word from the worker", reason=Reason.HANG)
    bench = Bench({"door": door}, celsius=WARM)
    await bench.looks(3)
    bench.celsius = HOT
    await bench.looks(3)
    assert [measures for measures, _ in door.orders] == [(HALF,), (HALF, ONE, SMALL)]


@in_loop
async def test_an_order_that_takes_long_keeps_nobody_from_looking() -> None:
    """The ladder goes on; one order at a time; then the newest one is given."""
    door = HeldPipeline(steps=STEPS, gate=asyncio.Event())
    bench = Bench({"door": door}, celsius=WARM)
    for _ in range(2):
        assert bench.it.look() == []
        bench.now_s += 1.0
    assert bench.it.look() == ["door"]
    bench.now_s += 1.0
    async with asyncio.TaskGroup() as group:
        under_way = group.create_task(bench.it.carry_out("door"))
        await until(lambda: bool(door.orders), "an order")
        bench.celsius = HOT
        await bench.looks(4)
        assert bench.state().level is Level.DEGRADED
        await bench.it.carry_out("door")
        assert (len(door.orders), under_way.done()) == (1, False)
        assert door.gate is not None
        door.gate.set()
    await bench.looks(1)
    assert door.holding == (HALF, ONE, SMALL)


@in_loop
async def test_what_a_pipeline_loses_is_shown() -> None:
    """A worker that died holds nothing; a variant that came late is shown as well."""
    door = HeldPipeline(steps=STEPS)
    bench = Bench({"door": door}, celsius=WARM)
    await bench.looks(4)
    door.holding = ()
    await bench.looks(1)
    assert (bench.state().measures, bench.state().lacking) == ((), (HALF,))
    door.holding = (HALF,)
    await bench.looks(1)
    assert (bench.state().measures, bench.state().lacking) == ((HALF,), ())


@in_loop
async def test_pipelines_come_and_go() -> None:
    """One that is gone is forgotten; a new one begins at the bottom."""
    door, hall = HeldPipeline(steps=STEPS), HeldPipeline(steps=STEPS)
    bench = Bench({"door": door}, celsius=WARM)
    await bench.looks(4)
    del bench.pipelines["door"]
    bench.pipelines["hall"] = hall
    await bench.looks(1)
    assert set(bench.it.states()) == {"hall"}
    assert bench.state("hall").level is Level.NORMAL
    assert bench.it.state("door") == LadderState()
    await bench.it.carry_out("door")
    await bench.looks(3)
    assert hall.holding == (HALF,)


@in_loop
async def test_a_pipeline_that_came_back_is_told_anew() -> None:
    """Taken away and added between two looks it is another one, of the same name."""
    first, second = HeldPipeline(steps=STEPS), HeldPipeline(steps=STEPS)
    bench = Bench({"door": first}, celsius=HOT)
    await bench.looks(6)
    assert first.holding == (HALF, ONE, SMALL)
    bench.pipelines["door"] = second
    await bench.it.carry_out("door")
    assert second.orders == []
    await bench.looks(1)
    assert bench.state().level is Level.NORMAL
    await bench.looks(4)
    assert bench.state().level is Level.DEGRADED
    assert second.holding == (HALF, ONE, SMALL)


@in_loop
async def test_settings_may_change() -> None:
    """A reload that allows more calms down, without a restart."""
    bench = Bench({"door": HeldPipeline(steps=STEPS)}, celsius=WARM)
    await bench.looks(4)
    bench.limits = DegradeSettings(hot_c=100.0, very_hot_c=110.0, calm_s=5.0)
    await bench.looks(8)
    assert bench.state().level is Level.NORMAL


@in_loop
async def test_a_candidate_that_dies_holds_nothing_back() -> None:
    """Its deaths are its probation's; those of the committed model count."""
    door = HeldPipeline(steps=STEPS)
    bench = Bench({"door": door})
    await bench.looks(2)
    for state, deaths in (("candidate", 0), ("none", 3), ("active", 3)):
        door.now = replace(door.now, state=state, restarts={"crash": deaths})
        await bench.looks(4)
    assert bench.state().level is Level.NORMAL
    door.now = replace(door.now, restarts={"crash": 5})
    await bench.looks(4)
    assert bench.state().reasons == ("crashes",)


@in_loop
async def test_it_runs_until_it_is_cancelled() -> None:
    """Orders are carried out beside the looks."""
    door = HeldPipeline(steps=STEPS)
    conductor = Degrading(
        {"door": door},
        lambda: BoardReadings(temperatures=(("soc", HOT),)),
        DegradeSettings,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(conductor.run())
        await until(lambda: bool(door.holding), "an order")
        assert conductor.state("door").level is Level.DEGRADED
        running.cancel()
