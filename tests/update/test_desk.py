"""The operators' desk: what is taken, what is told to come later, what is durable."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from msgspec.structs import replace

from agent.core.manifest import MAX_VERSION
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Revocations, Wanted
from agent.core.updates import Hold
from agent.endpoint.needs import Operations
from agent.errors import (
    AgentError,
    BundleRefusedError,
    DeviceError,
    RequestRefusedError,
    TrialFailedError,
)
from agent.update.desk import Desk
from agent.update.poller import FLOOD_GAP_S
from agent.update.pushed import MAX_FIRST, MAX_STEP
from tests.fakes.lives import Gate, running, until
from tests.fakes.update_bench import BUNDLES, Bench

ME = "ann"
WANTS_1 = {"door": Wanted("kws", 1)}
WANTS_2 = GroupFile(generation=3, pipelines={"door": Wanted("kws", 2)})
FULL = DeviceError("full", reason=Reason.DISK_FULL)


def reason(call: Callable[[], Awaitable[object]]) -> str:
    """Return why a request is refused."""

    async def ask() -> None:
        await call()

    with pytest.raises(RequestRefusedError) as caught:
        asyncio.run(ask())
    return caught.value.reason


def updated(*versions: int, **more: object) -> Bench:
    """Return a board that ran these versions one after the other."""
    bench = Bench(**more)  # type: ignore[arg-type]  # settings, by name
    for version in versions:
        bench.update(version)
    return bench


def roll_back(bench: Bench, pipeline: str = "door") -> None:
    """Roll back, and wait until that has ended."""

    async def ask() -> None:
        async with running(bench):
            ended = len(bench.store.reports()) + 1
            assert await bench.desk.roll_back(pipeline, ME) == "door"
            await until(lambda: len(bench.store.reports()) == ended)
            await until(lambda: bench.poller.intake.job is None)

    asyncio.run(ask())


def test_it_is_what_listeners_need() -> None:
    """The desk fits the listeners' Protocol; mypy checks the same."""
    operations: Operations = Bench().desk
    assert isinstance(operations, Desk)


class TestDesired:
    """A desired state that is pushed."""

    def push(self, bench: Bench, desired: GroupFile = WANTS_2) -> None:
        """Push."""
        asyncio.run(bench.desk.set_desired(desired, ME))

    def test_what_is_pushed_runs(self) -> None:
        """Taken, kept, looked at; the content comes from the repository."""
        bench = Bench(orchestrator="push")
        self.push(bench)
        assert bench.desk.desired() == WANTS_2
        bench.look()
        assert bench.versions() == (2, 0)
        decision = bench.decision()
        assert (decision.source, decision.generation) == ("push", 3)
        report = bench.store.reports()[0]
        assert (report.source, report.generation) == ("push", 3)

    def test_it_outlives_a_restart(self) -> None:
        """The next life carries out what was accepted in this one."""
        bench = Bench(orchestrator="push")
        self.push(bench)
        bench.start()
        bench.look()
        assert bench.versions() == (2, 0)

    def test_content_comes_from_the_inbox_where_nothing_else_is(self) -> None:
        """A board without egress: a slice, then the desired state; then it is removed.

        A doorbell in between does not remove what nobody seems to want yet.
        """
        bench = Bench(repository=False, orchestrator="push")
        bench.inbox.full = True
        asyncio.run(bench.desk.look(ME))
        bench.look()
        assert (bench.inbox.cleared, bench.versions()) == (0, (0, 0))
        self.push(bench)
        bench.look()
        assert (bench.inbox.cleared, bench.versions()) == (1, (2, 0))

    def test_a_slice_that_waited_over_a_restart_is_removed(self) -> None:
        """What the next life installed of it explains it as well as a push does."""
        bench = Bench(repository=False, orchestrator="push")
        bench.inbox.full = True
        self.push(bench, replace(WANTS_2, not_before="2027-01-01T00:00:00Z"))
        bench.look()
        bench.start()
        bench.look(2)
        assert (bench.inbox.cleared, bench.versions()) == (0, (0, 0))
        bench.now = bench.decision().until
        bench.look()
        assert (bench.inbox.cleared, bench.versions()) == (1, (2, 0))

    def test_whose_groups_say_something_else(self) -> None:
        """What a repository assigns to groups counts for nothing here."""
        bench = Bench(orchestrator="push")
        bench.repository.assign(door=("kws", 3))
        self.push(bench)
        bench.look()
        assert bench.versions() == (2, 0)

    @pytest.mark.parametrize("orchestrator", ["tuf", "ddi"])
    def test_35_another_orchestrator(self, orchestrator: str) -> None:
        """A second writer is refused, and nothing is kept of it."""
        bench = Bench(orchestrator=orchestrator)
        assert reason(lambda: bench.desk.set_desired(WANTS_2, ME)) == (
            Reason.NOT_ORCHESTRATOR
        )
        assert bench.desk.desired() is None

    def test_35_generations_do_not_go_back(self) -> None:
        """Lower, or the same with other content: replayed. The same again: taken."""
        bench = Bench(orchestrator="push")
        self.push(bench)
        older = replace(WANTS_2, generation=2)
        other = replace(WANTS_2, paused=True)
        for replayed in (older, other):
            call = partial(bench.desk.set_desired, replayed, ME)
            assert reason(call) == Reason.REPLAYED
        self.push(bench)
        bench.start()
        assert reason(lambda: bench.desk.set_desired(older, ME)) == Reason.REPLAYED
        self.push(bench, replace(other, generation=4))
        assert bench.desk.desired() == replace(other, generation=4)

    def test_no_single_push_uses_the_generations_up(self) -> None:
        """Far above the last, or without room above it: refused, and nothing is kept.

        One numbered by the second, years after the last, is taken.
        """
        bench = Bench(orchestrator="push")
        for generation in (MAX_VERSION, MAX_FIRST + 1):
            wild = replace(WANTS_2, generation=generation)
            call = partial(bench.desk.set_desired, wild, ME)
            assert reason(call) == Reason.REQUEST
        assert bench.desk.desired() is None
        self.push(bench, replace(WANTS_2, generation=1_790_000_000))
        wild = replace(WANTS_2, generation=1_790_000_001 + MAX_STEP)
        assert reason(lambda: bench.desk.set_desired(wild, ME)) == Reason.REQUEST
        self.push(bench, replace(wild, generation=1_790_000_000 + MAX_STEP))

    def test_35_a_generation_that_was_pushed_too_high_is_forgotten(self) -> None:
        """What runs goes on, over a restart, too; then lower generations are heard.

        Also where a rollback held against the high one.
        """
        bench = Bench(orchestrator="push")
        self.push(bench, replace(WANTS_2, generation=1, pipelines=WANTS_1))
        bench.look()
        self.push(bench, replace(WANTS_2, generation=MAX_STEP))
        bench.look()
        roll_back(bench)
        assert bench.versions() == (1, 2)
        asyncio.run(bench.desk.forget_desired(ME))
        asyncio.run(bench.desk.forget_desired(ME))
        for _ in range(2):
            bench.look()
            assert (bench.desk.desired(), bench.versions()) == (None, (1, 2))
            assert bench.decision().state == "unassigned"
            bench.start()
        self.push(bench, replace(WANTS_2, generation=2))
        bench.look()
        assert bench.versions() == (2, 1)

    def test_35_only_what_was_pushed_is_forgotten(self) -> None:
        """Where the fleet decides there is nothing of an operator's to forget."""
        bench = Bench()
        assert reason(lambda: bench.desk.forget_desired(ME)) == Reason.NOT_ORCHESTRATOR

    def test_unknown_pipelines_and_unclear_dates(self) -> None:
        """Whoever pushes is told at once; nothing is kept."""
        bench = Bench(orchestrator="push")
        strange = replace(WANTS_2, pipelines={"gate": Wanted("kws", 2)})
        unclear = replace(WANTS_2, window="noon")
        desk = bench.desk
        assert reason(lambda: desk.set_desired(strange, ME)) == Reason.UNKNOWN_PIPELINE
        assert reason(lambda: desk.set_desired(unclear, ME)) == Reason.REQUEST
        assert desk.desired() is None

    def test_36_it_chooses_among_admissible_versions_only(self) -> None:
        """A push is no way around the version floor."""
        bench = Bench(orchestrator="push")
        for generation, version in enumerate((2, 3), start=1):
            wanted = {"door": Wanted("kws", version)}
            self.push(bench, GroupFile(generation=generation, pipelines=wanted))
            bench.look()
        self.push(bench, GroupFile(generation=9, pipelines={"door": Wanted("kws", 1)}))
        bench.look()
        assert bench.versions() == (3, 2)
        assert bench.decision().reason == Reason.VERSION_FLOOR

    def test_a_note_that_cannot_be_read(self) -> None:
        """What a newer agent wrote is passed over, and the next push replaces it."""
        bench = Bench(orchestrator="push")
        bench.store.save_note("update.desired", b'{"from": "the future"}')
        bench.look()
        assert bench.desk.desired() is None
        self.push(bench)
        bench.look()
        assert bench.versions() == (2, 0)

    def test_a_full_disk_takes_nothing(self) -> None:
        """What cannot be kept is not accepted."""
        bench = Bench(orchestrator="push")

        def full(change: str) -> None:
            if change == "save_note":
                raise FULL

        bench.store.fail = full
        with pytest.raises(DeviceError):
            self.push(bench)
        bench.store.fail = lambda _change: None
        assert bench.desk.desired() is None


class TestRollback:
    """An operator goes back."""

    def test_previous_answers_and_holds(self) -> None:
        """Examined and swapped in, without shadow or probation; then it holds."""
        bench = updated(1, 2)
        bench.trials.calls.clear()
        roll_back(bench)
        assert bench.versions() == (1, 2)
        assert [call[0] for call in bench.trials.calls] == [
            "examine",
            "swap_in",
            "commit",
        ]
        source = "fleet/groups/all"
        assert bench.store.holds() == [Hold("door", source, 2)]
        bench.look(5)
        assert bench.versions() == (1, 2)
        assert bench.decision().reason == Reason.HELD
        assert bench.fetches() == 2
        report = bench.store.reports()[0]
        assert (report.result, report.version, report.source, report.generation) == (
            "committed",
            1,
            source,
            2,
        )
        assert report.detail == "an operator's rollback"

    def test_what_was_left_runs_no_longer_by_the_plan(self) -> None:
        """The decision is made anew at once: nobody has to wait for the next look."""
        bench = updated(1, 2)
        assert bench.decision().state == "runs"
        roll_back(bench)
        decision = bench.decision()
        assert (decision.state, decision.reason) == ("waits", Reason.HELD)

    def test_a_newer_generation_ends_the_hold(self) -> None:
        """The same version, assigned again: somebody decided so after the rollback."""
        bench = updated(1, 2)
        roll_back(bench)
        bench.start()
        bench.look()
        assert bench.versions() == (1, 2)
        bench.update(2)
        assert bench.versions() == (2, 1)
        assert bench.store.holds() == []

    def test_before_the_first_look_of_a_life(self) -> None:
        """Without a network since the start, reports say whom to hold against."""
        bench = updated(1, 2)
        bench.start()
        bench.repository.error = BundleRefusedError("away", reason=Reason.UNREACHABLE)
        roll_back(bench)
        bench.repository.error = None
        bench.look()
        assert bench.versions() == (1, 2)
        assert bench.decision().reason == Reason.HELD

    def test_not_twice(self) -> None:
        """The second of two rollbacks would go forward to what was overruled."""
        bench = updated(1, 2)
        roll_back(bench)
        assert reason(lambda: bench.desk.roll_back("door", ME)) == Reason.NO_PREVIOUS
        assert bench.versions() == (1, 2)

    def test_nothing_to_go_back_to(self) -> None:
        """A first model has no previous one."""
        bench = updated(2)
        assert reason(lambda: bench.desk.roll_back("door", ME)) == Reason.NO_PREVIOUS

    def test_34_a_revoked_previous(self) -> None:
        """What the owner revoked is not gone back to."""
        bench = updated(1, 2)
        bench.repository.revocations = Revocations(bundles=(bench.sha256(1),))
        bench.look()
        assert reason(lambda: bench.desk.roll_back("door", ME)) == Reason.REVOKED

    def test_34_previous_is_revoked_while_it_is_examined(self) -> None:
        """It does not begin to answer; what is active goes on."""
        bench = updated(1, 2)

        async def ask(gate: Gate) -> None:
            await until(lambda: bench.poller.snapshot().next_look > 0)
            await bench.desk.roll_back("door", ME)
            await gate.reached.wait()
            self.revoke(bench, 1)
            bench.poller.poke()
            await until(lambda: bench.poller.snapshot().revoked == 1)
            gate.opened.set()
            await until(lambda: len(bench.store.reports()) == 3)

        beside(bench, ask)
        assert bench.versions() == (2, 1)
        report = bench.store.reports()[0]
        assert (report.result, report.reason) == ("rolled_back", Reason.REVOKED)
        assert ("swap_in", "door", 1) not in bench.trials.calls[5:]

    def test_34_active_is_revoked_and_previous_fails(self) -> None:
        """The pipeline is told at the rollback's end, not a poll later."""
        bench = updated(1, 2)
        bench.trials.errors["examine"] = TrialFailedError("no", reason=Reason.GOLDEN)

        async def ask(gate: Gate) -> None:
            await until(lambda: bench.poller.snapshot().next_look > 0)
            await bench.desk.roll_back("door", ME)
            await gate.reached.wait()
            self.revoke(bench, 2)
            bench.poller.poke()
            await until(lambda: bench.poller.snapshot().revoked == 1)
            assert bench.told == []
            gate.opened.set()
            await until(lambda: bench.told == ["door"])

        beside(bench, ask)
        assert bench.versions() == (1, 0)

    def test_34_previous_is_revoked_when_it_answers_already(self) -> None:
        """COMMIT refuses it, and the active model answers again."""
        bench = updated(1, 2)

        async def ask(gate: Gate) -> None:
            await until(lambda: bench.poller.snapshot().next_look > 0)
            bench.trials.pauses["swap_in"] = bench.trials.pauses.pop("examine")
            await bench.desk.roll_back("door", ME)
            await gate.reached.wait()
            self.revoke(bench, 1)
            bench.poller.poke()
            await until(lambda: bench.poller.snapshot().revoked == 1)
            gate.opened.set()
            await until(lambda: len(bench.store.reports()) == 3)

        beside(bench, ask)
        assert bench.versions() == (2, 1)
        assert bench.store.reports()[0].result == "rolled_back"

    def revoke(self, bench: Bench, version: int) -> None:
        """Revoke a version."""
        digests = (bench.sha256(version),)
        bench.repository.revocations = Revocations(bundles=digests)

    def test_a_previous_that_was_set_aside(self) -> None:
        """What is not tried again is not gone back to either."""
        bench = updated(1, 2)
        bench.store.set_aside(bench.sha256(1), Reason.CRASH_LOOP)
        assert reason(lambda: bench.desk.roll_back("door", ME)) == Reason.NO_PREVIOUS

    def test_which_pipeline(self) -> None:
        """A name that is none, or no name where there are two."""
        desk = updated(1, 2).desk
        assert reason(lambda: desk.roll_back("gate", ME)) == Reason.UNKNOWN_PIPELINE
        assert reason(lambda: desk.roll_back("", ME)) == Reason.REQUEST

    def test_the_only_one_needs_no_name(self) -> None:
        """One pipeline: everybody knows which."""
        bench = updated(1, 2, names=("door",))
        roll_back(bench, "")
        assert bench.versions() == (1, 2)

    def test_bytes_that_rotted(self) -> None:
        """The previous object is damaged: what runs goes on, and the report says so."""
        bench = updated(1, 2)
        bench.store.objects[bench.sha256(1)] = b"rot"
        roll_back(bench)
        assert bench.versions() == (2, 1)
        report = bench.store.reports()[0]
        assert (report.result, report.reason) == ("refused", Reason.DIGEST)

    def test_previous_that_fails_now(self) -> None:
        """The active model answers again, and previous is not blamed for ever."""
        bench = updated(1, 2)
        error = TrialFailedError("died", reason=Reason.CRASH)
        bench.trials.errors["swap_in"] = error
        roll_back(bench)
        assert bench.versions() == (2, 1)
        assert bench.store.all_set_aside() == []
        assert bench.results()["rolled_back", Reason.CRASH] == 1
        bench.start()
        roll_back(bench)
        assert bench.versions() == (1, 2)

    def test_a_repository_that_hangs_does_not_delay_it(self) -> None:
        """A rollback needs nothing from outside, so it waits for nothing there."""
        bench = updated(1, 2)

        async def ask() -> None:
            asked, release = asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()

            def hang() -> None:
                loop.call_soon_threadsafe(asked.set)
                asyncio.run_coroutine_threadsafe(wait(release), loop).result()

            bench.repository.refreshed = hang
            async with running(bench):
                await asked.wait()
                await bench.desk.roll_back("door", ME)
                await until(lambda: bench.versions() == (1, 2))
                release.set()
                await until(lambda: bench.decision().reason == Reason.HELD)

        asyncio.run(ask())
        assert bench.versions() == (1, 2)


async def wait(event: asyncio.Event) -> None:
    """Wait for an event."""
    await event.wait()


def during(
    bench: Bench, where: str, ask: Callable[[Gate], Awaitable[None]], version: int = 2
) -> None:
    """Ask for something while a trial of a version waits at a gate."""

    async def live() -> None:
        gate = Gate()
        bench.trials.pauses[where] = gate
        bench.repository.assign(door=("kws", version))
        async with running(bench):
            await gate.reached.wait()
            await ask(gate)
            gate.opened.set()

    asyncio.run(live())


def beside(bench: Bench, ask: Callable[[Gate], Awaitable[None]]) -> None:
    """Ask while the poller runs; examining waits at a gate."""

    async def live() -> None:
        gate = Gate()
        bench.trials.pauses["examine"] = gate
        async with running(bench):
            await ask(gate)

    asyncio.run(live())


async def refused(call: Awaitable[object]) -> AgentError:
    """Return the error of a request that is refused."""
    with pytest.raises(RequestRefusedError) as caught:
        await call
    return caught.value


class TestTwoAtOnce:
    """An update is under way, or another operator was first."""

    @pytest.mark.parametrize(
        ("where", "phase"), [("examine", "PREFLIGHT"), ("commit", "IDLE")]
    )
    def test_whoever_comes_second_is_told_the_phase(
        self, where: str, phase: str
    ) -> None:
        """Busy, for a look, a rollback and a desired state alike."""
        bench = updated(1, orchestrator="tuf")

        async def ask(_gate: Gate) -> None:
            error = await refused(bench.desk.roll_back("door", ME))
            if where == "commit":  # it is committed, and only the worker not told yet
                assert error.reason in {Reason.BUSY, Reason.NO_PREVIOUS}
                return
            look = await refused(bench.desk.look(ME))
            assert (error.reason, look.reason) == (Reason.BUSY, Reason.BUSY)
            assert phase in str(error)
            assert phase in str(look)

        during(bench, where, ask)

    @pytest.mark.parametrize("where", ["shadow", "watch"])
    def test_another_pipelines_trial_is_not_ours_to_end(self, where: str) -> None:
        """A rollback of the window while the door is on trial: busy."""
        bench = updated(1)

        async def ask(gate: Gate) -> None:
            error = await refused(bench.desk.roll_back("window", ME))
            assert error.reason == Reason.BUSY
            assert gate.reached.is_set()

        during(bench, where, ask)

    def test_two_rollbacks_at_once(self) -> None:
        """One is carried out, the other operator is told; nobody goes forward."""
        bench = updated(1, 2)

        async def ask() -> None:
            async with running(bench):
                await until(lambda: bench.poller.snapshot().next_look > 0)
                await bench.desk.roll_back("door", "ann")
                error = await refused(bench.desk.roll_back("door", "bob"))
                assert error.reason == Reason.BUSY
                await until(lambda: bench.versions() == (1, 2))
                await until(lambda: bench.poller.intake.job is None)

        asyncio.run(ask())
        assert bench.versions() == (1, 2)

    def test_two_desired_states_at_once(self) -> None:
        """The newer one wins, the older one is told that it is."""
        bench = Bench(orchestrator="push")
        newer = replace(WANTS_2, generation=4)
        asyncio.run(bench.desk.set_desired(newer, "ann"))
        assert reason(lambda: bench.desk.set_desired(WANTS_2, "bob")) == Reason.REPLAYED

    def test_a_desired_state_while_bytes_are_examined(self) -> None:
        """One that wants the same leaves the job alone; the same one again is taken."""
        bench = Bench(orchestrator="push")
        asyncio.run(bench.desk.set_desired(WANTS_2, ME))

        async def ask(gate: Gate) -> None:
            newer = replace(WANTS_2, generation=4)
            await bench.desk.set_desired(newer, ME)
            await bench.desk.set_desired(newer, ME)
            assert gate.reached.is_set()
            gate.opened.set()
            await until(lambda: bench.versions() == (2, 0))

        during(bench, "examine", ask)

    def test_another_desired_state_while_bytes_are_examined(self) -> None:
        """One that wants something else ends the job at once; that is tried then."""
        bench = Bench(orchestrator="push")
        asyncio.run(bench.desk.set_desired(WANTS_2, ME))

        async def ask(_gate: Gate) -> None:
            other = replace(WANTS_2, generation=4, pipelines={"door": Wanted("kws", 3)})
            await bench.desk.set_desired(other, ME)
            await until(lambda: len(bench.store.reports()) == 1)

        during(bench, "examine", ask)
        report = bench.store.reports()[-1]
        assert (report.version, report.reason) == (2, Reason.SUPERSEDED)


class TestTrialsThatLast:
    """Operators may end what takes its time."""

    @pytest.mark.parametrize(
        ("where", "result"), [("shadow", "failed"), ("watch", "rolled_back")]
    )
    def test_a_rollback_ends_the_trial(self, where: str, result: str) -> None:
        """The active model goes on; the order is held, over restarts."""
        bench = updated(1)

        async def ask(gate: Gate) -> None:
            await bench.desk.roll_back("door", ME)
            await until(lambda: bench.poller.intake.job is None)
            assert not gate.reached.is_set()

        during(bench, where, ask)
        report = bench.store.reports()[0]
        assert (report.result, report.reason) == (result, Reason.REQUESTED)
        assert (bench.versions(), bench.store.all_set_aside()) == ((1, 0), [])
        bench.start()
        bench.look(5)
        assert (bench.versions(), bench.decision().reason) == ((1, 0), Reason.HELD)
        bench.trials.pauses.clear()
        bench.update(2)
        assert bench.versions() == (2, 1)

    def test_a_first_models_trial(self) -> None:
        """Without an active model to hold on to: refused until something changes."""
        bench = Bench()

        async def ask(_gate: Gate) -> None:
            await bench.desk.roll_back("door", ME)
            await until(lambda: bench.poller.intake.job is None)

        during(bench, "watch", ask)
        bench.look(20)
        assert bench.versions() == (0, 0)
        assert bench.decision().reason == Reason.REQUESTED

    def test_a_full_disk_does_not_keep_it_from_ending(self) -> None:
        """The hold cannot be written: the operator is told, the trial ends."""
        bench = updated(1)

        def full(change: str) -> None:
            if change == "commit":
                raise FULL

        async def ask(_gate: Gate) -> None:
            bench.store.fail = full
            with pytest.raises(DeviceError):
                await bench.desk.roll_back("door", ME)
            await until(lambda: bench.poller.intake.job is None)

        during(bench, "watch", ask)
        assert bench.versions() == (1, 0)

    def test_a_newer_desired_state_takes_its_place(self) -> None:
        """Pushed during a trial that lasts: superseded, and the newer one is tried."""
        bench = Bench(orchestrator="push")
        asyncio.run(bench.desk.set_desired(WANTS_2, ME))

        async def ask(gate: Gate) -> None:
            newer = {"door": Wanted("kws", 3)}
            await bench.desk.set_desired(GroupFile(9, newer), ME)
            await until(lambda: bool(bench.store.reports()))
            gate.opened.set()
            await until(lambda: bench.versions() == (3, 0))

        during(bench, "watch", ask)
        assert [(it.result, it.reason) for it in bench.store.reports()] == [
            ("committed", ""),
            ("rolled_back", Reason.SUPERSEDED),
        ]

    def test_and_its_slice_is_looked_at_before_it_is_tried(self) -> None:
        """A board without egress: the bytes of the newer one came during the trial."""
        bench = Bench(repository=False, orchestrator="push")
        newest = bench.slice.bundles.pop(("kws", 3))
        bench.inbox.full = True
        asyncio.run(bench.desk.set_desired(WANTS_2, ME))

        async def ask(gate: Gate) -> None:
            bench.slice.refreshed = lambda: bench.slice.bundles.setdefault(
                ("kws", 3), newest
            )
            await bench.desk.set_desired(GroupFile(9, {"door": Wanted("kws", 3)}), ME)
            await until(lambda: bool(bench.store.reports()))
            gate.opened.set()
            await until(lambda: bench.inbox.cleared > 0)

        during(bench, "watch", ask)
        assert [(it.version, it.result) for it in bench.store.reports()] == [
            (3, "committed"),
            (2, "rolled_back"),
        ]

    def test_a_doorbell_during_a_trial_outlives_a_look_that_fails(self) -> None:
        """It is looked at in the next look, and no pause is announced before that."""
        bench = Bench()

        async def ask(gate: Gate) -> None:
            looks = partial(bench.repository.calls.count, "refresh")
            heard = looks() + 1
            bench.poller.poke(inbox=True)
            await until(lambda: looks() == heard)
            bad = TrialFailedError("bad", reason=Reason.FAILURES)
            bench.trials.errors["watch"] = bad
            bench.store.unreadable = DeviceError("away", reason=Reason.STATE)
            gate.opened.set()
            await until(lambda: bench.poller.snapshot().next_look > 0)
            assert looks() == heard + 1

        during(bench, "watch", ask)


class TestForgive:
    """Bytes that were set aside get another chance."""

    def test_they_are_tried_again(self) -> None:
        """Without a new order or a restart."""
        bench = Bench()
        bench.trials.errors["examine"] = TrialFailedError("no", reason=Reason.GOLDEN)
        bench.update(2)
        (aside,) = bench.desk.quarantine()
        assert (aside.sha256, aside.reason) == (bench.sha256(2), Reason.GOLDEN)
        asyncio.run(bench.desk.forgive(aside.sha256, ME))
        assert (bench.desk.quarantine(), bench.poller.snapshot().set_aside) == ([], 0)
        bench.look()
        assert bench.versions() == (2, 0)

    def test_others_stay_where_they_are(self) -> None:
        """Forgiving one bundle says nothing about another pipeline's refusal."""
        bench = Bench()
        bench.repository.bundles["kws", 4] = b"no bundle" * 100
        bench.repository.assign(door=("kws", 2), window=("kws", 4))
        bench.trials.errors["examine"] = TrialFailedError("no", reason=Reason.GOLDEN)
        bench.look()
        fetched = bench.fetches()
        asyncio.run(bench.desk.forgive(bench.sha256(2), ME))
        bench.look()
        assert bench.versions("door") == (2, 0)
        assert bench.fetches() == fetched + 1

    def test_who_was_never_set_aside(self) -> None:
        """There is nothing to forgive."""
        bench = updated(2)
        call = bench.desk.forgive
        assert reason(lambda: call(bench.sha256(2), ME)) == Reason.REQUEST


class TestCommission:
    """An operator has a baseline collected anew."""

    def desk(self, bench: Bench, begun: list[str]) -> Desk:
        """Return a desk whose pipelines note what is asked of them."""

        async def begin(pipeline: str) -> None:
            begun.append(pipeline)

        return Desk(bench.settings, bench.store, bench.poller, begin)

    def test_the_pipeline_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        """By its name, or as the only one; with a line that says who asked."""
        begun: list[str] = []
        desk = self.desk(Bench(), begun)
        with caplog.at_level(logging.INFO):
            assert asyncio.run(desk.commission("window", ME)) == "window"
        one = self.desk(Bench(names=("door",)), begun)
        assert asyncio.run(one.commission("", ME)) == "door"
        assert begun == ["window", "door"]
        assert caplog.messages == ["operator.commission"]
        assert (caplog.records[0].operator, caplog.records[0].pipeline) == (  # type: ignore[attr-defined]  # its fields
            ME,
            "window",
        )

    @pytest.mark.parametrize(
        ("pipeline", "why"), [("gate", "unknown_pipeline"), ("", "request")]
    )
    def test_which_pipeline(self, pipeline: str, why: str) -> None:
        """One that is not there, or none of several: nothing begins."""
        begun: list[str] = []
        desk = self.desk(Bench(), begun)
        assert reason(partial(desk.commission, pipeline, ME)) == why
        assert begun == []

    def test_where_nothing_is_watched(self) -> None:
        """A board without monitors says so."""
        assert reason(partial(Bench().desk.commission, "door", ME)) == "unwatched"


class TestDoorbell:
    """Looks that are asked for."""

    def test_51_a_flood_is_one_look(self) -> None:
        """A thousand doorbells in a row cost one look more, a second later."""
        bench = updated(2)
        bench.repository.calls.clear()
        looks: list[float] = []
        bench.repository.refreshed = lambda: looks.append(time.monotonic())

        async def ring() -> None:
            async with running(bench):
                await until(lambda: bench.poller.snapshot().next_look > 0)
                for _ in range(1000):
                    await bench.desk.look(ME)
                await until(lambda: len(bench.repository.calls) > 1)
                await until(lambda: bench.poller.snapshot().next_look > 0)

        asyncio.run(ring())
        assert bench.repository.calls == ["refresh"] * 2
        assert looks[1] - looks[0] > FLOOD_GAP_S * 0.9

    def test_51_a_replayed_doorbell_changes_nothing(self) -> None:
        """It carries nothing: whoever repeats it makes the board look, that is all."""
        bench = updated(1, 2)
        jobs = list(bench.store.jobs)
        for _ in range(5):
            asyncio.run(bench.desk.look("mallory"))
            bench.look()
        assert (bench.versions(), bench.store.jobs) == ((2, 1), jobs)

    def test_it_hurries_nothing_that_is_final(self) -> None:
        """What was refused for good stays refused, however often somebody rings."""
        bench = updated(2)
        bench.update(1)
        for _ in range(5):
            asyncio.run(bench.desk.look(ME))
            bench.look()
        assert bench.results()["refused", Reason.VERSION_FLOOR] == 1


def test_every_change_is_logged_with_its_operator(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line for each request that changes something, and who asked for it."""
    bench = Bench(orchestrator="push")
    bench.trials.errors["examine"] = TrialFailedError("no", reason=Reason.GOLDEN)
    with caplog.at_level(logging.INFO):
        asyncio.run(bench.desk.set_desired(WANTS_2, "ann"))
        bench.look()
        asyncio.run(bench.desk.look("bob"))
        asyncio.run(bench.desk.forgive(bench.sha256(2), "cem"))
        for version in (2, 3):
            wanted = {"door": Wanted("kws", version)}
            desired = GroupFile(generation=version + 7, pipelines=wanted)
            asyncio.run(bench.desk.set_desired(desired, "ann"))
            bench.look()
        asyncio.run(bench.desk.roll_back("door", "dee"))
    lines = [
        (it.getMessage(), it.__dict__["operator"])
        for it in caplog.records
        if it.getMessage().startswith("operator.")
    ]
    assert lines == [
        ("operator.desired", "ann"),
        ("operator.look", "bob"),
        ("operator.forgive", "cem"),
        ("operator.desired", "ann"),
        ("operator.desired", "ann"),
        ("operator.rollback", "dee"),
    ]
    assert BUNDLES
