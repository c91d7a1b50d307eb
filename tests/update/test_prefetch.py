"""What a server wants fetched and not yet tried: here early, kept, and fetched once.

Numbers in names are those of the project's list of attacks and faults.
"""

import asyncio

import pytest

from agent.core.reasons import Reason
from agent.core.targets import Wanted
from tests.fakes.ddi_desk import DdiBench
from tests.fakes.lives import running, until
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
