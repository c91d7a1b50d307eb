"""Holding a real worker back: less is answered, or something cheaper answers."""

import asyncio
import dataclasses
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.degradation import Measure, SafeOutput
from agent.core.flow import FileSink
from agent.core.installed import PassedOver
from agent.core.manifest import StateLink
from agent.core.messages import Commission, Inspect, Shed, Watch
from agent.core.reasons import Reason
from agent.core.shadow_ring import RING_BYTES
from agent.errors import TrialFailedError
from agent.supervise.deaths import Deaths
from agent.supervise.memfd import shared_memory
from agent.supervise.placing import Placed, Placing
from agent.supervise.restraint import DEATHS, DEATHS_S, PUT_OFF_S, Restraint
from agent.supervise.tenancy import Tenancy
from agent.supervise.totals import Totals
from agent.supervise.watching import Monitoring, Watching
from agent.supervise.worker_process import WorkerProcess
from tests.fakes.candidates import candidate
from tests.fakes.digits import BRISK, Bench, in_loop, placed, running, until
from tests.fakes.two_variants import (
    LARGE,
    SMALL,
    calmer,
    cheaper,
    on,
    place_large,
    spoil,
)

SAFE = SafeOutput("stop", -1.0)
NOTHING: tuple[Measure, ...] = ()
BOTH = (calmer(), cheaper())
HALF, ONE, LITTLE, ABSTAIN, CONSTANT = Measure


def runs(bench: Bench) -> str:
    """Return the variant and threads that run, where they are not the chosen ones."""
    words = bench.now.runs.split()
    return f"{words[0]} {words[-1]}" if words else ""


async def ended(bench: Bench, reason: Reason, more: int = 20) -> None:
    """Wait until more samples have ended without an answer."""
    wanted = bench.reasons(1).get(reason, 0) + more
    await until(lambda: bench.reasons(1).get(reason, 0) >= wanted, reason)


def is_whole(bench: Bench) -> bool:
    """Whether each sample that was received ended, and none of them failed."""
    counted = bench.outcomes(1)
    ends = counted["ok"] + counted["dropped"]
    return counted["received"] == ends and not counted["failed"]


@in_loop
async def test_one_of_two_is_answered_and_then_all_again(tmp_path: Path) -> None:
    """Every second sample ends as shed while it holds; nothing is lost by it."""
    path = tmp_path / "lines"
    async with running(placed(1), sinks=[FileSink(str(path))]) as bench:
        await bench.ready()
        assert await bench.pipeline.shed((HALF,), SAFE) == (HALF,)
        await ended(bench, Reason.SHED, 1000)
        assert bench.now.ready
        assert await bench.pipeline.shed(NOTHING, SAFE) == NOTHING
        stays = -1
        while stays != bench.reasons(1)[Reason.SHED]:
            stays = bench.reasons(1)[Reason.SHED]
            await bench.answers(1, 500)
        await bench.pipeline.stop()
        assert is_whole(bench)
        shed = bench.reasons(1)[Reason.SHED]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [after["seq"] - line["seq"] for line, after in pairwise(lines)]
    first = steps.index(2)
    assert steps == [1] * first + [2] * shed + [1] * (len(steps) - first - shed)


@in_loop
async def test_who_abstains_is_not_ready_and_who_says_a_constant_is() -> None:
    """Neither asks the model; and a worker that hangs would still be seen."""
    async with running(placed(1), deadline_ms=2000.0) as bench:
        await bench.ready()
        assert await bench.pipeline.shed((ABSTAIN,), SAFE) == (ABSTAIN,)
        await ended(bench, Reason.ABSTAINED)
        assert (bench.now.ready, bench.now.reason) == (False, Reason.ABSTAINED)
        answered, pid = bench.ok(1), bench.now.worker_pid
        assert await bench.pipeline.shed((HALF, CONSTANT), SAFE) == (HALF, CONSTANT)
        await until(lambda: bench.now.ready, "a constant")
        await ended(bench, Reason.SHED)
        await ended(bench, Reason.ABSTAINED)
        assert bench.ok(1) == answered
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: bench.now.restarts == {"hang": 1}, "the hang")
        await bench.ready()  # the next worker says the constant, too, from the start
        assert bench.now.worker_pid != pid
        await ended(bench, Reason.ABSTAINED)
        assert bench.ok(1) == answered
        await bench.pipeline.shed(NOTHING, SAFE)
        await bench.answers(1)
        await bench.ready()


@in_loop
async def test_a_constant_is_written_to_the_sinks(tmp_path: Path) -> None:
    """Lines say what was declared, marked; then the model's are written again."""
    path = tmp_path / "lines"
    async with running(placed(1), sinks=[FileSink(str(path))]) as bench:
        await bench.ready()
        await bench.pipeline.shed((CONSTANT,), SAFE)
        await ended(bench, Reason.ABSTAINED)
        await bench.pipeline.shed(NOTHING, SAFE)
        await bench.answers(1)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    said = [line for line in lines if line.get("safe")]
    assert {(line["label"], line["score"]) for line in said} == {("stop", -1.0)}
    assert {line["pipeline"] for line in lines} == {"digits"}
    assert 0 < len(said) < len(lines)


@in_loop
async def test_something_cheaper_stands_in_and_leaves_again() -> None:
    """Variant and threads are exchanged between two samples; nothing is committed."""
    large = place_large(1, BOTH)
    async with running(large) as bench:
        await bench.ready()
        pid = bench.now.worker_pid
        for measures, expected in (
            ((ONE,), f"{LARGE} 1"),
            ((LITTLE,), f"{SMALL} 1"),
            ((HALF, ONE, LITTLE), f"{SMALL} 1"),
            (NOTHING, ""),
        ):
            assert await bench.pipeline.shed(measures, SAFE) == measures
            assert runs(bench) == expected
            await bench.answers(1, 10)
            assert (bench.now.state, bench.now.ready) == ("active", True)
        assert bench.now.active == large.installed
        assert bench.pipeline.committed is large
        assert (bench.now.worker_pid, bench.now.swaps) == (pid, {})
        await bench.pipeline.stop()
        assert is_whole(bench)


@in_loop
async def test_what_cannot_be_had_is_left_out() -> None:
    """One variant, one examined executor: what runs goes on, and the rest is done."""
    async with running(place_large(1)) as bench:
        await bench.ready()
        asked = (HALF, ONE, LITTLE)
        assert await bench.pipeline.shed(asked, SAFE) == (HALF,)
        assert runs(bench) == ""
        await bench.answers(1)


@in_loop
async def test_a_stand_in_that_is_refused_is_lacking() -> None:
    """What runs goes on in the same worker, and nobody tries it again."""
    async with running(spoil(place_large(1, BOTH), SMALL)) as bench:
        await bench.ready()
        pid = bench.now.worker_pid
        assert await bench.pipeline.shed((LITTLE,), SAFE) == NOTHING
        await bench.answers(1)
        assert (runs(bench), bench.now.worker_pid) == ("", pid)
        assert await bench.pipeline.shed((LITTLE, ONE), SAFE) == (ONE,)
        assert (runs(bench), bench.now.restarts) == (f"{LARGE} 1", {})


@in_loop
async def test_a_choice_that_does_not_load_any_more_gives_way() -> None:
    """Another pair that passed runs at once: no crash loop, and no other model."""
    failed = PassedOver(SMALL, on(3), "golden", "off by 2")
    large = spoil(place_large(1, (failed, cheaper())), LARGE)
    async with running(large) as bench:
        await bench.ready()
        assert (runs(bench), bench.now.restarts) == (f"{SMALL} 1", {})
        assert (bench.now.state, bench.now.active) == ("active", large.installed)
        assert await bench.pipeline.shed((LITTLE,), SAFE) == (LITTLE,)
        assert await bench.pipeline.shed(NOTHING, SAFE) == NOTHING
        await bench.answers(1)
        assert (runs(bench), bench.fallen) == (f"{SMALL} 1", [])


@in_loop
async def test_where_nothing_of_it_loads_the_model_is_blamed() -> None:
    """Workers die of it until it is set aside, as of a model with one variant."""
    large = spoil(place_large(1, BOTH), LARGE, SMALL)
    async with running(large) as bench:
        bench.successor = placed(2)
        await bench.answers(2)
        assert [name for name, _ in bench.fallen] == ["digits"]


@in_loop
async def test_the_next_worker_begins_with_the_stand_in() -> None:
    """What holds the pipeline back holds for whatever worker there is."""
    async with running(place_large(1, BOTH)) as bench:
        await bench.ready()
        await bench.pipeline.shed((LITTLE, HALF), SAFE)
        os.kill(bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: sum(bench.now.restarts.values()) == 1, "the death")
        await until(lambda: runs(bench) == f"{SMALL} 1", "the stand-in")
        await ended(bench, Reason.SHED)
        await bench.ready()


@in_loop
async def test_a_stand_in_that_dies_gives_way_and_nobody_is_blamed() -> None:
    """The committed choice answers again; it was not it that died."""
    large = place_large(1, BOTH)
    async with running(large) as bench:
        await bench.ready()
        for _ in range(BRISK.crash_limit + 1):
            await bench.pipeline.shed((LITTLE,), SAFE)
            if not bench.now.runs:
                break
            os.kill(bench.now.worker_pid, signal.SIGSEGV)
            await until(lambda: not bench.now.ready, "the death")
            await bench.ready()
        assert await bench.pipeline.shed((LITTLE,), SAFE) == NOTHING
        assert (bench.now.restarts, bench.fallen) == ({"crash": DEATHS}, [])
        assert bench.now.stand_in_deaths == DEATHS
        assert bench.now.active == large.installed


@in_loop
async def test_a_commit_is_held_back_once_it_is_one() -> None:
    """A candidate answers as it is; committed, its own stand-in runs."""
    async with running(place_large(1, BOTH)) as bench:
        await bench.ready()
        await bench.pipeline.shed((LITTLE,), SAFE)
        following = place_large(3, BOTH)
        await bench.pipeline.swap_in(following)
        assert (bench.now.runs, bench.now.state) == ("", "candidate")
        assert await bench.pipeline.shed((LITTLE, HALF), SAFE) == (HALF,)
        bench.pipeline.commit(following)
        await until(lambda: runs(bench) == f"{SMALL} 1", "the measure")
        assert (bench.now.state, bench.now.active) == ("active", following.installed)
        assert bench.pipeline.holding == (HALF, LITTLE)
        await bench.answers(3)


@in_loop
async def test_a_candidate_that_fails_gives_way_to_the_stand_in() -> None:
    """What answered before the trial answers after it."""
    async with running(place_large(1, BOTH)) as bench:
        await bench.ready()
        await bench.pipeline.shed((LITTLE,), SAFE)
        await bench.pipeline.swap_in(candidate(version=3))
        await bench.answers(3)
        await bench.pipeline.swap_back()
        await until(lambda: runs(bench) == f"{SMALL} 1", "the measure")
        await bench.answers(1)
        assert bench.now.swaps == {("ok", ""): 1, ("rolled_back", ""): 1}


@in_loop
async def test_what_is_given_is_held_back_too() -> None:
    """A revocation during degradation, and a model without anything cheaper."""
    async with running(place_large(1, BOTH)) as bench:
        await bench.ready()
        await bench.pipeline.shed((LITTLE, HALF), SAFE)
        bench.pipeline.give(placed(2), Reason.REVOKED)
        await bench.answers(2)
        await until(lambda: bench.now.state == "active", "the swap's end")
        assert (runs(bench), bench.pipeline.holding) == ("", (HALF,))
        bench.pipeline.give(place_large(3, BOTH), Reason.CRASH_LOOP)
        await until(lambda: runs(bench) == f"{SMALL} 1", "the measure")
        bench.pipeline.give(None, Reason.REVOKED)
        await until(lambda: bench.now.state == "none", "no model")
        assert runs(bench) == ""


@in_loop
async def test_nothing_is_exchanged_while_a_shadow_compares() -> None:
    """The measure comes after it; what needs no other model holds at once."""
    async with running(place_large(1, BOTH)) as bench:
        await bench.ready()
        ring = shared_memory("ring", RING_BYTES)
        try:
            tapped = await bench.pipeline.tap(ring, 1)
            assert await bench.pipeline.shed((LITTLE, HALF), SAFE) == (HALF,)
            assert await bench.pipeline.tap(ring, 1, tapped) == tapped
            assert tapped is not None
            await bench.pipeline.untap(tapped)
            await until(lambda: runs(bench) == f"{SMALL} 1", "the measure")
        finally:
            os.close(ring)


@in_loop
async def test_orders_that_are_given_up_leave_nothing_behind() -> None:
    """Whoever waits for a measure may go away; the last one asked for holds."""
    async with running(place_large(1, BOTH)) as bench:
        await bench.ready()
        for measures in ((LITTLE,), NOTHING, (ONE,), (LITTLE, HALF), (ONE,)) * 3:
            asking = asyncio.ensure_future(bench.pipeline.shed(measures, SAFE))  # noqa: TID251 - given up on purpose
            await asyncio.sleep(0)
            asking.cancel()
        await until(lambda: runs(bench) == f"{LARGE} 1", "the last order")
        await bench.answers(1, 10)
        await bench.pipeline.stop()
        assert is_whole(bench)


@in_loop
async def test_without_a_worker_the_next_one_is_told() -> None:
    """An order to a pipeline that is down is no order that is lost."""
    async with running() as bench:
        assert await bench.pipeline.shed((ABSTAIN, LITTLE), SAFE) == (ABSTAIN,)
        await until(lambda: bench.now.worker_pid > 0, "a worker")
        bench.pipeline.give(place_large(1, BOTH), Reason.NONE)
        await ended(bench, Reason.ABSTAINED)
        await until(lambda: bench.pipeline.holding == (LITTLE, ABSTAIN), "the measures")
        assert (bench.ok(1), runs(bench)) == (0, f"{SMALL} 1")


def test_half_rate_cannot_be_had_with_state() -> None:
    """A model that carries state from sample to sample needs all of them."""
    restraint, large = Restraint(), place_large(1, BOTH)
    restraint.ask((HALF,), SAFE)
    assert restraint.holding(large, large) == [HALF]
    stated = replace(large.bundle.manifest, state=(StateLink("out", "in"),))
    bundle = dataclasses.replace(large.bundle, manifest=stated)  # type: ignore[type-var]  # a Bundle
    streaming = Placed(bundle, large.installed)
    assert restraint.holding(streaming, streaming) == []


def test_a_constant_wins_over_silence() -> None:
    """Levels add up: who declared a constant for the worst of them wants it said."""
    restraint = Restraint()
    for measures, expected in (
        ((), Shed()),
        ((HALF,), Shed(2)),
        ((ABSTAIN,), Shed(1, "abstain")),
        ((HALF, ABSTAIN, CONSTANT), Shed(2, "safe_output", SAFE)),
    ):
        restraint.ask(measures, SAFE)
        assert restraint.order == expected


def test_a_spoiled_stand_in_is_one_of_its_bundle_only() -> None:
    """The next version's variant may well work."""
    restraint = Restraint()
    restraint.ask((LITTLE,), SAFE)
    first, second = place_large(1, (cheaper(),)), place_large(3, (cheaper(),))
    found = restraint.stand_in(first)
    assert found is not None
    assert (found.installed.variant, found.stands_in) == (SMALL, True)
    assert found.installed.executor == on(1)
    restraint.spoil(found, Reason.DIGEST)
    assert restraint.stand_in(first) is None
    assert restraint.stand_in(second) is not None


def test_a_stand_in_may_die_once_in_ten_minutes() -> None:
    """However long each of its workers lived: twice within them is too often."""
    now_s = [0.0]
    restraint, large = Restraint(lambda: now_s[0]), place_large(1, (cheaper(),))
    restraint.ask((LITTLE,), SAFE)
    found = restraint.stand_in(large)
    assert found is not None
    for _ in range(3):
        restraint.blame(found)
        now_s[0] += DEATHS_S
        assert restraint.stand_in(large) == found
    restraint.blame(found)
    now_s[0] += DEATHS_S - 1.0
    restraint.blame(found)
    now_s[0] += 1e9
    assert restraint.stand_in(large) is None


@pytest.mark.parametrize("reason", [Reason.MEMORY, Reason.HANG, Reason.DELEGATE])
def test_what_the_board_lacked_is_tried_again(reason: Reason) -> None:
    """The choice, and a stand-in, come back after some minutes; bad bytes never."""
    now_s = [50.0]
    restraint, large = Restraint(lambda: now_s[0]), place_large(1, (cheaper(),))
    restraint.spoil(large, reason)
    instead = restraint.stand_in(large)
    assert instead is not None
    assert (instead.installed.variant, restraint.due_s()) == (SMALL, PUT_OFF_S)
    restraint.spoil(instead, Reason.CONTRACT)
    assert not restraint.has_other(large)
    now_s[0] += PUT_OFF_S
    assert (restraint.stand_in(large), restraint.due_s()) == (None, None)
    assert not restraint.has_other(large)
    restraint.spoil(large, Reason.DIGEST)
    restraint.spoil(large, reason)
    now_s[0] += 1e9
    assert restraint.due_s() is None
    restraint.ask((LITTLE,), SAFE)
    assert restraint.stand_in(large) is None


class Deaf(WorkerProcess):
    """A worker whose orders are not taken at times."""

    def __init__(self) -> None:
        self.gone = False
        self.takes = False
        self.told: list[object] = []

    async def tell(
        self, order: Watch | Commission | Shed | Inspect, deadline_s: float
    ) -> None:
        """Note an order, or fail as a full socket does."""
        if not self.takes:
            what = f"not taken in {deadline_s:.0f} s"
            raise TrialFailedError(what, reason=Reason.HANG)
        self.told.append(order)


@asynccontextmanager
async def kept(worker: Deaf) -> AsyncIterator[Tenancy]:
    """Keep a worker that has no model."""
    watching = Watching("digits", Monitoring())
    placing = Placing("digits", Totals(), 5.0, watching.order)
    tenancy = Tenancy(placing, Deaths(BRISK), 1.0, watching)
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(tenancy.keep(worker))
        await asyncio.sleep(0)
        yield tenancy
        keeping.cancel()


@in_loop
async def test_an_order_that_was_not_taken_does_not_hold() -> None:
    """Who asked for it learns that, and the same order is told again."""
    worker = Deaf()
    async with kept(worker) as tenancy:
        with pytest.raises(TrialFailedError, match="not taken in 5 s"):
            await tenancy.restrain((ABSTAIN,), SAFE)
        assert (tenancy.holding(), tenancy.ordered) == ([], Shed())
        worker.takes = True
        assert await tenancy.restrain((ABSTAIN,), SAFE) == (ABSTAIN,)
        assert (worker.told, tenancy.ordered.answer) == (
            [Shed(1, "abstain")],
            "abstain",
        )
        worker.takes = False
        with pytest.raises(TrialFailedError):
            await tenancy.restrain(NOTHING, SAFE)
        worker.takes = True
        # What was not taken may have been sent all the same.
        assert await tenancy.restrain((ABSTAIN,), SAFE) == (ABSTAIN,)
        assert worker.told == [Shed(1, "abstain")] * 2
