"""The machine's side of DDI: orders like any others, taken back at whatever moment.

Numbers in names are those of the project's list of attacks and faults.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from agent.core.ddi import SOURCE, Record
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.targets import Wanted
from agent.core.update_machine import Job
from agent.core.updates import Hold, Report
from agent.errors import BundleRefusedError, DeviceError
from agent.trust.bundle import open_bundle
from agent.update.ddi_state import NOTE, DdiState
from tests.fakes.ddi_desk import DdiBench
from tests.fakes.lives import Gate, running, until
from tests.fakes.memory_store import MemoryStaging, MemoryStore
from tests.fakes.stored import installed

TRIALS = ["examine", "shadow", "swap_in", "watch"]
CUT = BundleRefusedError("no route", reason=Reason.UNREACHABLE)


class TestOrders:
    """What a server wants, and what it is told came of it."""

    def test_an_order_is_carried_out(self) -> None:
        """It goes the way of all desired states, under a generation of its own."""
        bench = DdiBench()
        generation = bench.order(1)
        assert bench.said() == ("ordered", "")
        bench.look()
        facts = bench.facts()
        assert bench.versions() == (1, 0)
        assert [(it.source, it.generation) for it in facts.reports] == [
            ("ddi", generation)
        ]
        assert (facts.decisions[0].state, facts.models["door"]) == ("runs", "kws")

    def test_groups_are_not_read(self) -> None:
        """A signed group file says nothing to a board that a server orders about."""
        bench = DdiBench()
        bench.repository.assign(door=("kws", 2))
        bench.look()
        assert (bench.versions(), bench.decision().state) == ((0, 0), "unassigned")

    def test_a_push_is_not_for_this_board(self) -> None:
        """Exactly one writes the desired state; the doorbell only makes it look."""
        bench = DdiBench()
        with pytest.raises(Exception, match="let ddi write") as caught:
            asyncio.run(bench.desk.forget_desired("ann"))
        assert getattr(caught.value, "reason", "") == Reason.NOT_ORCHESTRATOR
        bench.order(1)

        async def ring() -> None:
            async with running(bench):
                await until(lambda: bench.poller.snapshot().next_look > 0)
                await bench.desk.look("ann")
                await until(lambda: bench.versions() == (1, 0))

        asyncio.run(ring())

    def test_a_refusal_is_told_with_its_reason(self) -> None:
        """What nobody signed is refused, and reported under the order's generation."""
        bench = DdiBench()
        generation = bench.order(9)
        bench.look()
        assert bench.said()[1] == Reason.MISSING_TARGET
        assert bench.endings() == [(generation, 9, "refused", Reason.MISSING_TARGET)]

    def test_a_repository_out_of_reach_is_why_an_order_waits(self) -> None:
        """It may pass: the client counts how often it did not."""
        bench = DdiBench()
        bench.repository.error = CUT
        bench.order(1)
        bench.look()
        assert bench.said() == ("waits", Reason.UNREACHABLE)
        bench.repository.error = None
        bench.look()
        assert bench.said() == ("runs", "")

    def test_an_unreadable_note_orders_nothing(self) -> None:
        """Of a newer agent perhaps: what runs goes on."""
        bench = DdiBench()
        bench.order(1)
        bench.look()
        bench.store.save_note(NOTE, b'{"generation": 2, "novel": true}')
        bench.look()
        assert bench.kept.load() == Record(generation=1)
        assert (bench.versions(), bench.said()[0]) == ((1, 0), "unassigned")

    @pytest.mark.parametrize("raw", [None, b"", b"{", b'{"novel": 1}'])
    @pytest.mark.parametrize("kept", ["report", "hold", "job"])
    def test_old_ends_answer_for_no_new_order(
        self, raw: bytes | None, kept: str
    ) -> None:
        """A note that is lost: the next order is above all that is remembered."""
        store = MemoryStore()
        if kept == "report":
            store.add_report(Report(1, "door", "kws", 1, "", SOURCE, 7, "committed"))
            store.add_report(Report(2, "door", "kws", 1, "", "push", 99, "refused"))
        elif kept == "hold":
            store.commit("door", installed(1), hold=Hold("door", SOURCE, 7))
        else:
            store.save_job(Job("door", "kws", 1, "", source=SOURCE, generation=7))
        if raw is not None:
            store.save_note(NOTE, raw)
        assert DdiState(store).load() == Record(generation=7)

    def test_a_new_board_knows_of_no_order(self) -> None:
        """Nothing to be above of: what the server says it ran is adopted."""
        assert DdiState(MemoryStore()).load() == Record()

    def test_what_another_orchestrator_brought_stays(self) -> None:
        """From ddi to tuf and back: no old order takes the newer version away."""
        bench = DdiBench()
        runs = {"door": Wanted("kws", 1), "window": Wanted("kws", 1)}
        bench.kept.save(Record(generation=3, runs=runs))
        bench.look()
        assert bench.versions() == (1, 0)
        table = bench.settings.update
        bench.settings = replace(
            bench.settings, update=replace(table, orchestrator="tuf")
        )
        bench.repository.assign(door=("kws", 2))
        bench.start()
        bench.look()
        bench.settings = replace(bench.settings, update=table)
        bench.start()
        bench.look(2)
        assert (bench.versions(), bench.versions("window")) == ((2, 1), (1, 0))
        assert bench.kept.load() == Record(generation=3, runs={"window": runs["door"]})

    @pytest.mark.parametrize("factory", [True, False])
    def test_a_factory_model_is_nobodys_order(self, *, factory: bool) -> None:
        """It came because what was brought had been lost: that is wanted again."""
        store = MemoryStore()
        report = Report(1, "door", "kws", 2, installed(2).sha256, "x", 1, "committed")
        store.commit("door", installed(2), report, factory=factory)
        record = Record(generation=3, runs={"door": Wanted("kws", 1)})
        DdiState(store).save(record)
        assert (DdiState(store).load() == record) is factory

    def test_an_operators_rollback_is_held_against_the_order(self) -> None:
        """The server's word stands until it says something newer."""
        bench = DdiBench()
        bench.order(1)
        bench.look()
        bench.order(2)
        bench.look()

        async def back() -> None:
            async with running(bench):
                await until(lambda: bench.poller.snapshot().next_look > 0)
                await bench.desk.roll_back("door", "ann")
                await until(lambda: bench.versions() == (1, 2))
                await until(lambda: bench.poller.intake.job is None)

        asyncio.run(back())
        assert bench.said() == ("waits", Reason.HELD)
        assert bench.store.holds() == [Hold("door", "ddi", 2)]


def interrupted(
    bench: DdiBench,
    reached: Callable[[], Awaitable[object]],
    then: Callable[[], Awaitable[None]],
) -> None:
    """Let something happen once an update under way has come somewhere."""

    async def live() -> None:
        async with running(bench):
            bench.errands.look()
            await reached()
            await then()

    asyncio.run(live())


def slow(bench: DdiBench) -> Callable[[], Awaitable[None]]:
    """Let downloads wait after their first block; return what waits for that."""
    bench.repository.slow = True
    return lambda: until(bench.repository.reached.is_set)


def at_gate(bench: DdiBench, where: str) -> Callable[[], Awaitable[object]]:
    """Let a trial wait; return what waits for that."""
    gate = Gate()
    bench.trials.pauses[where] = gate
    return gate.reached.wait


class SlowOpener:
    """Opens bundles once it is let to; satisfies ``agent.update.needs.Opener``."""

    def __init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self, content: memoryview, *, max_bytes: int) -> OpenedBundle:
        """Wait, and open."""
        self.reached.set()
        self.released.wait(20)
        return open_bundle(content, max_bytes=max_bytes)


class TestWithdrawn:
    """55: an order is taken back before, during and after everything."""

    def test_55_before_it_began(self) -> None:
        """Nothing was under way, and nothing of it ever will be."""
        bench = DdiBench()
        generation = bench.order(1)
        bench.take_back()
        assert asyncio.run(bench.errands.withdraw(generation))
        bench.look()
        assert (bench.versions(), bench.endings(), bench.fetches()) == ((0, 0), [], 0)

    def test_55_while_its_target_is_looked_for(self) -> None:
        """The look that had planned it already begins nothing."""
        bench = DdiBench()
        generation = bench.order(1)
        asked, answered = threading.Event(), threading.Event()
        find = bench.repository.find

        def hesitate(model: str, version: int) -> object:
            asked.set()
            answered.wait(20)
            return find(model, version)

        vars(bench.repository)["find"] = hesitate

        async def cancel() -> None:
            bench.take_back()
            async with asyncio.TaskGroup() as group:
                withdrawn = group.create_task(bench.errands.withdraw(generation))
                await asyncio.sleep(0)
                answered.set()
            assert withdrawn.result()
            await until(lambda: bench.poller.snapshot().next_look > 0)

        interrupted(bench, lambda: until(asked.is_set), cancel)
        assert (bench.versions(), bench.endings(), bench.fetches()) == ((0, 0), [], 0)

    def test_55_during_the_download(self) -> None:
        """It ends at once; the bytes that came are resumed by the next order."""
        bench = DdiBench()
        reached = slow(bench)
        generation = bench.order(1)

        async def cancel() -> None:
            bench.take_back()
            assert await bench.errands.withdraw(generation)
            assert bench.poller.intake.job is None

        interrupted(bench, reached, cancel)
        assert bench.endings() == [(generation, 1, "failed", Reason.CANCELED)]
        assert [len(it[0]) for it in bench.store.parts.values()] == [1024]
        bench.repository.slow = False
        bench.order(1)
        bench.look()
        assert bench.versions() == (1, 0)
        assert bench.poller.snapshot().bytes["resumed"] == 1024

    def test_55_while_it_is_verified(self) -> None:
        """Nothing of it is opened for the trial any more."""
        bench = DdiBench()
        opener = bench.opener = SlowOpener()
        bench.start()
        generation = bench.order(1)

        async def cancel() -> None:
            bench.take_back()
            async with asyncio.TaskGroup() as group:
                withdrawn = group.create_task(bench.errands.withdraw(generation))
                await asyncio.sleep(0)
                opener.released.set()
            assert withdrawn.result()

        interrupted(bench, lambda: until(opener.reached.is_set), cancel)
        assert bench.endings() == [(generation, 1, "failed", Reason.CANCELED)]
        assert bench.trials.calls == []

    def test_55_while_it_is_made_durable(self) -> None:
        """The file is finished; the trial does not begin, and the object is rubbish."""
        bench = DdiBench()
        generation = bench.order(1)
        reached, released = threading.Event(), threading.Event()
        stage = bench.store.stage

        def staging(sha256: str, length: int) -> MemoryStaging:
            made = stage(sha256, length)
            commit = made.commit

            def hesitate() -> None:
                reached.set()
                released.wait(20)
                commit()

            vars(made)["commit"] = hesitate
            return made

        vars(bench.store)["stage"] = staging

        async def cancel() -> None:
            bench.take_back()
            async with asyncio.TaskGroup() as group:
                withdrawn = group.create_task(bench.errands.withdraw(generation))
                for _ in range(5):
                    await asyncio.sleep(0)
                assert not withdrawn.done()
                released.set()
            assert withdrawn.result()

        interrupted(bench, lambda: until(reached.is_set), cancel)
        assert bench.endings() == [(generation, 1, "failed", Reason.CANCELED)]
        assert (bench.trials.calls, bench.store.objects) == ([], {})

    @pytest.mark.parametrize("where", TRIALS)
    def test_55_during_the_trial(self, where: str) -> None:
        """The active model answers again; one verdict, no blame on the bytes."""
        bench = DdiBench()
        bench.order(1)
        bench.look()
        generation = bench.order(2)
        reached = at_gate(bench, where)

        async def cancel() -> None:
            bench.take_back()
            assert await bench.errands.withdraw(generation)
            assert bench.poller.intake.job is None

        interrupted(bench, reached, cancel)
        result = "rolled_back" if where in {"swap_in", "watch"} else "failed"
        assert bench.endings()[0] == (generation, 2, result, Reason.CANCELED)
        assert (bench.versions(), len(bench.endings())) == ((1, 0), 2)
        assert bench.store.all_set_aside() == []

    def test_55_after_the_commit(self) -> None:
        """Too late, also in the moment in which only the worker was not told yet."""
        bench = DdiBench()
        generation = bench.order(1)
        reached = at_gate(bench, "commit")

        async def cancel() -> None:
            assert not await bench.errands.withdraw(generation)

        interrupted(bench, reached, cancel)
        assert asyncio.run(bench.errands.withdraw(generation)) is False
        assert bench.endings() == [(generation, 1, "committed", "")]

    def test_55_one_pipeline_committed_one_on_trial(self) -> None:
        """Part of it is durable: said so, and the rest has ended."""
        bench = DdiBench()
        generation = bench.order(1, pipelines=("door", "window"))
        bench.trials.pauses["watch"] = gate = Gate()

        async def reached() -> None:
            await gate.reached.wait()
            bench.trials.pauses["watch"] = second = Gate()
            gate.opened.set()
            await second.reached.wait()

        async def cancel() -> None:
            assert not await bench.errands.withdraw(generation)
            assert bench.poller.intake.job is None

        interrupted(bench, reached, cancel)
        assert (bench.versions("door"), bench.versions("window")) == ((1, 0), (0, 0))

    def test_55_another_orders_trial_goes_on(self) -> None:
        """Who takes back an order that is not under way ends nobody else's."""
        bench = DdiBench()
        earlier = bench.order(1)
        bench.look()
        bench.order(2)
        gate = Gate()
        bench.trials.pauses["watch"] = gate

        async def cancel() -> None:
            assert not await bench.errands.withdraw(earlier)
            assert gate.reached.is_set()
            gate.opened.set()
            await until(lambda: bench.versions() == (2, 1))

        interrupted(bench, gate.reached.wait, cancel)

    def test_an_operators_rollback_is_nobody_elses_to_take_back(self) -> None:
        """It overrules the order, and is not the order."""
        bench = DdiBench()
        bench.order(1)
        bench.look()
        generation = bench.order(2)
        bench.look()
        gate = Gate()

        async def back() -> None:
            async with running(bench):
                await until(lambda: bench.poller.snapshot().next_look > 0)
                bench.trials.pauses["swap_in"] = gate
                await bench.desk.roll_back("door", "ann")
                await gate.reached.wait()
                await bench.errands.withdraw(generation)
                assert gate.reached.is_set()
                gate.opened.set()
                await until(lambda: bench.versions() == (1, 2))

        asyncio.run(back())


class TestReplaced:
    """56: another order comes while the first one is under way."""

    @pytest.mark.parametrize("where", ["download", *TRIALS])
    def test_56_the_newer_order_wins(self, where: str) -> None:
        """What is under way ends at once, whatever it does; the newer one is tried."""
        bench = DdiBench(poll_s=1000.0)
        reached = slow(bench) if where == "download" else at_gate(bench, where)
        bench.order(1)

        async def exchange() -> None:
            # Only what waits already goes on to wait.
            bench.repository.slow = False
            bench.trials.pauses.clear()
            bench.order(2)
            bench.errands.look()
            await until(lambda: bench.versions() == (2, 0))

        interrupted(bench, reached, exchange)
        first = bench.endings()[-1]
        assert (first[:2], first[3]) == ((1, 1), Reason.SUPERSEDED)

    def test_the_same_again_under_another_number_goes_on(self) -> None:
        """The bytes under way are the wanted ones: nothing is fetched twice."""
        bench = DdiBench()
        reached = slow(bench)
        bench.order(1)

        async def renew() -> None:
            bench.order(1)
            bench.errands.look()
            bench.repository.released.set()
            await until(lambda: bench.versions() == (1, 0))
            await until(lambda: bench.poller.intake.job is None)

        interrupted(bench, reached, renew)
        assert (bench.fetches(), bench.said()) == (1, ("runs", ""))


class TestPowerCuts:
    """59: the commit and its report are one transaction."""

    def test_59_between_the_commit_and_its_telling(self) -> None:
        """The next life finds the report of its generation, and installs nothing."""
        bench = DdiBench()
        generation = bench.order(1)

        async def pull_the_plug() -> None:
            assert bench.versions() == (1, 0)

        interrupted(bench, at_gate(bench, "commit"), pull_the_plug)
        bench.trials.pauses.clear()
        bench.start()
        asyncio.run(bench.poller.recover())
        (report,) = bench.facts().reports
        assert (report.generation, report.result) == (generation, "committed")
        bench.look(3)
        assert (bench.fetches(), len(bench.endings())) == (1, 1)

    def test_59_in_the_middle_of_a_trial(self) -> None:
        """Power loss is the rollback: reported as interrupted, and tried again."""
        bench = DdiBench()
        generation = bench.order(1)
        reached = at_gate(bench, "watch")

        async def pull_the_plug() -> None:
            saved.append(bench.store.load_job())

        saved: list[object] = []
        interrupted(bench, reached, pull_the_plug)
        bench.trials.pauses.clear()
        bench.start()
        asyncio.run(bench.poller.recover())
        assert bench.endings()[-1][:3] == (generation, 1, "interrupted")
        bench.look()
        assert bench.endings()[0] == (generation, 1, "committed", "")


class TestOpinions:
    """What is asked before anything begins."""

    def ask(self, bench: DdiBench, model: str, version: int) -> str:
        """Return why a version is not admissible, or an empty string."""

        async def ask() -> str:
            try:
                await bench.errands.admissible(Wanted(model, version))
            except (BundleRefusedError, DeviceError) as err:
                return str(err.reason)
            return ""

        return asyncio.run(ask())

    def test_35_what_a_server_may_choose(self) -> None:
        """Signed, for this board, not below the floor: anything else is refused."""
        bench = DdiBench()
        assert self.ask(bench, "kws", 1) == Reason.STARTING
        bench.order(2)
        bench.look()
        assert [self.ask(bench, "kws", it) for it in (1, 2, 3, 4)] == [
            *(Reason.VERSION_FLOOR, "", "", Reason.MISSING_TARGET)
        ]
        assert self.ask(bench, "person", 1) == Reason.MISMATCH
        bench.repository.fields["kws", 3] = {"hardware": ("jetson",)}
        assert self.ask(bench, "kws", 3) == Reason.HARDWARE
        assert bench.fetches() == 1

    def test_nothing_can_be_said_without_a_repository(self) -> None:
        """That is no refusal: it may pass."""
        bench = DdiBench()
        bench.repository.error = CUT
        bench.look()
        assert self.ask(bench, "kws", 1) == Reason.UNREACHABLE

    def test_what_the_server_may_know(self) -> None:
        """Short words about the board and its models, and no more."""
        bench = DdiBench()
        bench.board = replace(bench.board, hardware=("x" * 1000, "aarch64"))
        bench.order(1)
        bench.look()
        known = bench.errands.identify()
        assert known["model.door"] == "kws 1"
        assert known["model.window"] == "none"
        assert (known["id"], known["board_model"]) == ("board-1", "Pi 4")
        assert max(map(len, known.values())) == 128
        assert all(known.values())

    def test_a_hot_board_says_so(self) -> None:
        """The client holds what the server leaves to this board."""
        bench = DdiBench()
        bench.unfit = Reason.HEAT
        assert bench.facts().battery_or_heat == Reason.HEAT
