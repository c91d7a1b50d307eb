"""One worker process: orders answered, refused, or answered by its end."""

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.flow import CountSink
from agent.core.messages import Anchored, Configure, Inspected, Load, Watch, Watched
from agent.core.reasons import Reason
from agent.core.watching import Monitored
from agent.errors import DeviceError, TrialFailedError
from agent.settings import SuperviseSettings
from agent.supervise.child import PROGRAM
from agent.supervise.deaths import Death, Deaths, death_reason, oom_kills
from agent.supervise.worker_process import MB, WorkerProcess, own_resident_bytes
from tests.fakes.digits import ENDLESS, PATIENCE_S, in_loop, placed, until

ROGUE = (sys.executable, str(Path(__file__).parent.parent / "fakes" / "rogue_child.py"))


@asynccontextmanager
async def configured(*program: str) -> AsyncIterator[WorkerProcess]:
    """Start a worker and configure it; it is ended in the end."""
    readable = [Path(ENDLESS.path)]
    worker = await WorkerProcess.start("digits", readable, program=program or PROGRAM)
    try:
        await worker.ready()
        await worker.configure(Configure("digits", ENDLESS, (CountSink(),)), [])
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(worker.listen())
            try:
                yield worker
            finally:
                worker.kill()
                await asyncio.wait({listening})
    finally:
        await worker.close()
        worker.block.close()


def order(generation: int) -> tuple[Load, memoryview]:
    """Return what loads the demo's first model."""
    bundle, installed = placed(1).bundle, placed(1).installed
    load = Load(generation, bundle.raw_manifest, "int8", installed.executor)
    return load, bundle.variant_bytes("int8")


@in_loop
async def test_load_activate_stop() -> None:
    """A worker says what it is, loads, answers, and stops when told to."""
    async with configured() as worker:
        assert worker.locks["parent"] == ""
        assert worker.engines
        load, content = order(1)
        loaded = await worker.load(load, content, PATIENCE_S)
        swapped = await worker.activate(1, PATIENCE_S)
        assert (loaded.generation, swapped.generation, swapped.first_seq) == (1, 1, 1)
        assert worker.resident_bytes() > MB
        await worker.stop(PATIENCE_S)
        await until(lambda: worker.gone, "its last word")
        block = worker.block.read_final()
        assert block is not None
        assert block.sections[0].in_flight == 0
        assert block.next_seq > 1
    assert worker.resident_bytes() == 0


@in_loop
async def test_an_order_to_a_dead_worker_is_answered_at_once() -> None:
    """Whoever waits for a worker that died, or asks it later, learns so."""
    async with configured() as worker:
        asked = asyncio.ensure_future(worker.activate(1, PATIENCE_S))  # noqa: TID251 - two at a time
        os.kill(worker.pid, 9)
        with pytest.raises(TrialFailedError) as died:
            await asked
        await until(lambda: worker.gone, "its end")
        with pytest.raises(TrialFailedError) as later:
            await worker.load(*order(2), PATIENCE_S)
    assert died.value.reason in (Reason.CRASH, Reason.INTERNAL)
    assert later.value.reason == Reason.CRASH


@in_loop
async def test_answers_for_others_are_no_answers() -> None:
    """A late answer to an order that was given up is not taken for this one's."""
    async with configured(*ROGUE, "late_answers") as worker:
        with pytest.raises(TrialFailedError) as late:
            await worker.load(*order(1), 0.3)
    assert late.value.reason == Reason.HANG


@in_loop
async def test_a_worker_that_reads_nothing_is_stopped_in_time() -> None:
    """Its socket is full, so that Stop cannot even be sent: it is ended anyway."""
    async with configured(*ROGUE, "deaf") as worker:
        load, _ = order(1)
        long = replace(load, manifest=b"x" * 100_000)
        with pytest.raises(TrialFailedError) as late:
            await worker.load(long, memoryview(b"model"), 0.2)
        assert late.value.reason == Reason.HANG
        filling = asyncio.ensure_future(fill(worker, long))  # noqa: TID251 - two at a time
        async with asyncio.timeout(PATIENCE_S):
            await worker.stop(0.2)
            await until(lambda: worker.gone, "its end")
        filling.cancel()


async def fill(worker: WorkerProcess, long: Load) -> None:
    """Send as much as the socket holds."""
    while not worker.gone:
        await worker._child.send(long)


@pytest.mark.parametrize("flood", ["flood", "flood_watch"])
def test_a_flood_of_messages_is_a_crash(flood: str) -> None:
    """A worker that says more than any worker has to say is broken off with."""

    @in_loop
    async def case() -> None:
        worker = await WorkerProcess.start("digits", [], program=(*ROGUE, flood))
        try:
            await worker.ready()
            await worker.configure(Configure("digits", ENDLESS, (CountSink(),)), [])
            with pytest.raises(DeviceError, match="floods") as broken:
                await worker.listen()
        finally:
            await worker.close()
            worker.block.close()
        assert broken.value.reason == Reason.CRASH

    case()


@in_loop
async def test_what_monitors_say_is_passed_on() -> None:
    """Reports and baselines, in their order, whatever load they are about."""
    heard: list[Watched | Anchored | Inspected] = []
    async with configured(*ROGUE, "watch") as worker:
        worker.on_watched = heard.append
        await until(lambda: len(heard) == 2, "both")
    assert heard == [Watched(900, Monitored(samples=5)), Anchored(900, b"site")]


async def tell_again_and_again(worker: WorkerProcess, order: Watch) -> None:
    """Tell it more than its socket holds."""
    for _ in range(100):
        await worker.tell(order, 0.2)


@in_loop
async def test_telling_a_worker_that_reads_nothing() -> None:
    """An order without an answer has a deadline as well; at a dead worker it ends."""
    async with configured(*ROGUE, "deaf") as worker:
        large = Watch(1, profile=b"x" * 60_000, site=b"x" * 60_000)
        with pytest.raises(TrialFailedError) as late:
            await tell_again_and_again(worker, large)
        assert late.value.reason == Reason.HANG
        worker.kill()
        await until(lambda: worker.gone, "its end")
        await worker.tell(large, PATIENCE_S)


@in_loop
async def test_an_order_that_fits_no_record_is_not_sent() -> None:
    """Whoever told it learns so."""
    async with configured(*ROGUE, "late_answers") as worker:
        with pytest.raises(TrialFailedError) as refused:
            await worker.tell(Watch(1, profile=b"x" * 300_000), PATIENCE_S)
    assert refused.value.reason == Reason.INTERNAL


@in_loop
async def test_an_order_that_cannot_be_sent_fails_the_trial() -> None:
    """Whoever asked learns that it did not fit one record; the worker goes on."""
    async with configured(*ROGUE, "late_answers") as worker:
        load, content = order(1)
        with pytest.raises(TrialFailedError) as refused:
            await worker.load(replace(load, manifest=bytes(2**18)), content, 1.0)
        assert not worker.gone
    assert refused.value.reason == Reason.INTERNAL


@in_loop
async def test_the_memory_limit_follows_the_declaration() -> None:
    """The soft limit of data is what was declared, and more for a larger one."""
    async with configured() as worker:
        limits = []
        for declared_mb in (10.0, 100.0):
            worker.limit_memory(declared_mb, 0)
            limits.append(resource.prlimit(worker.pid, resource.RLIMIT_DATA)[0])
    assert limits[1] - limits[0] == int(90 * MB * 1.25)


def test_own_memory() -> None:
    """A process that runs Python has a few megabytes."""
    assert own_resident_bytes() > MB


@pytest.mark.parametrize(
    ("code", "hung", "oom", "reason"),
    [
        (-11, False, False, Reason.CRASH),
        (1, False, True, Reason.CRASH),
        (-9, False, True, Reason.OOM),
        (-9, False, False, Reason.CRASH),
        (-9, True, True, Reason.HANG),
    ],
)
def test_reasons_of_death(code: int, *, hung: bool, oom: bool, reason: Reason) -> None:
    """What was seen says more than the code."""
    assert death_reason(code, hung=hung, oom=oom) == reason


def test_deaths_in_a_row() -> None:
    """Pauses double up to the longest; only the model's own deaths count against it."""
    rules = SuperviseSettings(backoff_s=1, max_backoff_s=5, crash_limit=2)
    deaths = Deaths(rules)
    blamed = Death(Reason.CRASH, with_model=True)
    noted = [
        deaths.note(death)
        for death in (Death(Reason.SOURCE_MISSING), blamed, Death(Reason.OOM), blamed)
    ]
    assert noted == [(1, False), (2, False), (4, False), (5, True)]
    deaths.forgive()
    assert deaths.note(blamed) == (1, False)
    assert deaths.counts() == {"source_missing": 1, "crash": 3, "oom": 1}
    assert deaths.last == Reason.CRASH


def test_what_a_death_is_counted_as() -> None:
    """Our own wish comes first, then what the worker said, then what was seen."""
    deaths = Deaths(SuperviseSettings())
    deaths.began()

    def judge(source: Reason, *, unwanted: bool = False) -> Death:
        return deaths.judge(
            -9, hung=True, source=source, unwanted=unwanted, blamed=True
        )

    assert judge(Reason.SOURCE_FAILED, unwanted=True) == Death(Reason.REQUESTED)
    assert judge(Reason.SOURCE_FAILED) == Death(Reason.SOURCE_FAILED)
    assert judge(Reason.NONE) == Death(Reason.HANG, with_model=True)


def test_memory_that_ended_is_nobodys_fault() -> None:
    """What the kernel killed for memory is counted as that, and not as the model's."""
    kills = iter((7, 8, 8))  # at the birth, at the first look, at the second
    deaths = Deaths(SuperviseSettings(), lambda: next(kills))
    deaths.began()

    def judge(code: int) -> Death:
        return deaths.judge(
            code, hung=False, source=Reason.NONE, unwanted=False, blamed=True
        )

    assert judge(-9) == Death(Reason.OOM)
    assert judge(-11) == Death(Reason.CRASH, with_model=True)


def test_a_healthy_life_ends_the_row() -> None:
    """A worker that lived long enough is not one of a row."""
    deaths = Deaths(SuperviseSettings(healthy_s=1e-9, crash_limit=2))
    blamed = Death(Reason.CRASH, with_model=True)
    assert [deaths.note(blamed) for _ in range(3)] == [(0.5, False)] * 3


def test_oom_kills_never_fall() -> None:
    """The kernel's counter, wherever it stands."""
    assert 0 <= oom_kills() <= oom_kills()
