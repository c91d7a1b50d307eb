"""Receipts of real workers: every answer has one, whatever happens to the worker."""

import asyncio
import json
import os
import signal
from pathlib import Path

from msgspec.structs import replace

from agent.core.flow import FileSink
from agent.core.kept import fits_receipt, parse_kept
from agent.core.reasons import Reason
from agent.core.receipts import FAILED, KEPT, NO_HASH, SLOTS, ReceiptOrder, name_word
from agent.supervise.receipts import Receipting
from tests.fakes.digits import STREAM, Bench, in_loop, placed, running, until
from tests.fakes.recorded import ListKeeper, ListRecorder

KILLED_AFTER = (1, 250, 40, 399, 120)  # answers, and what comes until it is seen
CHAIN, INPUTS = ReceiptOrder("chain"), ReceiptOrder("inputs")


def accounted(bench: Bench, *versions: int) -> tuple[int, int]:
    """Return answered samples, and those that failed, of some versions."""
    sums = [bench.outcomes(version) for version in versions]
    return sum(it["ok"] for it in sums), sum(it["failed"] for it in sums)


@in_loop
async def test_each_answer_has_a_receipt_of_what_ran() -> None:
    """After a swap under load receipts and answers agree, digest by digest."""
    recorder = ListRecorder()
    how = Receipting(recorder, CHAIN)
    async with running(placed(1), receipting=how) as bench:
        await bench.ready()
        await bench.answers(1, 50)
        await bench.pipeline.swap_in(placed(2))
        await bench.answers(2, 50)
        await bench.pipeline.stop()
        for version in (1, 2):
            digest = placed(version).bundle.variant_sha256("int8")
            of_version = [r for _, r in recorder.log if r.model.hex() == digest]
            assert bench.ok(version) == len(of_version)
        receipts = [receipt for _, receipt in recorder.log]
        assert [it.sample for it in receipts] == list(range(1, len(receipts) + 1))
        assert {(0, name_word("digits"), NO_HASH)} == {
            (it.flags, it.pipeline, it.input) for it in receipts
        }
        assert NO_HASH not in {it.output for it in receipts}


@in_loop
async def test_nothing_is_answered_that_is_not_paid() -> None:
    """At the last unit the loop stands, and says so; swaps work; units open it."""
    recorder = ListRecorder(units=100)
    how = Receipting(recorder, CHAIN)
    async with running(placed(1), receipting=how, deadline_ms=1000.0) as bench:
        await until(lambda: bench.now.reason == Reason.UNPAID, "the end of units")
        assert (bench.ok(1), len(recorder.log)) == (100, 100)
        await bench.pipeline.swap_in(placed(2))
        # Longer than the deadline: a loop that waits for leave does not hang.
        await asyncio.sleep(1.5)
        assert (bench.now.ready, bench.now.restarts) == (False, {})
        recorder.units = 250
        await until(lambda: bench.ok(2) == 150, "those that were bought")
        await until(lambda: bench.now.reason == Reason.UNPAID, "the end of those")
        assert (bench.ok(1), len(recorder.log)) == (100, 250)


@in_loop
async def test_a_log_that_takes_nothing_closes_the_gate_and_loses_nothing() -> None:
    """Records stay in the ring until they are taken; what has no room is not asked."""
    recorder = ListRecorder(units=SLOTS + 100, broken=True)
    async with running(placed(1), receipting=Receipting(recorder, CHAIN)) as bench:
        await until(lambda: bench.now.reason == Reason.LOG, "the gate")
        assert (bench.ok(1), recorder.log) == (SLOTS, [])
        recorder.broken = False
        await until(lambda: bench.now.reason == Reason.UNPAID, "the end of units")
        assert (bench.ok(1), len(recorder.log)) == (SLOTS + 100, SLOTS + 100)


@in_loop
async def test_workers_killed_at_random_leave_no_answer_without_receipt() -> None:
    """Every line that a sink got has its receipt; beyond them one a life at most."""
    recorder = ListRecorder()
    async with running(placed(1), receipting=Receipting(recorder, CHAIN)) as bench:
        bench.successor = placed(1)  # no crash loop ends this
        for kill, answers in enumerate(KILLED_AFTER, start=1):
            await bench.ready()
            await bench.answers(1, answers)
            os.kill(bench.now.worker_pid, signal.SIGKILL)
            await until(
                lambda n=kill: sum(bench.now.restarts.values()) == n,  # type: ignore[misc] # the number of this round
                "the death",
            )
        await bench.ready()
        await bench.pipeline.stop()
        answered, failed = accounted(bench, 1)
        assert answered <= len(recorder.log) <= answered + failed
        assert failed <= len(KILLED_AFTER)
        samples = [receipt.sample for _, receipt in recorder.log]
        assert sorted(samples) == samples


@in_loop
async def test_each_line_has_its_receipt(tmp_path: Path) -> None:
    """What a reader of the sink has seen is in the log, also after kill -9."""
    lines = tmp_path / "lines.jsonl"
    recorder = ListRecorder()
    how = Receipting(recorder, CHAIN)
    sinks = (FileSink(str(lines)),)
    async with running(placed(1), receipting=how, sinks=sinks) as bench:
        await bench.ready()
        await bench.answers(1, 200)
        os.kill(bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: bool(bench.now.restarts), "the death")
        await bench.ready()
        await bench.pipeline.stop()
    heard = [json.loads(line)["seq"] for line in lines.read_text().splitlines()]
    receipts = {receipt.sample for _, receipt in recorder.log}
    assert set() == set(heard) - receipts
    assert len(heard) > 200


@in_loop
async def test_kept_inputs_are_those_of_their_receipts() -> None:
    """One in four on average is kept, hashed in any mode, and fits its receipt."""
    recorder, keeper = ListRecorder(), ListKeeper()
    order = replace(CHAIN, keep_one_in=4)
    paced = replace(STREAM, rate=400.0)
    how = Receipting(recorder, order, keeper)
    async with running(placed(1), receipting=how, source=paced) as bench:
        await until(lambda: len(keeper.kept) >= 40, "kept inputs")
        await bench.pipeline.stop()
    kept = {seq for seq, (_, it) in enumerate(recorder.log) if it.flags & KEPT}
    assert kept == {seq for _, seq in keeper.kept}
    for (_, seq), content in keeper.kept.items():
        assert fits_receipt(parse_kept(content), recorder.log[seq][1])
    assert all(it.input == NO_HASH for _, it in recorder.log if not it.flags & KEPT)


@in_loop
async def test_inputs_are_hashed_where_that_is_asked_for() -> None:
    """Mode ``inputs`` hashes each input: equal ones alike, none missing."""
    recorder = ListRecorder(units=1300)
    async with running(placed(1), receipting=Receipting(recorder, INPUTS)) as bench:
        await until(lambda: bench.now.reason == Reason.UNPAID, "the end of units")
    hashes = [receipt.input for _, receipt in recorder.log]
    assert NO_HASH not in hashes
    assert hashes[:600] == hashes[600:1200]  # the recording has 600, and begins anew
    assert not any(receipt.flags & FAILED for _, receipt in recorder.log)
