"""Updates by deltas: used where the base is here, never the reason of a refusal."""

import asyncio
import dataclasses
import errno
import logging
import threading
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from msgspec.structs import replace

from agent.core.deltas import SignedDelta
from agent.core.reasons import Reason
from agent.core.targets import SignedFile
from agent.errors import BundleRefusedError, DeviceError
from agent.publish.deltas import make_delta, stage_delta
from agent.store import Store
from agent.store.atomic import Disk
from agent.update.deltas import Deltas
from agent.update.fetching import Fetching
from agent.update.threads import in_thread
from tests.fakes.board import Board
from tests.fakes.bundle_factory import make_repository
from tests.fakes.memory_store import MemoryStaging, MemoryStore
from tests.fakes.patches import frame, sha256, signed_delta
from tests.fakes.scripted_repository import Resumable, ScriptedRepository
from tests.fakes.update_bench import BUNDLES, NOW, Bench

PATIENCE_S = 20.0  # what hangs fails, and does not hang the run

ONE, TWO, THREE = (BUNDLES["kws", version] for version in (1, 2, 3))
DELTA, PATCH = signed_delta(ONE, TWO)
# Right, too, but it takes nothing from its base: long enough to be cut.
LONG, LONG_PATCH = signed_delta(ONE, TWO, frame(TWO))
OTHER = TWO[:-1] + bytes([TWO[-1] ^ 1])


def at_one(delta: SignedDelta | None = DELTA, patch: bytes | None = PATCH) -> Bench:
    """Return a board that runs version 1, and a fleet that offers a delta to 2."""
    bench = Bench(names=("door",))
    bench.update(1)
    assert bench.versions() == (1, 0)
    if delta is not None:
        bench.repository.patches[delta] = patch
    return bench


def kinds(bench: Bench) -> dict[str, int]:
    """Return what was fetched since version 1 was."""
    counted = bench.poller.snapshot().bytes
    return {**counted, "full": counted["full"] - len(ONE)}


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return why deltas were given up."""
    told = [it for it in caplog.records if it.message == "update.delta"]
    assert all(it.__dict__["reason"] == Reason.DELTA for it in told)
    return [it.__dict__["detail"] for it in told]


def test_a_delta_from_what_runs_spares_the_bundle() -> None:
    """Nothing of the whole one is fetched, and the store has the signed bytes."""
    bench = at_one()
    bench.update(2)
    assert bench.versions() == (2, 1)
    assert kinds(bench) == {"full": 0, "delta": len(PATCH), "resumed": 0}
    assert bench.store.objects[sha256(TWO)] == TWO
    assert bench.store.parts == {}


def test_a_delta_from_the_previous_one_is_as_good() -> None:
    """Any base that is here: 1 is the previous one when 3 comes."""
    bench = at_one(None)
    bench.update(2)
    delta, patch = signed_delta(ONE, THREE, version=3)
    bench.repository.patches[delta] = patch
    bench.update(3)
    assert bench.versions() == (3, 2)
    assert kinds(bench) == {"full": len(TWO), "delta": len(patch), "resumed": 0}


def test_the_shortest_of_several_is_used() -> None:
    """Here the one from the very same content."""
    bench = at_one()
    bench.repository.patches = {LONG: LONG_PATCH, DELTA: PATCH}
    assert len(PATCH) < len(LONG_PATCH) < len(TWO)
    bench.update(2)
    assert kinds(bench)["delta"] == len(PATCH)


def test_72_a_delta_from_bytes_that_are_not_here_is_not_fetched() -> None:
    """Wrong base: none that this board holds."""
    bench = at_one(*signed_delta(THREE, TWO, from_version=3))
    bench.update(2)
    assert bench.versions() == (2, 1)
    assert kinds(bench) == {"full": len(TWO), "delta": 0, "resumed": 0}


WRONG: dict[str, bytes | None] = {
    "missing": None,
    "of_another_base": make_delta(THREE[::-1], TWO),
    "of_another_pair": make_delta(ONE, THREE),
    "to_other_bytes": make_delta(ONE, OTHER),
    "shorter": make_delta(ONE, TWO[:-1]),
    "longer": make_delta(ONE, TWO + b"!"),
    "truncated": PATCH[:-4],
    "flipped": PATCH[:30] + bytes([PATCH[30] ^ 4]) + PATCH[31:],
    "bomb": frame(bytes(10_000_000), announced=len(TWO)),
    "empty_frame": frame(b""),
    "no_frame": b"<html>sign in</html>",
}


@pytest.mark.parametrize("patch", WRONG.values(), ids=WRONG)
def test_72_a_wrong_delta_is_told_and_the_whole_bundle_is_fetched(
    patch: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Validly signed, and wrong: the update is committed all the same."""
    delta, _ = signed_delta(ONE, TWO, patch)
    bench = at_one(delta, patch)
    bench.update(2)
    assert bench.versions() == (2, 1)
    assert bench.results() == {("committed", ""): 2}
    assert kinds(bench)["full"] == len(TWO)
    assert len(refusals(caplog)) == 1
    assert bench.store.parts == {}


def test_72_a_delta_that_failed_is_not_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not for the same bundle in this life; a new life tries it once more."""
    wrong = WRONG["to_other_bytes"]
    bench = at_one(signed_delta(ONE, TWO, wrong)[0], wrong)
    bench.repository.gone.add(("kws", 2))
    bench.update(2)
    assert bench.results()["refused", Reason.MISSING_TARGET] == 1
    bench.repository.gone.clear()
    bench.update(2)
    assert bench.versions() == (2, 1)
    assert len(refusals(caplog)) == 1
    assert bench.repository.calls.count(f"fetch {DELTA.path}") == 1


def test_a_delta_that_the_network_cut_off_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The whole bundle is out of reach, too; the next look resumes the delta."""
    bench = at_one(LONG, LONG_PATCH)
    bench.repository.broken_at = 2048
    bench.repository.gone.add(("kws", 2))
    bench.update(2)
    assert bench.versions() == (1, 0)
    bench.repository.gone.clear()
    bench.update(2)
    assert bench.versions() == (2, 1)
    assert kinds(bench) == {"full": 0, "delta": len(LONG_PATCH), "resumed": 2048}
    assert len(refusals(caplog)) == 1


def test_a_base_that_rotted_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    """It is hashed again before anything is made of it."""
    bench = at_one()
    bench.store.objects[sha256(ONE)] = OTHER
    bench.update(2)
    assert bench.versions()[0] == 2
    assert kinds(bench) == {"full": len(TWO), "delta": 0, "resumed": 0}
    assert len(refusals(caplog)) == 1


def test_without_memory_for_it_nothing_of_a_delta_is_fetched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What runs goes on beside it, and needs its own."""
    bench = at_one()
    bench.board = replace(bench.board, ram_bytes=10_000_000)
    bench.update(2)
    assert bench.versions() == (2, 1)
    assert kinds(bench) == {"full": len(TWO), "delta": 0, "resumed": 0}
    assert "too much for 10000000 of memory" in refusals(caplog)[0]


class FullStore(MemoryStore):
    """Has room for bundles, and none for a delta."""

    def make_room(
        self, length: int, sha256: str = "", keep: Collection[str] = ()
    ) -> None:
        """Make room, or refuse."""
        if sha256 == DELTA.sha256:
            raise DeviceError("full", reason=Reason.QUOTA)
        super().make_room(length, sha256, keep)


class BrittleStore(MemoryStore):
    """Fails once in the middle of bringing in version 2."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error

    def stage(self, sha256: str, length: int) -> MemoryStaging:
        """Begin to bring in an object."""
        return BrittleStaging(self, sha256, length)


class BrittleStaging(MemoryStaging):
    """Writes a thousand bytes of version 2, and then fails, once."""

    def __init__(self, store: BrittleStore, digest: str, length: int) -> None:
        super().__init__(store, digest, length)
        self._brittle, self._digest = store, digest

    def write(self, content: memoryview) -> None:
        """Append bytes, or some of them."""
        error = self._brittle.error
        if error is not None and self._digest == sha256(TWO):
            self._brittle.error = None
            super().write(content[:1000])
            raise error
        super().write(content)


def on(store: MemoryStore) -> Bench:
    """Return a board with this store, which runs 1 and is offered a delta to 2."""
    bench = Bench(names=("door",))
    bench.store = store
    bench.start()
    bench.update(1)
    bench.repository.patches[DELTA] = PATCH
    return bench


def test_no_room_for_a_delta_is_no_reason_to_refuse(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The bundle's own room was made before."""
    bench = on(FullStore())
    bench.update(2)
    assert bench.versions() == (2, 1)
    assert refusals(caplog) == ["full"]


@pytest.mark.parametrize(
    "error",
    [
        DeviceError("full", reason=Reason.DISK_FULL),
        MemoryError(),
        BundleRefusedError("odd", reason=Reason.LENGTH),
    ],
)
def test_72_what_goes_wrong_while_it_is_applied_costs_the_delta_alone(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Some of the bundle is written by then: all is fetched from its first byte."""
    bench = on(BrittleStore(error))
    bench.update(2)
    assert bench.versions() == (2, 1)
    assert kinds(bench)["full"] == len(TWO)
    assert len(refusals(caplog)) == 1


def test_a_repository_that_cannot_say_is_as_one_without_deltas() -> None:
    """Nobody is asked again, and nothing is refused."""
    bench = at_one()
    bench.repository.undelta = BundleRefusedError("?", reason=Reason.METADATA)
    bench.update(2)
    assert bench.versions() == (2, 1)
    assert kinds(bench) == {"full": len(TWO), "delta": 0, "resumed": 0}


def test_with_most_of_the_bundle_here_the_rest_is_fetched() -> None:
    """A delta is used only where it is shorter than what is missing."""
    bench = at_one(None)
    bench.repository.broken_at = len(TWO) - 100
    bench.update(2)
    bench.repository.patches[LONG] = LONG_PATCH
    bench.update(2)
    assert bench.versions() == (2, 1)
    assert kinds(bench)["delta"] == 0


def test_a_delta_longer_than_the_bundle_is_not_used() -> None:
    """The full one is smaller."""
    content = frame(TWO + bytes(10)) + TWO
    bench = at_one(*signed_delta(ONE, TWO, content))
    bench.update(2)
    assert kinds(bench) == {"full": len(TWO), "delta": 0, "resumed": 0}


def test_what_was_spared_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """One line, with both lengths."""
    bench = at_one()
    with caplog.at_level(logging.INFO):
        bench.update(2)
    (told,) = [it for it in caplog.records if it.message == "update.delta_applied"]
    said = told.__dict__
    assert (said["bytes"], said["instead_of"]) == (len(PATCH), len(TWO))


class Held(ScriptedRepository):
    """Sends a thousand bytes, and the rest when it is let go.

    Attributes:
        began: The first bytes are out; ``go_on`` lets the others follow.
    """

    def __init__(self) -> None:
        super().__init__(BUNDLES)
        self.patches[LONG] = LONG_PATCH
        self.began, self.go_on = threading.Event(), threading.Event()

    def fetch(
        self,
        target: SignedFile,
        write: Callable[[memoryview], None],
        max_bytes: int,
        resume: Resumable | None = None,
    ) -> int:
        """Deliver a delta in two parts."""
        del target, max_bytes, resume
        write(memoryview(LONG_PATCH)[:1000])
        self.began.set()
        assert self.go_on.wait(PATIENCE_S)
        write(memoryview(LONG_PATCH)[1000:])
        return 0


class HeldStore(MemoryStore):
    """Holds what is written of version 2 until it is not wanted any more."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()

    def stage(self, sha256: str, length: int) -> MemoryStaging:
        """Begin to bring in an object."""
        return HeldStaging(self, sha256, length)


class HeldStaging(MemoryStaging):
    """Writes version 2 once it was abandoned."""

    def __init__(self, store: HeldStore, digest: str, length: int) -> None:
        super().__init__(store, digest, length)
        self._began = store.began if digest == sha256(TWO) else threading.Event()
        self._let_go = threading.Event()
        if digest != sha256(TWO):
            self._let_go.set()

    def write(self, content: memoryview) -> None:
        """Append bytes, when that is too late."""
        self._began.set()
        assert self._let_go.wait(PATIENCE_S)
        super().write(content)

    def abandon(self) -> None:
        """Let the thread go."""
        super().abandon()
        self._let_go.set()


def stopped(store: MemoryStore, source: ScriptedRepository, began: Event) -> list[str]:
    """Stop a build when it has begun; return the digests of what can be resumed."""
    store.objects[sha256(ONE)] = ONE
    source.refresh(NOW)
    target = source.find("kws", 2)
    bench = Bench(names=("door",))
    bench.store = store
    bench.start()
    deltas = Deltas(bench.surroundings, lambda *_: None)
    incoming = store.stage(target.sha256, target.length)
    fetching = Fetching([source], target, incoming, target.length)

    async def stop() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(deltas.fill([source], target, fetching))
            await in_thread(partial(began.wait, PATIENCE_S))
            task.cancel()
            if isinstance(source, Held):
                await asyncio.sleep(0)
                source.go_on.set()
        assert task.cancelled()

    asyncio.run(stop())
    return list(store.parts)


def test_a_daemon_that_stops_keeps_what_came_of_a_delta() -> None:
    """The next life goes on with it."""
    source = Held()
    assert stopped(MemoryStore(), source, source.began) == [LONG.sha256]


def test_a_daemon_that_stops_while_unpacking_keeps_the_delta_alone() -> None:
    """Half of what it unpacks to is of no use: nothing says where it would go on."""
    store, source = HeldStore(), ScriptedRepository(BUNDLES)
    source.patches[DELTA] = PATCH
    assert stopped(store, source, store.began) == [DELTA.sha256]


class HalfDisk(Disk):
    """Takes half of the first large write, and then nothing more of it."""

    armed = False

    def write(self, descriptor: int, content: memoryview) -> None:
        """Write all of it, or half."""
        if self.armed and len(content) > len(LONG_PATCH):
            self.armed = False
            super().write(descriptor, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "full")
        super().write(descriptor, content)


def test_72_half_a_write_leaves_nothing_in_the_whole_bundle(tmp_path: Path) -> None:
    """On a real disk and with the real client: its file begins with its first byte."""
    bundles = {("kws", 1): ONE, ("kws", 2): TWO}
    made = make_repository(tmp_path / "repository", bundles)
    stage_delta(made.path, made.repository.status().bundles[1], 1)
    made.repository.publish(NOW)
    trusted = Board(tmp_path / "board", made).refresh()
    disk = HalfDisk()
    store = Store.open(tmp_path / "state", disk)
    with store.stage(sha256(ONE), len(ONE)) as first:
        first.write(memoryview(ONE))
        first.commit()
    target = trusted.find("kws", 2)
    incoming = store.stage(target.sha256, target.length)
    fetching = Fetching([trusted], target, incoming, target.length)
    around = Bench().surroundings
    deltas = Deltas(dataclasses.replace(around, store=store), lambda *_: None)
    disk.armed = True
    assert not asyncio.run(deltas.fill([trusted], target, fetching))
    assert not disk.armed
    asyncio.run(fetching.run())
    incoming.commit()
    assert store.open_object(sha256(TWO)) == TWO
    store.close()
