"""Sealed bundles in the update machine: which envelope is asked for, kept, renewed."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.installed import Installed
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError
from tests.fakes.bundles import good_bundle
from tests.fakes.ddi_desk import DdiBench
from tests.fakes.scripted_repository import ScriptedRepository
from tests.fakes.scripted_unsealer import envelope, seal
from tests.fakes.update_bench import BUNDLES, Bench

BOARD = "board-1"
ME = ("kws", 1, BOARD)
RIGHT = envelope(BOARD, 1)


class SealedBench(Bench):
    """A board whose fleet seals; ``kws`` 1 is wanted."""

    def __init__(self, *sealed: int) -> None:
        super().__init__()
        self.repository.bundles = dict(BUNDLES)
        self.slice.bundles = dict(BUNDLES)
        self.digests = {it: seal(self.repository, it, good_bundle(it)) for it in sealed}
        for version in sealed:
            seal(self.slice, version, good_bundle(version))
        self.repository.assign(door=("kws", 1))

    def give(self, content: bytes, version: int = 1) -> None:
        """Let the repository have an envelope for this board."""
        self.repository.envelopes["kws", version, BOARD] = content

    def asked(self) -> int:
        """Return how often an envelope was asked for."""
        return sum(call.startswith("envelope") for call in self.repository.calls)

    def reasons(self) -> set[str]:
        """Return the reasons of what did not end well."""
        return {reason for _, reason in self.results() if reason}


def test_a_sealed_version_is_committed_with_what_opens_it() -> None:
    """The envelope is kept beside the object; how to open it stands in the row."""
    bench = SealedBench(1)
    bench.give(RIGHT)
    bench.look()
    active = bench.store.slots("door").active
    assert active is not None
    assert active.sealed is not None
    assert (active.sha256, active.size) == (
        bench.digests[1],
        len(bench.repository.bundles["kws", 1]),
    )
    assert active.sealed.plain_bytes == len(good_bundle(1))
    assert bench.store.envelopes == {active.sha256: RIGHT}


def test_what_is_not_sealed_asks_for_no_envelope() -> None:
    """Nor is anything kept: old fleets notice nothing."""
    bench = SealedBench()
    bench.look()
    active = bench.store.slots("door").active
    assert (bench.versions(), bench.asked(), bench.store.envelopes) == ((1, 0), 0, {})
    assert active is not None
    assert active.sealed is None


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, "envelope"),
        (envelope("board-2", 1), "envelope"),
        (envelope(BOARD, 2), "envelope"),
        (envelope(BOARD, 1, key="old"), "envelope"),
        (BundleRefusedError("away", reason=Reason.UNREACHABLE), "unreachable"),
        (DeviceError("ours", reason=Reason.CERTIFICATE), "certificate"),
    ],
)
def test_without_an_envelope_nothing_is_fetched(found: object, reason: str) -> None:
    """It is refused with its reason before the bundle's first byte."""
    bench = SealedBench(1)
    if isinstance(found, bytes | BundleRefusedError | DeviceError):
        bench.repository.envelopes[ME] = found
    bench.look()
    assert (bench.reasons(), bench.fetches(), bench.versions()) == ({reason}, 0, (0, 0))
    assert bench.store.envelopes == {}


def test_a_board_without_a_key_says_so_and_tries_again() -> None:
    """Whoever mends the key has no other order to give."""
    bench = SealedBench(1)
    bench.give(RIGHT)
    bench.unsealer.key = ""
    bench.look()
    assert (bench.reasons(), bench.fetches()) == ({"seal_key"}, 0)
    bench.unsealer.key = "key"
    bench.look(2)
    assert bench.versions() == (1, 0)


def test_an_envelope_that_comes_later_is_found() -> None:
    """Nothing signed changes: it is looked for again all the same."""
    bench = SealedBench(1)
    bench.look()
    bench.give(RIGHT)
    bench.look(2)
    assert bench.versions() == (1, 0)


def test_the_slice_may_lack_what_the_fleet_has() -> None:
    """Sources are asked in their order, for envelopes as for bundles."""
    bench = SealedBench(1)
    bench.inbox.full = True
    bench.slice.assign(door=("kws", 1))
    bench.slice.envelopes[ME] = envelope("board-2", 1)
    bench.give(RIGHT)
    bench.look()
    assert (bench.versions(), bench.store.envelopes[bench.digests[1]]) == (
        (1, 0),
        RIGHT,
    )


def test_a_wrong_content_key_is_not_the_end() -> None:
    """A mirror's envelope opens, and opens other bytes: the next source is asked."""
    bench = SealedBench(1)
    bench.inbox.full = True
    bench.slice.assign(door=("kws", 1))
    bench.slice.envelopes[ME] = envelope(BOARD, 1, content="other")
    bench.give(RIGHT)
    bench.look()
    assert (bench.versions(), bench.unsealer.opens) == ((1, 0), 2)


def test_nothing_is_set_aside_for_an_envelope() -> None:
    """They are unsigned: whoever can write them must not take a version away."""
    bench = SealedBench(1)
    bench.give(envelope(BOARD, 1, content="other"))
    bench.look(8)
    assert bench.reasons() == {"unseal"}
    assert bench.store.all_set_aside() == []
    bench.give(RIGHT)
    bench.poller.poke()
    bench.poller.intake.ledger.memory.hurry()
    bench.look()
    assert bench.versions() == (1, 0)


def test_a_rollback_opens_what_is_kept() -> None:
    """No repository is asked; where the kept one is gone, the active model stays."""
    bench = SealedBench(1, 2)
    bench.give(RIGHT)
    bench.give(envelope(BOARD, 2), 2)
    bench.look()
    bench.update(2)
    asked = bench.asked()
    assert asyncio.run(bench.poller.intake.roll_back("door", "test", 1))
    assert (bench.versions(), bench.asked()) == ((1, 2), asked)
    del bench.store.envelopes[bench.digests[2]]
    assert not asyncio.run(bench.poller.intake.roll_back("door", "test", 1))
    assert bench.versions() == (1, 2)


def test_no_delta_is_looked_for() -> None:
    """Two ciphertexts have nothing in common."""
    bench = SealedBench(1)
    bench.give(RIGHT)
    bench.repository.undelta = AssertionError  # type: ignore[assignment] # never asked
    bench.look()
    assert bench.versions() == (1, 0)


def test_an_interrupted_commit_needs_its_envelope() -> None:
    """The next life finishes it only where both lie here."""
    for kept in (True, False):
        bench = SealedBench(1)
        bench.give(RIGHT)
        bench.look()
        (saved,) = [
            job for job in bench.store.jobs if job and job.phase == "COMMITTING"
        ]
        store = bench.store
        store.jobs.append(saved)
        if not kept:
            store.envelopes.clear()
        bench.start()
        asyncio.run(bench.poller.recover())
        results = {result for result, _ in bench.results()}
        assert results == ({"committed"} if kept else {"rolled_back"})


def test_collecting_takes_the_envelope_along() -> None:
    """It lives as long as its object."""
    bench = SealedBench(1, 2, 3)
    for version in (1, 2, 3):
        bench.give(envelope(BOARD, version), version)
        bench.update(version)
    assert set(bench.store.envelopes) == {bench.digests[2], bench.digests[3]}


# --- renewed


def committed(bench: SealedBench) -> Installed:
    """Commit version 1, and let the daemon say that nothing opens it."""
    bench.give(RIGHT)
    bench.look()
    active = bench.store.slots("door").active
    assert active is not None
    bench.unopened = {"door": active}
    return active


def test_a_new_key_gets_a_new_envelope() -> None:
    """It replaces the kept one once it has opened the object, and not before."""
    bench = SealedBench(1)
    active = committed(bench)
    bench.unsealer.key = "new"
    for useless in (RIGHT, envelope(BOARD, 1, "new", "other"), b"-"):
        bench.give(useless)
        bench.look()
        assert (bench.store.envelopes, bench.told) == ({active.sha256: RIGHT}, [])
    renewed = envelope(BOARD, 1, "new")
    bench.give(renewed)
    bench.look()
    assert (bench.store.envelopes, bench.told) == ({active.sha256: renewed}, ["door"])


def test_who_is_well_asks_for_nothing() -> None:
    """A fleet of boards that run does not ask for envelopes at every look."""
    bench = SealedBench(1)
    bench.give(RIGHT)
    bench.look(3)
    assert bench.asked() == 1


@given(
    st.lists(
        st.sampled_from(
            [RIGHT, envelope("board-2", 1), envelope(BOARD, 1, "old"), None]
        ),
        max_size=2,
    )
)
def test_whatever_the_sources_hold(found: list[bytes | None]) -> None:
    """It is committed exactly where one of them has the right envelope, and kept so."""
    bench = SealedBench(1)
    bench.inbox.full = True
    bench.slice.assign(door=("kws", 1))
    sources: list[ScriptedRepository] = [bench.slice, bench.repository]
    for source, content in zip(sources, found, strict=False):
        if content is not None:
            source.envelopes[ME] = content
    bench.look()
    right = RIGHT in found
    assert bench.versions() == ((1, 0) if right else (0, 0))
    assert set(bench.store.envelopes.values()) == ({RIGHT} if right else set())


# --- fetched early


def early(bench: DdiBench) -> None:
    """Let a server want version 1 fetched and not tried."""
    seal(bench.repository, 1, good_bundle(1))
    bench.order(1)
    bench.change(update="skip")
    bench.look()


def test_what_is_fetched_early_is_opened_and_keeps_its_envelope() -> None:
    """The job that comes later needs no network: neither bundle nor envelope."""
    bench = DdiBench()
    bench.repository.envelopes[ME] = RIGHT
    early(bench)
    assert (bench.fetches(), bench.trials.calls) == (1, [])
    assert list(bench.store.envelopes.values()) == [RIGHT]
    asyncio.run(bench.poller.intake.recover())  # discards what nothing refers to
    bench.repository.envelopes.clear()
    bench.change(update="forced")
    bench.look()
    assert (bench.versions(), bench.fetches()) == ((1, 0), 1)


def test_nothing_is_fetched_early_that_does_not_open() -> None:
    """The server is told at once, not when its window opens."""
    bench = DdiBench()
    early(bench)
    assert (bench.fetches(), bench.store.objects) == (0, {})
    assert bench.said() == ("waits", Reason.ENVELOPE)
