"""Giving a pipeline another committed model, or none: revocation and fallbacks."""

import asyncio
import dataclasses
import os
import signal

from agent.core.reasons import Reason
from agent.supervise.placing import Placed
from tests.fakes.candidates import candidate
from tests.fakes.digits import (
    AlteredBundle,
    digits,
    in_loop,
    place,
    placed,
    running,
    until,
)


@in_loop
async def test_34_another_model_is_given() -> None:
    """It answers between two samples, in the same worker, and nothing is lost."""
    async with running(placed(1)) as bench:
        await bench.ready()
        pid = bench.now.worker_pid
        bench.pipeline.give(placed(2), Reason.REVOKED)
        await bench.answers(2, 100)
        await until(lambda: bench.now.state == "active", "the swap's end")
        assert (bench.now.active, bench.now.worker_pid) == (placed(2).installed, pid)
        assert bench.now.swaps == {("ok", "revoked"): 1}
        await bench.pipeline.stop()
        one, two = bench.outcomes(1), bench.outcomes(2)
        assert one["received"] == one["ok"]
        assert two["received"] == two["ok"]
        assert bench.now.seq - 1 == one["ok"] + two["ok"]


@in_loop
async def test_34_no_model_is_given() -> None:
    """The worker ends after its sample, the next one waits; the reason is told."""
    async with running(placed(1)) as bench:
        await bench.ready()
        pid = bench.now.worker_pid
        bench.pipeline.give(None, Reason.REVOKED)
        await until(lambda: bench.now.reason == Reason.REVOKED, "the reason")
        await until(lambda: bench.now.worker_pid not in (0, pid), "the next worker")
        assert (bench.now.ready, bench.now.state, bench.now.active) == (
            *(False, "none"),
            None,
        )
        counted = bench.outcomes(1)
        assert counted["received"] == counted["ok"]
        assert bench.now.restarts == {"requested": 1}
        assert bench.fallen == []
        await asyncio.sleep(0.1)  # time in which it would answer if it did
        assert bench.outcomes(1) == counted
        bench.pipeline.give(placed(2), Reason.NONE)
        await bench.answers(2)
        await bench.ready()
        assert bench.outcomes(1) == counted


@in_loop
async def test_what_runs_already_is_not_exchanged() -> None:
    """The same model, opened again, changes nothing."""
    async with running(placed(1)) as bench:
        await bench.ready()
        bench.pipeline.give(place(digits(1)), Reason.REVOKED)
        await bench.answers(1, 1000)
        assert bench.now.swaps == {}
        assert bench.now.state == "active"
        bench.pipeline.give(None, Reason.NO_MODEL)
        await until(lambda: bench.now.state == "none", "no model")


@in_loop
async def test_a_worker_that_is_down_starts_with_what_was_given() -> None:
    """Whether a model or none: nothing is remembered of the one before."""
    async with running(placed(1)) as bench:
        await bench.ready()
        os.kill(bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: not bench.now.ready, "the death")
        bench.pipeline.give(placed(2), Reason.CRASH_LOOP)
        await bench.answers(2)
        await until(lambda: bench.now.state == "active", "the swap's end")
        os.kill(bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: not bench.now.ready, "the death")
        bench.pipeline.give(None, Reason.REVOKED)
        await until(lambda: bench.now.worker_pid > 0, "a worker")
        await until(lambda: bench.now.reason == Reason.REVOKED, "the reason")


@in_loop
async def test_a_candidate_on_trial_gives_way() -> None:
    """What the store says runs, however well the candidate did."""
    async with running(placed(1)) as bench:
        await bench.ready()
        for given in (placed(1), placed(2)):
            await bench.pipeline.swap_in(candidate(version=3))
            bench.pipeline.give(given, Reason.REVOKED)
            await until(lambda: bench.now.state == "active", "what was given")
            assert bench.now.active == given.installed
        await bench.pipeline.swap_in(candidate(version=3))
        bench.pipeline.give(None, Reason.REVOKED)
        await until(lambda: bench.now.state == "none", "no model")


@in_loop
async def test_a_given_model_that_does_not_load_is_blamed() -> None:
    """Its workers die of it until it is set aside, like any committed model's."""
    async with running(placed(1)) as bench:
        await bench.ready()
        bench.successor = placed(2)
        good = candidate(version=3)
        assert isinstance(good.bundle, AlteredBundle)
        spoilt = dataclasses.replace(good.bundle, content=b"no model")
        bench.pipeline.give(Placed(spoilt, good.installed), Reason.CRASH_LOOP)
        await bench.answers(2)
        assert len(bench.fallen) == 1
