"""The daemon's hand on a ring of receipts: handed over once, whatever a worker does."""

import asyncio
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from agent.core.kept import KEPT_BYTES, KeptSample, render_kept
from agent.core.reasons import Reason
from agent.core.receipts import (
    EVENT,
    FAILED,
    HEADER_BYTES,
    KEPT,
    NO_HASH,
    NO_SEQ,
    RING_BYTES,
    SLOTS,
    WRITTEN,
    Put,
    ReceiptOrder,
    RingWriter,
    name_word,
)
from agent.core.shadow_ring import RingWriter as KeptWriter
from agent.supervise.receipts import MAX_UNPAIRED, Receipting, Receipts
from tests.fakes.digits import in_loop, until
from tests.fakes.recorded import ListKeeper, ListRecorder

CHAIN = ReceiptOrder("chain")
MODEL, OTHER_MODEL = b"\x0d" * 32, b"\x0e" * 32


@dataclass
class Worker:
    """The other end of a pipeline's rings."""

    ring: RingWriter
    put: Put
    kept: KeptWriter | None

    def answer(self, samples: int, flags: int = 0) -> None:
        """Answer some samples, as far as that is allowed."""
        for _ in range(samples):
            if not self.ring.closed:
                self.put(self.ring.written + 1, 5, flags, NO_HASH, NO_HASH)

    def keep(self, number: int, content: bytes) -> None:
        """Leave a kept input."""
        assert self.kept is not None
        assert self.kept.write([render_kept(KeptSample(number, (content,), ()))])


@contextmanager
def living(receipts: Receipts, name: str = "p") -> Iterator[Worker]:
    """Give a worker's life; it is over in the end, and what it left is taken."""
    with receipts.rings({MODEL}) as descriptors:
        sizes = (RING_BYTES, KEPT_BYTES)
        maps = [
            mmap.mmap(descriptor, size)
            for descriptor, size in zip(descriptors, sizes, strict=False)
        ]
    writer = RingWriter(memoryview(maps[0]))
    kept = KeptWriter(memoryview(maps[1])) if len(maps) > 1 else None
    yield Worker(writer, writer.bind(name_word(name), MODEL), kept)
    receipts.finish()


def samples(recorder: ListRecorder) -> list[int]:
    """Return the numbers of the samples that were recorded."""
    return [receipt.sample for _, receipt in recorder.log]


def no_end() -> None:
    """Never be called."""
    raise AssertionError("the worker was ended")


def test_what_is_switched_off_makes_nothing() -> None:
    """No ring, no order, and a task that ends at once."""
    receipts = Receipts("p", None)
    with receipts.rings({MODEL}) as descriptors:
        assert descriptors == []
    asyncio.run(receipts.run(no_end))
    receipts.finish()
    assert (receipts.order, receipts.closed) == (None, Reason.NONE)


def test_several_lives_follow_each_other() -> None:
    """Each has a ring of its own; the log goes on."""
    recorder = ListRecorder()
    receipts = Receipts("p", Receipting(recorder, CHAIN))
    for _ in range(3):
        with living(receipts) as worker:
            worker.answer(5)
    assert samples(recorder) == [1, 2, 3, 4, 5] * 3
    assert receipts.taken == 15


@in_loop
async def test_a_ring_is_emptied_while_its_worker_lives() -> None:
    """More than it holds goes through it, in order, once."""
    recorder = ListRecorder()
    receipts = Receipts("p", Receipting(recorder, CHAIN))
    with living(receipts) as worker:
        wanted = SLOTS + 100
        async with asyncio.TaskGroup() as group:
            task = group.create_task(receipts.run(no_end))
            while worker.ring.written < wanted:
                worker.answer(wanted - worker.ring.written)
                await asyncio.sleep(0.01)
            await until(lambda: len(recorder.log) >= wanted, "all of them")
            task.cancel()
    assert samples(recorder) == list(range(1, wanted + 1))


@in_loop
async def test_a_ring_that_cannot_be_ends_its_worker() -> None:
    """What was whole before is taken; what it claims is not."""
    recorder = ListRecorder(units=50)
    receipts = Receipts("p", Receipting(recorder, CHAIN))
    ended = asyncio.Event()
    with living(receipts) as worker:
        worker.answer(10)
        worker.ring.words[WRITTEN] = 51
        await receipts.run(ended.set)
        assert ended.is_set()
    assert len(recorder.log) <= 10
    assert worker.ring.words.nbytes == HEADER_BYTES


@pytest.mark.parametrize(
    "bad",
    [
        (5, EVENT, "p", MODEL),
        (5, EVENT | FAILED, "p", MODEL),
        (5, KEPT, "p", MODEL),  # none are to be kept
        (5, 1 << 31, "p", MODEL),
        (5, 0, "other", MODEL),
        (5, 0, "p", OTHER_MODEL),
        (0, 0, "p", MODEL),
    ],
)
@in_loop
async def test_a_record_that_no_worker_may_write_ends_it(
    bad: tuple[int, int, str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """What came before is taken; that one and all after it are lost, and said to be."""
    recorder = ListRecorder()
    receipts = Receipts("p", Receipting(recorder, CHAIN))
    ended = asyncio.Event()
    monotonic_ns, flags, pipeline, model = bad
    with living(receipts) as worker:
        worker.answer(10)
        put = worker.ring.bind(name_word(pipeline), model)
        put(11, monotonic_ns, flags, NO_HASH, NO_HASH)
        worker.answer(3)
        await receipts.run(ended.set)
        assert ended.is_set()
    assert samples(recorder) == list(range(1, 11))
    assert recorder.lost == 4
    assert "receipts.broken" in caplog.messages
    lost = [it for it in caplog.records if it.message == "receipts.lost"]
    assert [it.__dict__["records"] for it in lost] == [4]


def test_a_half_written_record_is_no_receipt() -> None:
    """A death between the count and the record leaves those before it."""
    recorder = ListRecorder()
    with living(Receipts("p", Receipting(recorder, CHAIN))) as worker:
        worker.answer(4)
        worker.ring.words[WRITTEN] = 5
    assert samples(recorder) == [1, 2, 3, 4]
    assert recorder.lost == 1  # it was counted, so the log says that it is not there


def test_what_nobody_takes_is_said_to_be_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A recorder that refuses to the end costs the records that are left, aloud."""
    with living(Receipts("p", Receipting(ListRecorder(broken=True), CHAIN))) as worker:
        worker.answer(4)
    lost = [it for it in caplog.records if it.message == "receipts.lost"]
    assert [it.__dict__["records"] for it in lost] == [4]


class TestKept:
    """Kept inputs find the number that the log gave their receipt."""

    @staticmethod
    def receipts(keeper: ListKeeper, recorder: ListRecorder) -> Receipts:
        """Return those of a pipeline that keeps."""
        order = ReceiptOrder("chain", keep_one_in=3)
        return Receipts("p", Receipting(recorder, order, keeper))

    def test_they_are_named_by_the_log(self) -> None:
        """Also where other pipelines' receipts came first."""
        keeper, recorder = ListKeeper(), ListRecorder()
        with living(Receipts("other", Receipting(recorder, CHAIN)), "other") as other:
            other.answer(7)
        with living(self.receipts(keeper, recorder)) as worker:
            worker.answer(2)
            worker.keep(3, b"third")
            worker.answer(1, KEPT)
            worker.answer(1)
        assert list(keeper.kept) == [("p", 9)]

    def test_one_without_its_receipt_is_dropped(self) -> None:
        """A death between the two leaves an input that no receipt speaks of."""
        keeper, recorder = ListKeeper(), ListRecorder()
        with living(self.receipts(keeper, recorder)) as worker:
            worker.answer(2)
            worker.keep(3, b"third")
        assert keeper.kept == {}
        assert len(recorder.log) == 2

    def test_what_the_log_lost_is_not_kept(self) -> None:
        """Without a number in the log it could never be asked for."""

        class Full(ListRecorder):
            def take(self, pipeline: str, records: memoryview) -> int:
                super().take(pipeline, records)
                return NO_SEQ

        keeper = ListKeeper()
        with living(self.receipts(keeper, Full())) as worker:
            worker.keep(1, b"first")
            worker.answer(1, KEPT)
        assert keeper.kept == {}

    def test_what_found_no_room_is_counted_once(self) -> None:
        """Over all lives: a ring that nobody empties takes some, and drops the rest."""
        keeper = ListKeeper()
        receipts = self.receipts(keeper, ListRecorder())
        dropped = 0
        for number in range(3):
            with living(receipts) as worker:
                assert worker.kept is not None
                written = [worker.kept.write([b"x" * 9]) for _ in range(80 + number)]
                dropped += written.count(False)
        assert dropped > 3
        assert (keeper.missed, receipts.not_kept) == (dropped, dropped)

    @in_loop
    async def test_each_input_of_a_busy_board_is_paired(self) -> None:
        """Those that the log cannot take yet wait, and no more are flagged than may."""
        keeper, recorder = ListKeeper(), ListRecorder()
        receipts = self.receipts(keeper, recorder)
        recorder.broken, flagged = True, 0
        with living(receipts) as worker:
            assert worker.kept is not None
            async with asyncio.TaskGroup() as group:
                task = group.create_task(receipts.run(no_end))
                for _ in range(8):
                    while worker.kept.has_room() and flagged < 3 * MAX_UNPAIRED:
                        flagged += 1
                        worker.keep(flagged, b"x")
                        worker.answer(1, KEPT)
                    await asyncio.sleep(0.12)
                recorder.broken = False
                await until(lambda: len(recorder.log) == flagged, "all of them")
                task.cancel()
        assert flagged >= MAX_UNPAIRED
        assert len(keeper.kept) == flagged

    def test_strange_bytes_are_passed_over(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A worker that leaves anything else is not believed, and nothing breaks."""
        keeper, recorder = ListKeeper(), ListRecorder()
        with living(self.receipts(keeper, recorder)) as worker:
            assert worker.kept is not None
            worker.kept.write([b"strange"])
            worker.keep(1, b"first")
            worker.answer(1, KEPT)
        assert list(keeper.kept) == [("p", 0)]
        assert "receipts.kept_broken" in caplog.messages
