"""One contract, two kinds of trials: real pipelines, and the script of the tests.

A script that lets pass what real trials refuse would make every test of the update
machine worthless; here it would fail.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.core.manifest import TrialRules
from agent.errors import AgentError, TrialFailedError
from agent.supervise.placing import Placed
from agent.supervise.trials import PipelineTrials
from agent.update.needs import Trials
from tests.fakes.candidates import candidate, permuted
from tests.fakes.digits import in_loop, placed, running
from tests.fakes.scripted_trials import ScriptedTrials

SHADOW = TrialRules(shadow_samples=50, min_agreement=1.0)
BRIEF = TrialRules(probation_s=0.1, probation_samples=10)
ENDLESS_RULES = TrialRules(
    shadow_samples=1_000_000, probation_s=600.0, probation_samples=1_000_000
)
KINDS = ["real", "script"]


@asynccontextmanager
async def given(kind: str) -> AsyncIterator[Trials]:
    """Give trials on a pipeline ``digits`` whose active model answers."""
    if kind == "script":
        yield ScriptedTrials()
        return
    async with running(placed(1)) as bench:
        await bench.ready()
        yield PipelineTrials({"digits": bench.pipeline}, ())


async def way_up(trials: Trials, it: Placed) -> None:
    """Do what the update machine does until a candidate is committed."""
    await trials.shadow("digits", it.bundle, it.installed)
    await trials.swap_in("digits", it.bundle, it.installed)
    await trials.watch("digits", it.bundle, it.installed)
    await trials.commit("digits", it.installed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_candidate_goes_all_the_way(kind: str) -> None:
    """Each step returns None, in the order of the machine, one trial after another."""

    @in_loop
    async def case() -> None:
        async with given(kind) as trials:
            chosen = await trials.examine("digits", candidate(SHADOW).bundle)
            assert chosen.variant in ("int8", "float")
            await way_up(trials, candidate(SHADOW, version=3))
            await way_up(trials, candidate(BRIEF, version=5))

    case()


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_shadow_leaves_the_next_trial_as_it_was(kind: str) -> None:
    """The error has a reason; nothing has to be swapped back."""

    @in_loop
    async def case() -> None:
        async with given(kind) as trials:
            if isinstance(trials, ScriptedTrials):
                error = TrialFailedError("it differs", reason="agreement")
                trials.errors["shadow"] = error
            bad = permuted(SHADOW)
            with pytest.raises(AgentError) as err:
                await trials.shadow("digits", bad.bundle, bad.installed)
            assert err.value.reason == "agreement"
            await way_up(trials, candidate(SHADOW))

    case()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["shadow", "watch"])
def test_cancelling_a_step_lets_another_trial_begin(kind: str, step: str) -> None:
    """Shadow and watch may last; whoever cancels them swaps back and goes on."""

    @in_loop
    async def case() -> None:
        async with given(kind) as trials:
            if isinstance(trials, ScriptedTrials):
                trials.pauses[step] = asyncio.Event().wait
            it = candidate(ENDLESS_RULES)
            if step == "watch":
                await trials.swap_in("digits", it.bundle, it.installed)
            lasting = getattr(trials, step)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(lasting("digits", it.bundle, it.installed))
                await asyncio.sleep(0.05)
                assert not task.done()
                task.cancel()
            assert task.cancelled()
            await trials.swap_back("digits")
            if isinstance(trials, ScriptedTrials):
                trials.pauses.clear()
            await way_up(trials, candidate(BRIEF))

    case()


@pytest.mark.parametrize("kind", KINDS)
def test_swapping_back_is_always_possible(kind: str) -> None:
    """Without a candidate, after one, and twice."""

    @in_loop
    async def case() -> None:
        async with given(kind) as trials:
            await trials.swap_back("digits")
            it = candidate(TrialRules())
            await trials.swap_in("digits", it.bundle, it.installed)
            await trials.swap_back("digits")
            await trials.swap_back("digits")
            await trials.commit("digits", it.installed)  # of no trial: of no effect

    case()
