"""While a trial lasts: looks go on, what lost its purpose ends, stops leave no mess."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from agent.core.installed import Slots
from agent.core.reasons import Reason
from agent.core.targets import Revocations
from agent.core.update_machine import Job, Phase
from agent.errors import BundleRefusedError, DeviceError, TrialFailedError
from agent.update.poller import FLOOD_GAP_S
from tests.fakes.lives import Gate, running, until
from tests.fakes.scripted_repository import ScriptedRepository
from tests.fakes.update_bench import BUNDLES, NOW, Bench

LASTING = ["shadow", "watch"]


def looking_on(
    where: str, meanwhile: Callable[[Bench, Gate], Awaitable[None]], *versions: int
) -> Bench:
    """Let something happen while a trial of kws 2 waits, on a board that polls fast."""
    bench = Bench(poll_s=0.01)
    for version in versions:
        bench.update(version)

    async def live() -> None:
        gate = Gate()
        bench.trials.pauses[where] = gate
        bench.repository.assign(door=("kws", 2))
        async with running(bench):
            await gate.reached.wait()
            await meanwhile(bench, gate)

    asyncio.run(live())
    return bench


def ends(bench: Bench) -> list[tuple[int, str, str]]:
    """Return version, result and reason of all reports, newest first."""
    return [(it.version, it.result, it.reason) for it in bench.store.reports()]


async def some_looks(bench: Bench, count: int = 3) -> None:
    """Wait for some refreshes more."""
    seen = bench.repository.calls.count("refresh") + count
    await until(lambda: bench.repository.calls.count("refresh") >= seen)


@pytest.mark.parametrize("where", LASTING)
def test_looks_go_on(where: str) -> None:
    """Metadata is followed meanwhile, and one job at a time stays the rule."""

    async def meanwhile(bench: Bench, gate: Gate) -> None:
        bench.repository.assign(door=("kws", 2), window=("kws", 2))
        await some_looks(bench)
        assert bench.decision("window").state == "ordered"
        assert bench.versions("window") == (0, 0)
        gate.opened.set()
        await until(lambda: bench.versions("window") == (2, 0))

    bench = looking_on(where, meanwhile)
    assert ends(bench) == [(2, "committed", ""), (2, "committed", "")]


@pytest.mark.parametrize(
    ("where", "result"), [("shadow", "failed"), ("watch", "rolled_back")]
)
def test_something_else_is_wanted(where: str, result: str) -> None:
    """A newer generation names another version: superseded, then that one is tried."""

    async def meanwhile(bench: Bench, gate: Gate) -> None:
        bench.repository.assign(door=("kws", 3))
        await until(lambda: len(ends(bench)) == 2)
        gate.opened.set()
        await until(lambda: bench.versions() == (3, 1))

    bench = looking_on(where, meanwhile, 1)
    assert ends(bench)[1] == (2, result, Reason.SUPERSEDED)
    assert bench.store.all_set_aside() == []


def test_the_fleet_goes_back_to_what_runs() -> None:
    """The active version is wanted again: the trial ends, nothing else begins."""

    async def meanwhile(bench: Bench, _gate: Gate) -> None:
        bench.repository.assign(door=("kws", 1))
        await until(lambda: len(ends(bench)) == 2)
        await some_looks(bench)

    bench = looking_on("watch", meanwhile, 1)
    assert ends(bench)[0] == (2, "rolled_back", Reason.SUPERSEDED)
    assert (bench.versions(), bench.decision().state) == ((1, 0), "runs")


@pytest.mark.parametrize(
    ("where", "result"), [("shadow", "refused"), ("watch", "rolled_back")]
)
def test_34_revoked_while_on_trial(where: str, result: str) -> None:
    """The candidate ends at once, and is not tried again."""

    async def meanwhile(bench: Bench, _gate: Gate) -> None:
        digests = (bench.sha256(2),)
        bench.repository.revocations = Revocations(bundles=digests)
        await until(lambda: len(ends(bench)) == 2)
        await some_looks(bench)

    bench = looking_on(where, meanwhile, 1)
    assert ends(bench) == [(2, result, Reason.REVOKED), (1, "committed", "")]
    assert bench.versions() == (1, 0)
    assert bench.decision().reason == Reason.REVOKED


def test_34_the_active_model_is_revoked_while_its_successor_is_on_probation() -> None:
    """The candidate answers already: the pipeline is told nothing, and it commits."""

    async def meanwhile(bench: Bench, gate: Gate) -> None:
        digests = (bench.sha256(1),)
        bench.repository.revocations = Revocations(bundles=digests)
        await until(lambda: bench.store.slots("door") == Slots())
        assert bench.told == []
        gate.opened.set()
        await until(lambda: bench.versions() == (2, 0))
        await some_looks(bench)

    bench = looking_on("watch", meanwhile, 1)
    assert (bench.told, ends(bench)[0]) == ([], (2, "committed", ""))


def test_34_and_the_successor_fails() -> None:
    """The revoked model does not come back with the rollback: the pipeline is told."""

    async def meanwhile(bench: Bench, gate: Gate) -> None:
        digests = (bench.sha256(1),)
        bench.repository.revocations = Revocations(bundles=digests)
        bench.trials.errors["watch"] = TrialFailedError("bad", reason=Reason.FAILURES)
        await until(lambda: bench.store.slots("door") == Slots())
        gate.opened.set()
        await until(lambda: bench.told == ["door"])

    bench = looking_on("watch", meanwhile, 1)
    assert ends(bench)[0] == (2, "rolled_back", Reason.FAILURES)


def test_a_repository_that_fails_meanwhile_ends_nothing() -> None:
    """No word is no reason: the trial goes on, and the next good look counts."""

    async def meanwhile(bench: Bench, gate: Gate) -> None:
        error = BundleRefusedError("away", reason=Reason.UNREACHABLE)
        bench.repository.error = error
        await until(lambda: bench.poller.snapshot().trouble is not None)
        gate.opened.set()
        await until(lambda: bench.versions() == (2, 0))

    bench = looking_on("watch", meanwhile)
    assert ends(bench) == [(2, "committed", "")]


def test_a_disk_that_fails_meanwhile_ends_nothing() -> None:
    """A store that cannot be read for a while is a look that failed, no bug."""

    async def meanwhile(bench: Bench, gate: Gate) -> None:
        bench.store.unreadable = DeviceError("a bad sector", reason=Reason.STATE)
        await some_looks(bench)
        bench.store.unreadable = None
        gate.opened.set()
        await until(lambda: bench.versions() == (2, 0))

    bench = looking_on("watch", meanwhile)
    assert ends(bench) == [(2, "committed", "")]


def test_51_a_flood_of_pokes_is_one_look_a_second() -> None:
    """While a trial lasts no more is asked of a repository than without one."""
    bench = Bench()
    bench.repository.assign(door=("kws", 2))

    async def live() -> None:
        gate = Gate()
        bench.trials.pauses["watch"] = gate
        loop = asyncio.get_running_loop()
        async with running(bench):
            await gate.reached.wait()
            began, before = loop.time(), bench.repository.calls.count("refresh")
            for _ in range(100):
                bench.poller.poke()
                await asyncio.sleep(0.005)
            looks = bench.repository.calls.count("refresh") - before
            assert 1 <= looks <= 1 + (loop.time() - began) / FLOOD_GAP_S
            bench.poller.poke()
            gate.opened.set()  # nor does the job's end wait for the next one
            await until(lambda: bench.versions() == (2, 0))

    asyncio.run(live())


def test_a_factory_model_is_not_overtaken() -> None:
    """A new board gets an answer first, whatever the fleet wants by then."""
    factory = ScriptedRepository(BUNDLES)
    factory.assign(door=("kws", 1))
    bench = Bench(poll_s=0.01, factories={"door": lambda: factory})
    bench.repository.assign(door=("kws", 3))

    async def live() -> None:
        gate = Gate()
        bench.trials.pauses["watch"] = gate
        async with running(bench):
            await gate.reached.wait()
            await some_looks(bench)
            assert bench.decision().state == "ordered"
            gate.opened.set()
            await until(lambda: bench.versions() == (3, 1))

    asyncio.run(live())
    assert ends(bench) == [(3, "committed", ""), (1, "committed", "")]


def test_progress_is_shown() -> None:
    """Number, phase and bytes of what is under way; nothing once it has ended."""

    async def meanwhile(bench: Bench, gate: Gate) -> None:
        snapshot = bench.poller.snapshot()
        progress = snapshot.progress
        assert progress is not None
        length = len(BUNDLES["kws", 2])
        assert (progress.phase, snapshot.phase) == ("PROBATION", "PROBATION")
        assert (progress.done_bytes, progress.total_bytes) == (length, length)
        assert (progress.pipeline, progress.version) == ("door", 2)
        assert (progress.began_at, progress.sha256) == (NOW, bench.sha256(2))
        gate.opened.set()
        await until(lambda: bool(bench.store.reports()))
        assert bench.store.reports()[0].id == progress.id
        await until(lambda: bench.poller.snapshot().progress is None)

    looking_on("watch", meanwhile)


@pytest.mark.parametrize(
    ("where", "phase"),
    [
        ("examine", Phase.PREFLIGHT),
        ("shadow", Phase.SHADOWING),
        ("swap_in", Phase.PROBATION),
        ("watch", Phase.PROBATION),
        ("swap_back", Phase.ROLLING_BACK),
        ("commit", None),
    ],
)
def test_69_a_stop_in_every_phase(where: str, phase: Phase | None) -> None:
    """SIGTERM in the middle: the next life tells, counts nothing, and goes on."""
    bench = Bench()
    bench.update(1)

    async def live() -> None:
        gate = Gate()
        bench.trials.pauses[where] = gate
        if where == "swap_back":
            error = TrialFailedError("bad", reason=Reason.FAILURES)
            bench.trials.errors["watch"] = error
        bench.repository.assign(door=("kws", 2))
        async with running(bench):
            await gate.reached.wait()

    asyncio.run(live())
    job = bench.store.load_job()
    assert (job.phase if job else None) == phase
    bench.trials.pauses.clear()
    bench.trials.errors.clear()
    bench.start()
    asyncio.run(bench.poller.recover())
    if phase is None:
        assert bench.versions() == (2, 1)
    else:
        assert bench.versions() == (1, 0)
        assert ends(bench)[0] == (2, "interrupted", "")
    bench.look()
    assert bench.versions() == (2, 1)
    assert bench.store.all_set_aside() == []


@pytest.mark.parametrize("phase", [*Phase])
def test_69_a_death_in_every_phase(phase: Phase) -> None:
    """Killed in the middle: nothing of the trial is left but that it is told."""
    bench = Bench()
    bench.update(1)
    bench.repository.assign(door=("kws", 2))
    asked = bench.repository.find("kws", 2)
    active = bench.store.slots("door").active
    assert active is not None
    bench.store.objects[asked.sha256] = BUNDLES["kws", 2]
    number = bench.store.next_update_id()
    candidate = replace(active, version=2, sha256=asked.sha256)
    job = Job("door", "kws", 2, asked.sha256, phase, 1, candidate, id=number)
    bench.store.save_job(job)
    bench.start()
    asyncio.run(bench.poller.recover())
    finished = phase is Phase.COMMITTING
    assert bench.versions() == ((2, 1) if finished else (1, 0))
    told = [] if phase is Phase.IDLE else [(2, "interrupted", "")]
    told = [(2, "committed", "")] if finished else told
    assert ends(bench) == [*told, (1, "committed", "")]
    bench.look()
    assert bench.versions() == (2, 1)
    assert bench.store.load_job() is None
