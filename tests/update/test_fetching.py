"""One bundle from several sources: whose bytes end up in one file."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from agent.core.reasons import Reason
from agent.core.targets import SignedFile
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.fetching import Fetching
from tests.fakes.lives import STEP_S, until
from tests.fakes.memory_store import MemoryStaging, MemoryStore
from tests.fakes.scripted_repository import Resumable, ScriptedRepository
from tests.fakes.update_bench import BUNDLES, NOW

BODY = BUNDLES["kws", 2]
LIMIT = 10**6
CUT = BundleRefusedError("away", reason=Reason.UNREACHABLE)


class Source(ScriptedRepository):
    """A source that sends what it likes, and then fails, or not.

    Attributes:
        sends: Its bytes; ``fails`` what it raises after them.
    """

    def __init__(self, sends: bytes, fails: AgentError | None = None) -> None:
        super().__init__(BUNDLES)
        self.sends = sends
        self.fails = fails

    def fetch(
        self,
        target: SignedFile,
        write: Callable[[memoryview], None],
        max_bytes: int,
        resume: Resumable | None = None,
    ) -> int:
        """Send, without a look at what is here already."""
        del target, max_bytes, resume
        if self.sends:
            write(memoryview(self.sends))
        if self.fails is not None:
            raise self.fails
        return 0


def fetch(store: MemoryStore, sources: Sequence[ScriptedRepository]) -> Fetching:
    """Fetch kws 2; errors end up nowhere, what came of it is returned."""
    sources[0].refresh(NOW)
    target = sources[0].find("kws", 2)
    incoming = store.stage(target.sha256, target.length)
    fetching = Fetching(sources, target, incoming, LIMIT)
    try:
        asyncio.run(fetching.run())
        incoming.commit()
    except (BundleRefusedError, DeviceError):
        pass
    finally:
        fetching.close()
    return fetching


def test_the_second_source_begins_anew() -> None:
    """What the first one sent is dropped: bytes of two sources never meet."""
    store = MemoryStore()
    liar = Source(BODY[:100], BundleRefusedError("cut", reason=Reason.LENGTH))
    fetching = fetch(store, [liar, Source(BODY)])
    assert list(store.objects.values()) == [BODY]
    assert (fetching.done_bytes, fetching.received) == (len(BODY), len(BODY) + 100)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (BundleRefusedError("away", reason=Reason.UNREACHABLE), True),
        (BundleRefusedError("slow", reason=Reason.TOO_SLOW), True),
        (BundleRefusedError("tls", reason=Reason.TLS), True),
        (BundleRefusedError("429", reason=Reason.RATE_LIMITED), True),
        (DeviceError("stopped", reason=Reason.STOPPING), True),
        (BundleRefusedError("wrong", reason=Reason.DIGEST), False),
        (BundleRefusedError("gone", reason=Reason.MISSING_TARGET), False),
        (DeviceError("full", reason=Reason.DISK_FULL), False),
    ],
)
def test_46_what_is_kept_for_the_next_time(error: AgentError, *, kept: bool) -> None:
    """What a network cut off is; what was refused, or found no room, is not."""
    store = MemoryStore()
    fetch(store, [Source(BODY[:100], error)])
    assert bool(store.parts) is kept


@pytest.mark.parametrize("reason", [Reason.LENGTH, Reason.MISSING_TARGET])
def test_46_a_portal_in_between_costs_nothing(reason: Reason) -> None:
    """What is refused before its first byte says nothing about what was kept."""
    store = MemoryStore()
    fetch(store, [Source(BODY[:100], CUT)])
    fetch(store, [Source(b"", BundleRefusedError("hotel", reason=reason))])
    ((kept, *_),) = store.parts.values()
    assert kept == BODY[:100]


def test_46_what_was_refused_as_a_whole_is_not_kept() -> None:
    """Other bytes than the signed ones, found out at the end: none of them stay."""
    store = MemoryStore()
    fetch(store, [Source(BODY[:100], CUT)])
    fetch(store, [Source(b"", BundleRefusedError("wrong", reason=Reason.DIGEST))])
    assert store.parts == {}


class Endless(ScriptedRepository):
    """A source whose bytes never end.

    Attributes:
        begun: Set once some of them came.
    """

    def __init__(self) -> None:
        super().__init__(BUNDLES)
        self.begun = threading.Event()

    def fetch(
        self,
        target: SignedFile,
        write: Callable[[memoryview], None],
        max_bytes: int,
        resume: Resumable | None = None,
    ) -> int:
        """Send until nobody wants it."""
        del target, max_bytes, resume
        write(memoryview(BODY[:100]))
        self.begun.set()
        while True:
            write(memoryview(b""))
            time.sleep(STEP_S)


class ThreadedStaging(MemoryStaging):
    """Knows in which threads it was closed to be kept."""

    def __init__(self, store: MemoryStore, sha256: str, length: int) -> None:
        super().__init__(store, sha256, length)
        self.closed_in: list[threading.Thread] = []

    def close(self, *, keep: bool = False) -> None:
        """Close."""
        if keep:
            self.closed_in.append(threading.current_thread())
        super().close(keep=keep)


def test_what_a_stop_leaves_is_synced_beside_the_loop() -> None:
    """A slow card takes seconds for that, in which requests have to be answered."""
    store, source = MemoryStore(), Endless()
    source.refresh(NOW)
    target = source.find("kws", 2)
    incoming = ThreadedStaging(store, target.sha256, target.length)
    fetching = Fetching([source], target, incoming, LIMIT)

    async def stop() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(fetching.run())
            await until(source.begun.is_set)
            task.cancel()

    asyncio.run(stop())
    assert [len(it[0]) for it in store.parts.values()] == [100]
    (thread,) = incoming.closed_in
    assert thread is not threading.current_thread()


def test_a_disk_that_fails_is_no_reason_to_ask_the_next() -> None:
    """No other source would find more room here."""
    store, second = MemoryStore(), Source(BODY)
    full = DeviceError("full", reason=Reason.DISK_FULL)
    fetching = fetch(store, [Source(BODY[:100], full), second])
    assert (fetching.received, store.objects) == (100, {})
