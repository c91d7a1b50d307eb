"""The poller's life: restarts in the middle, polite stops, pokes."""

import asyncio
from collections.abc import Callable

import pytest

from agent.core.reasons import Reason
from agent.core.targets import SignedFile
from agent.core.update_machine import Job, Phase
from agent.errors import DeviceError, TrialFailedError
from agent.update import Supply
from tests.fakes.lives import running, until
from tests.fakes.scripted_repository import Resumable, ScriptedRepository
from tests.fakes.update_bench import BUNDLES, NOW, Bench


class EndlessRepository(ScriptedRepository):
    """A repository whose bundles never end.

    Attributes:
        begun: Called when a fetch has begun, in its thread.
        ended: Why a fetch ended.
    """

    def __init__(self) -> None:
        super().__init__(BUNDLES)
        self.begun: Callable[[], object] = lambda: None
        self.ended = ""

    def fetch(
        self,
        target: SignedFile,
        write: Callable[[memoryview], None],
        max_bytes: int,
        resume: Resumable | None = None,
    ) -> int:
        """Deliver nothing, for ever."""
        del target, max_bytes, resume
        self.begun()
        try:
            while True:
                write(memoryview(b""))
        except DeviceError as err:
            self.ended = err.reason
            raise


@pytest.mark.parametrize("phase", [Phase.FETCHING, Phase.PROBATION])
def test_a_restart_starts_over(phase: Phase) -> None:
    """An interrupted update is tidied up, then ordered again."""
    bench = Bench()
    bench.repository.assign(door=("kws", 2))
    target = believed(bench.repository).find("kws", 2)
    bench.store.objects[target.sha256] = b"half"
    bench.store.save_job(Job("door", "kws", 2, target.sha256, phase=phase, attempts=1))
    asyncio.run(bench.start().recover())
    assert bench.store.objects == {}
    assert bench.trials.calls == []
    bench.look()
    assert bench.versions() == (2, 0)
    assert bench.store.load_job() is None


def test_a_commit_is_finished_before_the_first_look() -> None:
    """Power loss between the trial and COMMIT: recover commits, and says so."""
    bench = Bench()
    bench.update(2)
    done = bench.store.slots("door").active
    assert done is not None
    fresh = Bench()
    fresh.store.objects = dict(bench.store.objects)
    fresh.store.save_job(Job("door", "kws", 2, done.sha256, Phase.COMMITTING, 1, done))
    asyncio.run(fresh.poller.recover())
    asyncio.run(fresh.poller.recover())
    assert fresh.store.slots("door").active == done
    assert fresh.results() == {("committed", ""): 1}
    assert fresh.trials.calls == []


def test_39_69_three_interrupted_trials_are_enough() -> None:
    """Bytes whose trial the board did not survive three times are set aside."""
    bench = Bench()
    bench.repository.assign(door=("kws", 2))
    sha256 = believed(bench.repository).find("kws", 2).sha256
    for life in range(3):
        assert bench.store.is_set_aside(sha256) == ""
        begin_and_die(bench)
        assert bench.versions() == (0, 0), life
        asyncio.run(bench.start().recover())
    bench.look(5)
    assert bench.store.is_set_aside(sha256) == Reason.CRASH
    assert bench.results() == {("interrupted", ""): 1, ("refused", Reason.CRASH): 1}
    assert [(it.result, it.reason) for it in bench.store.reports()] == [
        ("refused", Reason.CRASH),
        *[("interrupted", "")] * 3,
    ]
    assert bench.fetches() == 3


@pytest.mark.parametrize("first", ["slow", "gone", "good"])
def test_39_69_another_bundle_before_it_does_not_help(first: str) -> None:
    """A bundle that kills the board is given up, whatever comes first in each life."""
    bench = Bench()
    bench.repository.assign(door=("kws", 2), window=("kws", 3))
    sha256 = believed(bench.repository).find("kws", 3).sha256
    if first == "gone":
        bench.repository.gone.add(("kws", 2))
    for _ in range(3):
        assert bench.store.is_set_aside(sha256) == ""
        if first == "slow":
            slow = TrialFailedError("slow", reason=Reason.LATENCY)
            bench.trials.errors["examine"] = slow
        begin_and_die(bench, "kws", 3)
        asyncio.run(bench.start().recover())
    bench.trials.pauses.clear()
    bench.look()
    assert bench.store.is_set_aside(sha256) == Reason.CRASH
    assert bench.versions("window") == (0, 0)


def test_a_polite_stop_counts_nothing() -> None:
    """Being stopped in the middle of a trial is not held against the model."""
    bench = Bench()
    bench.repository.assign(door=("kws", 2))

    async def stop_in_the_middle() -> None:
        examining = asyncio.Event()

        async def wait_for_ever() -> None:
            examining.set()
            await asyncio.Event().wait()

        bench.trials.pauses["examine"] = wait_for_ever
        async with asyncio.TaskGroup() as group:
            running = group.create_task(bench.poller.run())
            await examining.wait()
            assert bench.poller.snapshot().phase == "PREFLIGHT"
            running.cancel()

    for _ in range(4):
        asyncio.run(stop_in_the_middle())
        bench.start()
    bench.trials.pauses.clear()
    asyncio.run(bench.poller.recover())
    bench.look()
    assert bench.versions() == (2, 0)


def test_a_stop_ends_a_fetch() -> None:
    """A fetch in a thread does not go on behind the daemon's back."""
    bench, endless = Bench(), EndlessRepository()
    endless.assign(door=("kws", 2))
    bench.supply = Supply(endless)
    bench.start()

    async def stop_while_fetching() -> None:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()
        endless.begun = lambda: loop.call_soon_threadsafe(begun.set)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(bench.poller.run())
            await begun.wait()
            running.cancel()

    asyncio.run(stop_while_fetching())
    assert endless.ended == Reason.STOPPING


class StallingRepository(ScriptedRepository):
    """A repository that stalls after two blocks, once.

    Attributes:
        stalled: Called when it has.
    """

    def __init__(self) -> None:
        super().__init__(BUNDLES)
        self.stalled: Callable[[], object] = lambda: None
        self._stalls = True

    def fetch(
        self,
        target: SignedFile,
        write: Callable[[memoryview], None],
        max_bytes: int,
        resume: Resumable | None = None,
    ) -> int:
        """Deliver as usual, or stop in the middle."""
        came = 0

        def stalling(content: memoryview) -> None:
            nonlocal came
            write(content)
            came += len(content)
            if self._stalls and came >= 2048:
                self._stalls = False
                self.stalled()
                while True:
                    write(memoryview(b""))

        return super().fetch(target, stalling, max_bytes, resume)


def test_a_stop_keeps_what_came() -> None:
    """SIGTERM in the middle of a download: the next life fetches only the rest."""
    bench, stalling = Bench(), StallingRepository()
    stalling.assign(door=("kws", 2))
    bench.supply = Supply(stalling)
    bench.start()

    async def stop_while_fetching() -> None:
        stalled, loop = asyncio.Event(), asyncio.get_running_loop()
        stalling.stalled = lambda: loop.call_soon_threadsafe(stalled.set)
        async with running(bench):
            await stalled.wait()
            progress = bench.poller.snapshot().progress
            assert progress is not None
            assert (progress.phase, progress.done_bytes) == ("FETCHING", 2048)

    asyncio.run(stop_while_fetching())
    bench.start()
    asyncio.run(bench.poller.recover())
    bench.look()
    assert bench.versions() == (2, 0)
    rest = len(BUNDLES["kws", 2]) - 2048
    assert bench.poller.snapshot().bytes == {"full": rest, "delta": 0, "resumed": 2048}
    results = [report.result for report in bench.store.reports()]
    assert results == ["committed", "interrupted"]


def test_a_poke_looks_now() -> None:
    """``run`` looks at once, and again when it is poked, not only after poll_s."""
    bench = Bench()

    async def poke_twice() -> None:
        committed = asyncio.Event()

        async def tell() -> None:
            committed.set()

        bench.trials.pauses["commit"] = tell
        async with asyncio.TaskGroup() as group:
            running = group.create_task(bench.poller.run())
            for version in (1, 2):
                bench.repository.assign(door=("kws", version))
                bench.poller.poke()
                await committed.wait()
                committed.clear()
            running.cancel()

    asyncio.run(poke_twice())
    assert bench.versions() == (2, 1)


def believed(repository: ScriptedRepository) -> ScriptedRepository:
    """Return a repository that was refreshed."""
    repository.refresh(NOW)
    return repository


def begin_and_die(bench: Bench, model: str = "kws", version: int = 2) -> None:
    """Carry an update as far as the preflight of a bundle, then lose power."""

    class PowerLossError(Exception):
        """Nothing runs any more."""

    async def die() -> None:
        job = bench.poller.intake.job
        if job is not None and (job.model, job.version) == (model, version):
            raise PowerLossError

    bench.trials.pauses["examine"] = die
    with pytest.raises(ExceptionGroup) as caught:
        bench.look()
    assert caught.value.subgroup(PowerLossError) is not None


def test_a_poke_hurries_what_may_mend_itself() -> None:
    """After a repair and a poke a flipped bundle is fetched at once, not rounds later.

    Without the poke it would sit out three more rounds.
    """
    bench = Bench()
    bench.repository.spoiled["kws", 2] = BUNDLES["kws", 3]
    bench.repository.assign(door=("kws", 2))
    bench.look(3)
    assert bench.fetches() == 2
    bench.repository.spoiled.clear()

    async def poke_once() -> None:
        committed, looked = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        async def tell() -> None:
            committed.set()

        bench.trials.pauses["commit"] = tell
        bench.repository.refreshed = lambda: loop.call_soon_threadsafe(looked.set)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            running = group.create_task(bench.poller.run())
            await looked.wait()
            bench.poller.poke()
            await committed.wait()
            running.cancel()

    asyncio.run(poke_once())
    assert bench.versions() == (2, 0)


def test_a_commit_of_bytes_that_are_gone() -> None:
    """An interrupted COMMIT whose object is not whole any more is rolled back."""
    bench = Bench()
    bench.update(2)
    done = bench.store.slots("door").active
    assert done is not None
    fresh = Bench()
    fresh.store.objects[done.sha256] = b"cut"
    fresh.store.save_job(Job("door", "kws", 2, done.sha256, Phase.COMMITTING, 1, done))
    asyncio.run(fresh.poller.recover())
    assert fresh.versions() == (0, 0)
    assert fresh.results() == {("rolled_back", Reason.DIGEST): 1}
    assert fresh.trials.calls == []


def test_bytes_are_believed_by_their_digest() -> None:
    """A repository that delivers another good bundle is found out while verifying."""
    bench = Bench()
    lying = LyingRepository()
    lying.assign(door=("kws", 2))
    bench.supply = Supply(lying)
    bench.start()
    bench.look()
    assert bench.results() == {("refused", Reason.DIGEST): 1}
    phases = [job.phase for job in bench.store.jobs if job]
    assert phases == [Phase.FETCHING, Phase.VERIFYING]


class LyingRepository(ScriptedRepository):
    """A repository that delivers version 3 for every other one, and says nothing."""

    def __init__(self) -> None:
        super().__init__(BUNDLES)

    def fetch(
        self,
        target: SignedFile,
        write: Callable[[memoryview], None],
        max_bytes: int,
        resume: Resumable | None = None,
    ) -> int:
        """Deliver bytes of the right length that nobody signed."""
        del max_bytes, resume
        content = BUNDLES["kws", 3]
        assert len(content) == target.length
        write(memoryview(content))
        return 0


def test_no_look_is_announced_while_one_that_was_asked_for_waits() -> None:
    """Who asks during a look would take its end for that of the look asked for."""
    bench = Bench()

    async def ask() -> None:
        async with running(bench):
            await until(lambda: bench.poller.snapshot().next_look > 0)
            announced: list[float] = []
            bench.repository.refreshed = lambda: announced.append(
                bench.poller.snapshot().next_look
            )
            bench.poller.poke()
            assert bench.poller.snapshot().next_look == 0
            await until(lambda: bench.poller.snapshot().next_look > 0)
            assert announced == [0]

    asyncio.run(ask())
