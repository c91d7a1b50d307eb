"""Probation with real workers: who fails is found out while it answers."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from agent.core.manifest import Budgets, TrialRules
from agent.core.messages import Watched
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.watching import Alarm, Monitored, Scope
from agent.errors import AgentError, DeviceError, TrialFailedError
from agent.settings import MonitorSettings
from agent.supervise.placing import Placed
from agent.supervise.trials import PipelineTrials
from agent.supervise.watching import Monitoring
from tests.fakes.candidates import candidate, failing
from tests.fakes.digits import ENDLESS, STREAM, Bench, in_loop, placed, running, until

BRIEF = TrialRules(probation_s=0.3, probation_samples=100)
LONG = TrialRules(probation_s=600.0)
# The worker watches nothing: what its monitor says is the test's to say.
SCRIPTED = Monitoring(MonitorSettings(cpu_share=0.0))


class Trial:
    """One candidate that answers in a pipeline."""

    def __init__(self, bench: Bench, it: Placed, board: BoardReadings) -> None:
        self.bench = bench
        self.it = it
        self.trials = PipelineTrials({"digits": bench.pipeline}, (), lambda: board)

    async def begin(self) -> None:
        """Let the candidate answer."""
        await self.trials.swap_in("digits", self.it.bundle, self.it.installed)

    async def watch(self) -> None:
        """Watch it."""
        await self.trials.watch("digits", self.it.bundle, self.it.installed)

    async def reason(self) -> str:
        """Return who is to blame for the end of the probation, and for what."""
        with pytest.raises(AgentError) as err:
            await self.watch()
        return f"{type(err.value).__name__} {err.value.reason}"

    def say(self, samples: int, *alarms: Scope) -> None:
        """Report as the monitor of what answers: beside its shipped profile."""
        pipeline = self.bench.pipeline
        raised = [Alarm("shipped", scope, active=True, raised=1) for scope in alarms]
        said = Monitored(samples=samples, alarms=tuple(raised))
        pipeline._watching.take(Watched(pipeline._placing.generation, said))

    async def back(self) -> None:
        """Roll back; the active model answers again."""
        await self.trials.swap_back("digits")
        await until(lambda: self.bench.now.state == "active", "the active model")
        await self.bench.answers(1)


@asynccontextmanager
async def on_trial(
    it: Placed, board: BoardReadings | None = None
) -> AsyncIterator[Trial]:
    """Run the demo's first model, and let a candidate answer in its place."""
    async with running(placed(1)) as bench:
        await bench.ready()
        await bench.answers(1, 200)
        trial = Trial(bench, it, board or BoardReadings())
        await trial.begin()
        yield trial


@in_loop
async def test_who_answers_well_passes() -> None:
    """After its time and its samples, and not before; the verdict names both."""
    async with on_trial(candidate(BRIEF)) as trial:
        began = asyncio.get_running_loop().time()
        await trial.watch()
        assert asyncio.get_running_loop().time() - began >= BRIEF.probation_s
        assert trial.bench.ok(3) >= BRIEF.probation_samples
        assert trial.trials.seen == {}
        await trial.trials.commit("digits", trial.it.installed)
        assert trial.bench.now.state == "active"
        assert trial.bench.now.active == trial.it.installed


@in_loop
async def test_38_who_fails_samples_is_rolled_back() -> None:
    """Most samples fail where they did not before: `failures`, before its time."""
    async with on_trial(failing(LONG)) as trial:
        assert await trial.reason() == "TrialFailedError failures"
        await trial.back()


@pytest.mark.parametrize(
    ("budgets", "rules", "board", "passes"),
    [
        (Budgets(p95_ms=1e-6), BRIEF, BoardReadings(), False),
        (None, replace(BRIEF, max_slowdown=1e-6), BoardReadings(), False),
        (None, replace(BRIEF, max_slowdown=1e6), BoardReadings(), True),
        (None, BRIEF, BoardReadings(throttled=(("hot", True),)), True),
    ],
)
def test_38_who_is_slow_is_rolled_back(
    budgets: Budgets | None, rules: TrialRules, board: BoardReadings, *, passes: bool
) -> None:
    """Slow in itself or beside the model before; who is fast on a hot board passes."""

    @in_loop
    async def case() -> None:
        async with on_trial(candidate(rules, budgets=budgets), board) as trial:
            if passes:
                await trial.watch()
            else:
                assert await trial.reason() == "TrialFailedError latency"
            await trial.back()

    case()


@pytest.mark.parametrize(
    ("before", "now", "fails"),
    [
        ((), ("output",), True),
        ((), ("input", "all", "prediction", "stuck"), False),
        (("output",), ("output",), False),
        (("input",), ("input", "output"), True),
        ((), ("input", "output"), False),
    ],
)
def test_whose_output_drifts_is_rolled_back(
    before: tuple[Scope, ...], now: tuple[Scope, ...], *, fails: bool
) -> None:
    """`drift`, unless it was so before it came, or the input moved since."""

    @in_loop
    async def case() -> None:
        async with running(placed(1), monitoring=SCRIPTED) as bench:
            await bench.ready()
            trial = Trial(bench, candidate(BRIEF), BoardReadings())
            trial.say(10**6, *before)
            await trial.begin()
            trial.say(10**6, *now)
            if fails:
                assert await trial.reason() == "TrialFailedError drift"
            else:
                await trial.watch()
            await trial.back()

    case()


@in_loop
async def test_an_alarm_of_an_earlier_trial_fails_nobody() -> None:
    """The same candidate again, once it was forgiven, is judged by what it does now."""
    async with running(placed(1), monitoring=SCRIPTED) as bench:
        await bench.ready()
        trial = Trial(bench, candidate(BRIEF), BoardReadings())
        await trial.begin()
        trial.say(10**6, "output")
        assert await trial.reason() == "TrialFailedError drift"
        await trial.back()
        await trial.begin()
        await trial.watch()
        await trial.back()


@pytest.mark.parametrize(
    ("end", "reason"), [(signal.SIGKILL, "crash"), (signal.SIGSEGV, "crash")]
)
def test_69_a_worker_that_dies_ends_it(end: signal.Signals, reason: str) -> None:
    """At once, however long it should have taken; the active model answers again."""

    @in_loop
    async def case() -> None:
        async with on_trial(candidate(LONG)) as trial:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(trial.reason())
                await trial.bench.answers(3, 100)
                os.kill(trial.bench.now.worker_pid, end)
            assert watching.result() == f"TrialFailedError {reason}"
            await trial.back()
            assert trial.bench.fallen == []

    case()


@in_loop
async def test_69_a_worker_that_died_before_anyone_watched() -> None:
    """Between the swap and the first look, too."""
    async with on_trial(candidate(LONG)) as trial:
        os.kill(trial.bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: trial.bench.now.restarts == {"crash": 1}, "the death")
        assert await trial.reason() == "TrialFailedError crash"
        await trial.back()


@in_loop
async def test_a_hang_is_named() -> None:
    """A worker that stands still is killed by its own watch: `hang`."""
    async with running(placed(1), deadline_ms=300.0) as bench:
        await bench.ready()
        trial = Trial(bench, candidate(LONG), BoardReadings())
        await trial.begin()
        await bench.answers(3)
        os.kill(bench.now.worker_pid, signal.SIGSTOP)
        assert await trial.reason() == "TrialFailedError hang"
        await trial.back()


@in_loop
async def test_earlier_deaths_are_no_fault_of_the_candidate() -> None:
    """Only what happened since it answers is judged."""
    async with running(placed(1)) as bench:
        await bench.ready()
        os.kill(bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: not bench.now.ready, "the death")
        trial = Trial(bench, candidate(BRIEF), BoardReadings())
        await trial.begin()
        await trial.watch()
        assert bench.now.restarts == {"crash": 1}


@in_loop
async def test_a_second_trial_is_judged_by_itself() -> None:
    """What the same version counted in an earlier trial is taken away."""
    async with on_trial(candidate(BRIEF)) as trial:
        await trial.watch()
        await trial.back()
        answered = trial.bench.ok(3)
        await trial.begin()
        await trial.watch()
        assert trial.bench.ok(3) >= answered + BRIEF.probation_samples


@in_loop
async def test_a_silent_source_is_nobodys_fault() -> None:
    """Too few answers after all its time: no verdict, said with a reason."""
    rules = TrialRules(probation_s=0.1, probation_samples=1000, wait_s=0.3)
    async with running(placed(1), source=STREAM) as bench:
        await until(lambda: bench.now.seq > 600, "the end of the recording")
        trial = Trial(bench, candidate(rules), BoardReadings())
        await trial.begin()
        assert await trial.reason() == "DeviceError source_silent"
    slow = replace(ENDLESS, rate=100.0)
    async with running(placed(1), source=slow) as bench:
        await bench.ready()
        trial = Trial(bench, candidate(rules), BoardReadings())
        await trial.begin()
        await trial.watch()
        assert 10 <= bench.ok(3) < 1000


@pytest.mark.parametrize("other", [lambda: placed(1), lambda: placed(2), lambda: None])
def test_another_model_ends_it(other: Callable[[], Placed | None]) -> None:
    """What the store says now runs; nobody is to blame."""

    @in_loop
    async def case() -> None:
        async with on_trial(candidate(LONG)) as trial:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(trial.reason())
                await trial.bench.answers(3)
                trial.bench.pipeline.give(other(), Reason.REVOKED)
            assert watching.result() == "DeviceError superseded"
            await trial.trials.swap_back("digits")
            given = other()
            if given is not None:
                version = given.installed.version
                await trial.bench.answers(version)
                now = trial.bench
                await until(lambda: now.now.state == "active", "the swap's end")

    case()


@in_loop
async def test_cancellation_leaves_the_candidate_to_swap_back() -> None:
    """Nothing of the watch goes on; the rollback works as ever."""
    async with on_trial(candidate(LONG)) as trial:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(trial.watch())
            await trial.bench.answers(3)
            task.cancel()
        assert task.cancelled()
        assert trial.trials.seen == {}
        await trial.back()
        assert trial.bench.now.swaps == {("ok", ""): 1, ("rolled_back", ""): 1}


@in_loop
async def test_without_rules_there_is_no_probation() -> None:
    """It passes at once; what was never swapped in cannot be watched."""
    async with on_trial(candidate(TrialRules())) as trial:
        await trial.watch()
        other = candidate(LONG, version=5)
        with pytest.raises(TrialFailedError) as err:
            await trial.trials.watch("digits", other.bundle, other.installed)
        assert err.value.reason == "internal"
        assert not isinstance(err.value, DeviceError)
