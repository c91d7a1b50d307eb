"""What a server wants fetched and not yet tried: here early, kept, and fetched once.

Numbers in names are those of the project's list of attacks and faults.
"""

import asyncio
import logging
import threading
from functools import partial

import pytest

from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.targets import Wanted
from agent.trust.bundle import open_bundle
from tests.fakes.ddi_desk import DdiBench
from tests.fakes.lives import PATIENCE_S, running, until
from tests.fakes.memory_store import MemoryStaging, MemoryStore
from tests.fakes.update_bench import BUNDLES

Terms = dict[str, object]
NOT_YET: dict[str, Terms] = {
    "skip": {"update": "skip"},
    "closed": {"window_open": False},
}


def early(**terms: object) -> DdiBench:
    """Return a bench on which a version was fetched, and must not be tried."""
    bench = DdiBench()
    bench.order(1)
    bench.change(**(terms or NOT_YET["skip"]))
    bench.look()
    return bench


@pytest.mark.parametrize("why", NOT_YET)
def test_58_fetched_and_not_tried(why: str) -> None:
    """Verified and here, reported as such; no trial, no report, no phase."""
    bench = early(**NOT_YET[why])
    facts = bench.facts()
    assert (facts.fetched, facts.progress) == (frozenset({"door"}), None)
    assert (bench.trials.calls, bench.endings()) == ([], [])
    assert bench.sha256(1) in bench.store.objects
    shown = bench.decision()
    reason = Reason.SKIPPED if why == "skip" else Reason.WINDOW
    assert (shown.state, shown.reason) == ("waits", reason)


@pytest.mark.parametrize("why", NOT_YET)
def test_58_what_is_here_is_not_fetched_again(why: str) -> None:
    """Once it may be tried the job finds it, also after a restart."""
    bench = early(**NOT_YET[why])
    bench.start()
    asyncio.run(bench.poller.recover())
    bench.look()
    assert bench.facts().fetched == {"door"}
    bench.change(update="forced", window_open=True)
    bench.look()
    assert (bench.versions(), bench.fetches()) == ((1, 0), 1)
    assert bench.facts().fetched == frozenset()


def test_58_no_download_where_none_is_asked_for() -> None:
    """``download=skip``: nothing comes."""
    bench = early(download="skip", update="skip")
    assert (bench.fetches(), bench.facts().fetched) == (0, frozenset())


def test_it_is_kept_from_garbage_collection() -> None:
    """Another pipeline's update ends with a collection: the object stays."""
    bench = early()
    asyncio.run(bench.poller.intake.recover())  # discards what nothing refers to
    assert bench.sha256(1) in bench.store.objects


def test_it_is_rubbish_once_nobody_wants_it() -> None:
    """Orders that come and go fill no disk."""
    bench = early()
    for version in (2, 3):
        bench.order(version, update="skip")
        bench.look()
        assert set(bench.store.objects) == {bench.sha256(version)}
    bench.take_back()
    bench.look()
    assert bench.store.objects == {}


def test_an_interrupted_one_is_resumed() -> None:
    """What a network cut off stays for the next look."""
    bench = DdiBench()
    bench.repository.broken_at = 2500
    bench.order(1, update="skip")
    bench.look()
    assert bench.said() == ("waits", Reason.UNREACHABLE)
    bench.look(2)
    assert bench.facts().fetched == {"door"}
    assert bench.poller.snapshot().bytes["resumed"] == 2048


def test_what_does_not_verify_is_refused() -> None:
    """The server is told at once, not when its window opens; nothing stays."""
    bench = DdiBench()
    bench.repository.fields["kws", 1] = {"hardware": ("jetson",)}
    generation = bench.order(1, update="skip")
    bench.look(3)
    assert bench.said() == ("refused", Reason.HARDWARE)
    assert bench.endings() == [(generation, 1, "refused", Reason.HARDWARE)]
    assert (bench.store.objects, bench.fetches()) == ({}, 0)


def test_other_bytes_than_signed_are_refused() -> None:
    """They may be copied again: it waits, and nothing of them stays."""
    bench = DdiBench()
    bench.repository.spoiled["kws", 1] = BUNDLES["kws", 2]
    bench.order(1, update="skip")
    bench.look()
    assert bench.said()[0] == "waits"
    assert bench.store.objects == {}


def stopped_while_it_comes(bench: DdiBench, *, withdraw: bool) -> None:
    """Take an order back, or let it be tried at once, while it is fetched early."""

    async def live() -> None:
        async with running(bench):
            await until(bench.repository.reached.is_set)
            assert bench.poller.intake.job is None
            bench.repository.slow = False
            if withdraw:
                bench.take_back()
                assert await bench.errands.withdraw(1)
                assert bench.poller.early.order is None
            else:
                bench.change(update="forced")
                bench.errands.look()
                await until(lambda: bench.versions() == (1, 0))

    bench.repository.slow = True
    bench.order(1, update="skip")
    asyncio.run(live())


def test_55_taken_back_while_it_comes() -> None:
    """It ends at once, without a verdict; its bytes may be resumed."""
    bench = DdiBench()
    stopped_while_it_comes(bench, withdraw=True)
    assert (bench.endings(), bench.store.objects) == ([], {})
    assert [len(it[0]) for it in bench.store.parts.values()] == [1024]


def test_it_gives_way_to_its_own_trial() -> None:
    """The server says "now" in the middle: the job goes on with the bytes that came."""
    bench = DdiBench()
    stopped_while_it_comes(bench, withdraw=False)
    assert bench.poller.snapshot().bytes["resumed"] == 1024
    assert bench.endings() == [(1, 1, "committed", "")]


def test_a_note_of_a_newer_agent_costs_a_download() -> None:
    """Nothing else: what it may mean is fetched again."""
    bench = early()
    bench.store.save_note("update.prefetched", b'[{"novel": 1}]')
    bench.look()
    assert bench.poller.early.has(Wanted("kws", 1))


class WatchedStaging(MemoryStaging):
    """Says when its commit begins, and waits for a word there."""

    def __init__(self, store: "WatchedStore", sha256: str, length: int) -> None:
        super().__init__(store, sha256, length)
        self._watched = store

    def commit(self) -> None:
        """Wait for a word, then be there."""
        self._watched.begun.set()
        assert self._watched.going_on.wait(PATIENCE_S)
        super().commit()


class WatchedStore(MemoryStore):
    """A store whose commits wait for a word.

    Attributes:
        begun: Set when one begins; ``going_on`` is what it waits for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.going_on = threading.Event(), threading.Event()

    def stage(self, sha256: str, length: int) -> WatchedStaging:
        """Begin to bring in an object."""
        return WatchedStaging(self, sha256, length)


class StoppingOpener:
    """Opens bundles; so many turns of the loop after each the fetching is stopped."""

    def __init__(self, bench: DdiBench, turns: int) -> None:
        self._bench, self._turns = bench, turns
        self.loop: asyncio.AbstractEventLoop

    def __call__(self, content: memoryview, *, max_bytes: int) -> OpenedBundle:
        """Return the opened bundle."""
        opened = open_bundle(content, max_bytes=max_bytes)
        self.loop.call_soon_threadsafe(self._stop_after, self._turns)
        return opened

    def _stop_after(self, turns: int) -> None:
        """Stop, or wait for another turn."""
        if turns:
            self.loop.call_soon(self._stop_after, turns - 1)
        else:
            self._bench.poller.early.stop()
            # Once more is once, also when the first one has been told.
            self.loop.call_soon(self._bench.poller.early.stop)


class WritingStore(MemoryStore):
    """A store that knows which of its notes were written.

    Attributes:
        written: Keys of notes that got another value.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def save_note(self, key: str, value: bytes) -> None:
        """Write what is new."""
        if self.load_note(key) != value:
            self.written.append(key)
        super().save_note(key, value)


def endings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of ends of early fetching."""
    named = {"update.early", "update.early_stopped"}
    return [it.getMessage() for it in caplog.records if it.getMessage() in named]


@pytest.mark.parametrize("turns", range(8))
def test_stopped_in_the_moment_of_its_verdict(
    turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Either it is committed, or it is stopped and its bytes stay; never in between."""
    caplog.set_level(logging.INFO)
    bench = DdiBench()
    opener = StoppingOpener(bench, turns)
    bench.opener = opener
    bench.start()
    bench.order(1, update="skip")

    async def look() -> None:
        opener.loop = asyncio.get_running_loop()
        await bench.poller.look()

    asyncio.run(look())
    kept = [len(it[0]) for it in bench.store.parts.values()]
    whole = len(BUNDLES["kws", 1])
    assert "asyncio" not in {
        it.name for it in caplog.records if it.levelno > logging.INFO
    }
    outcome = (endings(caplog), list(bench.store.objects), kept)
    assert outcome in (
        (["update.early"], [bench.sha256(1)], []),
        (["update.early_stopped"], [], [whole]),
    )
    bench.opener = open_bundle
    bench.start()
    bench.look()
    assert bench.facts().fetched == {"door"}
    assert bench.store.parts == {}


def test_what_is_being_committed_is_not_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its file is not closed under the thread that syncs it."""
    caplog.set_level(logging.INFO)
    bench = DdiBench()
    store = bench.store = WatchedStore()
    bench.start()
    bench.order(1, update="skip")

    async def live() -> None:
        async with running(bench):
            await until(store.begun.is_set)
            bench.poller.poke()
            await asyncio.sleep(0)
            assert bench.poller.early.order is not None
            store.going_on.set()
            await until(lambda: bench.poller.early.order is None)

    asyncio.run(live())
    assert endings(caplog) == ["update.early"]


def two_orders(bench: DdiBench) -> None:
    """Save an order of two versions, for a window that is closed."""
    bench.order(2, window_open=False)
    pipelines = {"door": Wanted("kws", 2), "window": Wanted("kws", 3)}
    bench.change(pipelines=pipelines)


@pytest.mark.parametrize("share", [1.5, 0.5])
def test_no_early_bundle_takes_the_room_of_another(share: float) -> None:
    """There is room for one, or none: it is fetched once, and the other one waits."""
    bench = DdiBench()
    bench.store.quota_bytes = int(share * len(BUNDLES["kws", 2]))
    two_orders(bench)
    bench.look(6)
    fits = share > 1
    assert bench.fetches() == fits
    assert bench.facts().fetched == ({"door"} if fits else set())
    assert bench.said("window") == ("waits", Reason.QUOTA)
    bench.change(window_open=True)
    bench.look(8)
    if fits:
        assert bench.versions() == (2, 0)
    assert bench.fetches() == fits  # no room beside the one that runs, or at all


def test_a_trial_may_take_the_room() -> None:
    """What may begin goes before what may only be fetched."""
    bench = DdiBench()
    bench.store.quota_bytes = int(1.5 * len(BUNDLES["kws", 2]))
    bench.order(2, window_open=False)
    bench.look()
    assert list(bench.store.objects) == [bench.sha256(2)]
    bench.store.make_room(len(BUNDLES["kws", 3]))  # as a job does
    assert list(bench.store.objects) == []


def test_looks_with_nothing_new_write_nothing() -> None:
    """Two bundles lie here: their note stays as it is."""
    bench = DdiBench()
    store = bench.store = WritingStore()
    bench.start()
    two_orders(bench)
    bench.look(2)
    assert set(store.objects) == {bench.sha256(2), bench.sha256(3)}
    store.written.clear()
    bench.look(3)
    assert store.written == []


def looked_since(bench: DdiBench, seen: int) -> bool:
    """Whether the repository was looked at more often than so many times."""
    return bench.repository.calls.count("refresh") > seen


@pytest.mark.parametrize("poked", [True, False])
def test_looks_go_on_while_it_comes(*, poked: bool) -> None:
    """A poke, or the period, ends it for a look; each brings it further."""
    bench = DdiBench(poll_s=100.0 if poked else 0.05)
    bench.repository.slow = True
    bench.order(1, update="skip")

    async def live() -> None:
        async with running(bench):
            for _ in range(2):
                await until(bench.repository.reached.is_set)
                bench.repository.reached.clear()
                seen = bench.repository.calls.count("refresh")
                if poked:
                    bench.poller.poke()
                await until(partial(looked_since, bench, seen))
            bench.repository.slow = False
            bench.repository.released.set()
            await until(lambda: bench.poller.early.has(Wanted("kws", 1)))

    asyncio.run(live())
    assert bench.poller.snapshot().bytes["resumed"] >= 1024
