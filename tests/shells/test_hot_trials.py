"""Trials on a hot board: a good model is neither rolled back nor set aside for heat."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
from msgspec.structs import replace

from agent.core.degradation import LadderState, Level, Measure, SafeOutput
from agent.core.manifest import Budgets, TrialRules
from agent.core.readings import BoardReadings
from agent.errors import AgentError
from agent.supervise.placing import Placed
from agent.supervise.trials import PipelineTrials
from tests.fakes.candidates import candidate, permuted
from tests.fakes.digits import Bench, in_loop, placed, running, until

TOO_SLOW = Budgets(p95_ms=1e-6)
BRIEF = TrialRules(probation_s=0.3, probation_samples=100)
SLOWER = TrialRules(shadow_samples=100, max_slowdown=1e-6)
COOL = BoardReadings(cpu_frequency_hertz=1.5e9, cpu_frequency_max_hertz=1.5e9)
# A Pi shows the frequency that was asked for, whatever its firmware does.
HIDDEN = BoardReadings(
    cpu_frequency_hertz=1.5e9,
    cpu_frequency_max_hertz=1.5e9,
    throttled=(("throttled", True),),
)
BRAKED = BoardReadings(cooling=(("thermal-cpufreq-0", 0.5),))
HOT = BoardReadings(temperatures=(("soc", 86.0),))
HELD = LadderState(level=Level.SAFE, reasons=("heat",))


@dataclass
class Place:
    """A pipeline, its board and its ladder, for trials."""

    bench: Bench
    board: BoardReadings = COOL
    ladder: LadderState = field(default_factory=LadderState)

    def __post_init__(self) -> None:
        """Build the trials."""
        self.trials = PipelineTrials(
            {"digits": self.bench.pipeline},
            (),
            lambda: self.board,
            lambda _: self.ladder,
        )

    async def hold(self, *measures: Measure) -> None:
        """Hold the pipeline back, as its ladder does."""
        await self.bench.pipeline.shed(measures, SafeOutput())
        self.ladder = replace(HELD, measures=measures)

    async def examine(self, it: Placed) -> None:
        """Try a candidate in a child of its own."""
        await self.trials.examine("digits", it.bundle)

    async def shadow(self, it: Placed) -> None:
        """Let a candidate answer copies."""
        await self.trials.shadow("digits", it.bundle, it.installed)

    async def watch(self, it: Placed) -> None:
        """Let a candidate answer, and watch it."""
        await self.trials.swap_in("digits", it.bundle, it.installed)
        try:
            await self.trials.watch("digits", it.bundle, it.installed)
        finally:
            await self.trials.swap_back("digits")


async def end(place: Place, trial: str, it: Placed) -> str:
    """Return how a trial ends: who is to blame and for what, or nothing."""
    try:
        await getattr(place, trial)(it)
    except AgentError as err:
        return f"{type(err).__name__} {err.reason}"
    return ""


def story(
    trial: str,
    it: Placed,
    board: BoardReadings = COOL,
    measures: Sequence[Measure] = (),
) -> str:
    """Return how a trial ends on a board like that, held back like that."""
    ends: list[str] = []

    @in_loop
    async def case() -> None:
        async with running(placed(1)) as bench:
            await bench.ready()
            await bench.answers(1, 200)
            place = Place(bench, board)
            if measures:
                await place.hold(*measures)
            ends.append(await end(place, trial, it))

    case()
    return ends[0]


@pytest.mark.parametrize(
    ("board", "expected"),
    [
        (COOL, "TrialFailedError latency"),
        (HIDDEN, "DeviceError throttled"),
        (BRAKED, "DeviceError throttled"),
        (HOT, "DeviceError heat"),
    ],
)
def test_a_preflight_on_a_slow_board_is_postponed(
    board: BoardReadings, expected: str
) -> None:
    """Too slow on a board that is slowed down: later, and nothing is set aside."""
    assert story("examine", candidate(budgets=TOO_SLOW), board) == expected


@pytest.mark.parametrize("trial", ["shadow", "watch"])
@pytest.mark.parametrize(
    ("board", "expected"),
    [
        (COOL, "TrialFailedError latency"),
        (HIDDEN, "DeviceError throttled"),
        (BRAKED, "DeviceError throttled"),
        (HOT, "DeviceError heat"),
    ],
)
def test_a_slow_board_neither_fails_nor_passes_a_slow_candidate(
    trial: str, board: BoardReadings, expected: str
) -> None:
    """What was timed on a board that is slowed down all the time is no verdict."""
    rules = replace(BRIEF, shadow_samples=100, wait_s=0.2)
    assert story(trial, candidate(rules, budgets=TOO_SLOW), board) == expected


def test_other_faults_are_faults_on_a_hot_board_too() -> None:
    """Who says another word for every digit does so at any temperature."""
    assert story("shadow", permuted(), HOT) == "TrialFailedError agreement"


@pytest.mark.parametrize("measure", [Measure.ABSTAIN, Measure.SAFE_OUTPUT])
@pytest.mark.parametrize("trial", ["shadow", "watch"])
def test_who_is_kept_from_answering_is_tried_later(
    trial: str, measure: Measure
) -> None:
    """Neither passed without an answer of its own, nor failed for want of one."""
    rules = replace(BRIEF, probation_s=0.1, probation_samples=0, wait_s=0.2)
    it = candidate(replace(rules, shadow_samples=100))
    assert story(trial, it, HOT, [measure]) == "DeviceError heat"


@pytest.mark.parametrize("measure", [Measure.HALF_RATE, Measure.ONE_THREAD])
@pytest.mark.parametrize("trial", ["shadow", "watch"])
def test_who_answers_less_can_be_tried(trial: str, measure: Measure) -> None:
    """It takes longer, and that is all."""
    it = candidate(replace(BRIEF, shadow_samples=100))
    assert story(trial, it, COOL, [measure]) == ""


@pytest.mark.parametrize("it", [permuted, lambda: candidate(SLOWER)])
def test_beside_a_smaller_variant_nobody_has_to_agree(it: Callable[[], Placed]) -> None:
    """Or to be as fast: it is tried again when the active model answers itself."""
    assert story("shadow", it(), COOL, [Measure.SMALL_VARIANT]) == "DeviceError heat"


@pytest.mark.parametrize("measure", [Measure.HALF_RATE, Measure.ONE_THREAD])
def test_who_answers_less_is_judged_all_the_same(measure: Measure) -> None:
    """On a cool board who is slow is slow."""
    it = candidate(BRIEF, budgets=TOO_SLOW)
    assert story("watch", it, COOL, [measure]) == "TrialFailedError latency"


def has_dropped(bench: Bench, count: int) -> bool:
    """Return whether so many samples of the candidate ended without the model."""
    return bench.outcomes(3)["dropped"] >= count


@in_loop
async def test_samples_of_a_constant_answer_are_no_evidence() -> None:
    """The probation goes on with what the model answers itself, once it is let."""
    async with running(placed(1)) as bench:
        await bench.ready()
        place = Place(bench)
        rules = TrialRules(probation_s=0.2, probation_samples=50, wait_s=600.0)
        it = candidate(rules)
        await place.hold(Measure.SAFE_OUTPUT)
        await place.trials.swap_in("digits", it.bundle, it.installed)
        seen: list[int] = []

        async def let_go() -> None:
            for more in range(100, 600, 100):
                await until(partial(has_dropped, bench, more), "constant answers")
                seen.append(place.trials.seen.get("digits", (0, 0))[0])
            await bench.pipeline.shed((), SafeOutput())
            place.ladder = LadderState()

        async with asyncio.TaskGroup() as group:
            group.create_task(let_go())
            await place.trials.watch("digits", it.bundle, it.installed)
        assert seen == [0] * 5
        await place.trials.swap_back("digits")


@pytest.mark.parametrize("trial", ["shadow", "watch"])
def test_who_is_fast_on_a_slow_board_passes(trial: str) -> None:
    """A board that is always hot takes its updates."""
    it = candidate(replace(BRIEF, shadow_samples=100))
    assert story(trial, it, HIDDEN) == ""


@pytest.mark.parametrize("trial", ["shadow", "watch"])
def test_one_dip_of_the_voltage_excuses_nobody(trial: str) -> None:
    """The rest of the time is judged as on any board."""

    @in_loop
    async def case() -> None:
        async with running(placed(1)) as bench:
            await bench.ready()
            readings = iter([COOL, HIDDEN])
            trials = PipelineTrials(
                {"digits": bench.pipeline}, (), lambda: next(readings, COOL)
            )
            place = Place(bench)
            place.trials = trials
            rules = replace(BRIEF, shadow_samples=100, wait_s=30.0)
            it = candidate(rules, budgets=TOO_SLOW)
            assert await end(place, trial, it) == "TrialFailedError latency"

    case()


@in_loop
async def test_no_excuse_is_for_ever() -> None:
    """The third trial on a board that is always slowed down has the last word."""
    async with running(placed(1)) as bench:
        await bench.ready()
        place = Place(bench, HIDDEN)
        it = candidate(replace(BRIEF, wait_s=0.1), budgets=TOO_SLOW)
        ends = [await end(place, "watch", it) for _ in range(3)]
        assert ends == ["DeviceError throttled"] * 2 + ["TrialFailedError latency"]
