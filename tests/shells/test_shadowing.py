"""Shadowing with real children: who differs is refused, and nobody else notices."""

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.manifest import Budgets, TrialRules
from agent.core.reasons import Reason
from agent.errors import AgentError, TrialFailedError
from agent.supervise.child import PROGRAM
from agent.supervise.placing import Placed
from agent.supervise.shadow import Shadowing
from agent.supervise.trials import PipelineTrials
from tests.fakes.candidates import AGREES, Ledger, candidate, failing, permuted
from tests.fakes.digits import (
    ENDLESS,
    STREAM,
    AlteredBundle,
    Bench,
    in_loop,
    placed,
    running,
    until,
)

ROGUE = (sys.executable, str(Path(__file__).parent.parent / "fakes" / "rogue_child.py"))


def trials(bench: Bench) -> PipelineTrials:
    """Return trials on one pipeline."""
    return PipelineTrials({"digits": bench.pipeline}, ())


async def shadowed(bench: Bench, it: Placed) -> None:
    """Let a candidate shadow, as an update would."""
    await trials(bench).shadow("digits", it.bundle, it.installed)


async def failed(bench: Bench, it: Placed, program: tuple[str, ...] = PROGRAM) -> str:
    """Return the reason for which a shadow fails."""
    shadowing = Shadowing(bench.pipeline, it, (), lambda *_: None, program)
    with pytest.raises(AgentError) as err:
        await shadowing.run()
    return f"{type(err.value).__name__} {err.value.reason}"


def shadows() -> list[int]:
    """Return the process ids of all shadow children of this process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if b"shadow" in words and int(parent) == os.getpid():
            found.append(int(path.name))
    return found


def rings(pid: int) -> int:
    """Return how many shadow rings a process has mapped or open."""
    mapped = Path(f"/proc/{pid}/maps").read_text().count("shadow-ring")
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except OSError:
            continue
    return mapped + sum("shadow-ring" in link for link in links)


async def nothing_is_left(bench: Bench) -> None:
    """Wait until no child, no ring and no tap is left."""
    assert shadows() == []
    assert rings(os.getpid()) == 0
    pid = bench.now.worker_pid
    await until(lambda: rings(pid) == 0, "the worker lets the ring go")


@in_loop
async def test_who_agrees_passes_and_costs_nothing() -> None:
    """The same model under another version: 0 lost, no outcome but ok, no restart."""
    async with running(placed(1)) as bench:
        await bench.ready()
        ledger = Ledger(bench.pipeline)
        before, answered = ledger.lost(), bench.ok(1)
        for _ in range(3):
            await shadowed(bench, candidate())
        assert ledger.lost() == before
        assert bench.ok(1) > answered
        assert bench.now.state == "active"
        assert bench.now.swaps == {}
        await nothing_is_left(bench)
        await bench.answers(1, 100)
        await bench.pipeline.stop()
        sums = bench.outcomes(1)
        assert sums["received"] == sums["ok"] == bench.now.seq - 1


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (permuted, "agreement"),
        (lambda: candidate(version=2), "agreement"),
        (lambda: failing(AGREES), "failures"),
        (lambda: candidate(budgets=Budgets(p95_ms=1e-6)), "latency"),
        (lambda: candidate(replace(AGREES, max_slowdown=1e-6)), "latency"),
        (lambda: candidate(budgets=Budgets(ram_mb=1e-6, p95_ms=1000)), ""),
    ],
)
def test_who_differs_or_is_slow_fails(what: Callable[[], Placed], reason: str) -> None:
    """Other words, other weights, too slow in itself or beside the active model."""

    @in_loop
    async def case() -> None:
        async with running(placed(1)) as bench:
            await bench.ready()
            before = Ledger(bench.pipeline).lost()
            if reason:
                assert await failed(bench, what()) == f"TrialFailedError {reason}"
            else:
                await shadowed(bench, what())
            assert Ledger(bench.pipeline).lost() == before
            assert bench.now.state == "active"
            await nothing_is_left(bench)

    case()


@in_loop
async def test_a_looser_promise_is_kept() -> None:
    """The demo's second model agrees with its first on most digits."""
    async with running(placed(1)) as bench:
        await bench.ready()
        await shadowed(bench, candidate(replace(AGREES, min_agreement=0.5), version=2))


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("segfault", "crash"),
        ("starved", "crash"),
        ("starved_shadow", "memory"),
        ("confused", "crash"),
        ("nonsense", "crash"),
        ("late_nonsense", "crash"),
        ("stranger", "crash"),
        ("flood_findings", "crash"),
        ("flood_shadow", "crash"),
        ("liar", "crash"),
        ("nan", "not_finite"),
        ("hang_in_shadow", "hang"),
    ],
)
def test_whatever_the_child_does(behaviour: str, reason: str) -> None:
    """It is the candidate's failure, and the active model answers on."""

    @in_loop
    async def case() -> None:
        # A shadow has so long for a sample; and so does the worker, which a busy
        # machine must not make late where nothing hangs.
        deadline_ms = 1000.0 if reason == "hang" else 20_000.0
        async with running(placed(1), deadline_ms=deadline_ms) as bench:
            await bench.ready()
            found = await failed(bench, candidate(), (*ROGUE, behaviour))
            assert found == f"TrialFailedError {reason}"
            await nothing_is_left(bench)
            await bench.answers(1)

    case()


@in_loop
async def test_a_real_child_that_is_killed() -> None:
    """The kernel's memory killer takes the shadow: nobody else."""
    rules = replace(AGREES, shadow_samples=1_000_000)
    async with running(placed(1)) as bench:
        await bench.ready()
        before = Ledger(bench.pipeline).lost()
        async with asyncio.TaskGroup() as group:
            shadow = group.create_task(failed(bench, candidate(rules)))
            await until(lambda: rings(bench.now.worker_pid) > 0, "the tap")
            os.kill(shadows()[0], signal.SIGSEGV)
        assert shadow.result() == "TrialFailedError crash"
        assert Ledger(bench.pipeline).lost() == before
        await nothing_is_left(bench)


@in_loop
async def test_a_damaged_model_is_refused() -> None:
    """The child hashes what it loads, like everyone."""
    async with running(placed(1)) as bench:
        await bench.ready()
        it = candidate()
        assert isinstance(it.bundle, AlteredBundle)
        other = b"x" + it.bundle.content[1:]
        bad = Placed(dataclasses.replace(it.bundle, content=other), it.installed)
        assert await failed(bench, bad) == "TrialFailedError digest"


@in_loop
async def test_cancellation_leaves_nothing_behind() -> None:
    """At any moment: no child, no ring, no tap; and the next shadow works."""
    rules = replace(AGREES, shadow_samples=1_000_000)
    async with running(placed(1)) as bench:
        await bench.ready()
        for moment in range(4):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(shadowed(bench, candidate(rules)))
                if moment == 1:
                    await until(lambda: len(shadows()) > 0, "the child")
                if moment >= 2:
                    await until(lambda: rings(bench.now.worker_pid) > 0, "the tap")
                if moment == 3:
                    await bench.answers(1, 1000)
                await asyncio.sleep(0)
                task.cancel()
            assert task.cancelled()
            await nothing_is_left(bench)
        await shadowed(bench, candidate())


@in_loop
async def test_a_worker_that_dies_is_tapped_again() -> None:
    """The next worker fills the same ring, and the verdict is about both."""
    rules = replace(AGREES, shadow_samples=3000, shadow_every=5)
    slow = replace(ENDLESS, rate=20_000.0)
    async with running(placed(1), source=slow) as bench:
        await bench.ready()
        held = trials(bench)
        it = candidate(rules)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(held.shadow("digits", it.bundle, it.installed))
            await until(lambda: held.seen.get("digits", (0, 0))[0] > 100, "samples")
            os.kill(bench.now.worker_pid, signal.SIGKILL)
            await task
        assert bench.now.restarts == {"crash": 1}
        assert held.seen == {}
        await nothing_is_left(bench)


@in_loop
async def test_a_silent_source_is_nobodys_fault() -> None:
    """Too few samples: no verdict, said with a reason; and those there were count."""
    done = replace(STREAM, rate=100.0)  # 600 samples in all
    rules = replace(AGREES, wait_s=1.0, shadow_samples=100_000)
    async with running(placed(1), source=done) as bench:
        await bench.ready()
        await shadowed(bench, candidate(rules))  # a few, and they agree
        assert await failed(bench, permuted(rules)) == ("TrialFailedError agreement")
    async with running(placed(1), source=STREAM) as bench:
        await until(lambda: bench.now.seq > 600, "the end of the recording")
        found = await failed(bench, candidate(rules))
        assert found == "DeviceError source_silent"
        await nothing_is_left(bench)


@in_loop
async def test_without_an_active_model_there_is_nothing_to_compare() -> None:
    """It passes at once; as it does without rules, and beside a broken model."""
    async with running() as bench:
        await shadowed(bench, permuted())
    async with running(placed(1)) as bench:
        await bench.ready()
        await shadowed(bench, candidate(TrialRules(min_agreement=1.0)))
        bench.pipeline.give(None, Reason.REVOKED)
        await until(lambda: bench.now.reason == Reason.REVOKED, "no model")
        await shadowed(bench, permuted())
        assert shadows() == []


@in_loop
async def test_no_room_for_a_child_is_no_fault_of_the_model(tmp_path: Path) -> None:
    """A board without processes says so, and tries again later."""
    async with running(placed(1)) as bench:
        await bench.ready()
        absent = (str(tmp_path / "absent"),)
        assert await failed(bench, candidate(), absent) == "DeviceError memory"


@in_loop
async def test_progress_is_told() -> None:
    """How many samples of how many, while it goes on."""
    told: list[tuple[int, int]] = []

    def tell(done: int, wanted: int) -> None:
        told.append((done, wanted))

    async with running(placed(1)) as bench:
        await bench.ready()
        await Shadowing(bench.pipeline, candidate(), (), tell).run()
    assert [wanted for _, wanted in told] == [300] * len(told)
    assert told == sorted(told)
    assert told[-1][0] >= 300


@in_loop
async def test_unknown_pipelines_are_refused() -> None:
    """Nobody shadows what does not run."""
    it = candidate()
    with pytest.raises(TrialFailedError) as err:
        await PipelineTrials({}, ()).shadow("digits", it.bundle, it.installed)
    assert err.value.reason == "settings"
