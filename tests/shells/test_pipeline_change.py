"""Other settings for a pipeline that runs: counted on, nothing lost, nothing left."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.flow import CommandSink, FileSink, FilesSource, SinkSettings
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.settings import MonitorSettings, PipelineSettings, SuperviseSettings
from agent.supervise.plumbing import check_sinks
from tests.fakes.digits import (
    BRISK,
    ENDLESS,
    PATIENCE_S,
    Bench,
    digits,
    in_loop,
    place,
    placed,
    running,
    until,
)

SLOW = SuperviseSettings(backoff_s=600.0, max_backoff_s=600.0)
PACED = replace(ENDLESS, rate=500.0)


async def change(bench: Bench, **keys: object) -> PipelineSettings:
    """Let the pipeline go on with other keys."""
    settings = replace(bench.pipeline.settings, **keys)
    async with asyncio.timeout(PATIENCE_S):
        await bench.pipeline.change(settings)
    return settings


def numbers(path: Path) -> list[int]:
    """Return the sequence numbers of a file of predictions."""
    return [json.loads(line)["seq"] for line in path.read_text().splitlines()]


@in_loop
async def test_what_was_counted_stays() -> None:
    """Another worker answers; no counter falls, and nothing failed or was dropped."""
    async with running(placed(1), source=PACED) as bench:
        await bench.answers(1, 20)
        before, pid = bench.outcomes(1), bench.now.worker_pid
        settings = await change(bench, deadline_ms=10_000.0)
        assert bench.pipeline.settings == settings
        assert bench.ok(1) >= before["ok"]
        await bench.answers(1, 20)
        now = bench.outcomes(1)
        assert (now["failed"], now["dropped"]) == (0, 0)
        assert now["received"] - now["ok"] in (0, 1)
        assert bench.now.worker_pid not in (0, pid)
        assert bench.now.restarts == {"requested": 1}


@in_loop
async def test_sinks_are_exchanged_without_a_hole(tmp_path: Path) -> None:
    """The old file has every line to the last; the new one goes on with the next."""
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    async with running(placed(1), source=PACED, sinks=[FileSink(str(old))]) as bench:
        await bench.answers(1, 50)
        await change(bench, sinks=(FileSink(str(new)),))
        last = numbers(old)[-1]
        assert numbers(old) == list(range(1, last + 1))
        await bench.answers(1, 50)
    assert numbers(new) == list(range(last + 1, last + 1 + len(numbers(new))))
    assert numbers(old)[-1] == last


@in_loop
async def test_a_source_is_exchanged(tmp_path: Path) -> None:
    """One that is missing says so, and the old one takes over again."""
    async with running(placed(1), source=PACED) as bench:
        await bench.answers(1)
        await change(bench, source=FilesSource(str(tmp_path / "absent.npz")))
        await until(
            lambda: bench.now.reason == Reason.SOURCE_MISSING, "the source is missing"
        )
        before = bench.ok(1)
        await change(bench, source=PACED)
        await until(lambda: bench.ok(1) > before, "answers again")


@in_loop
async def test_a_pause_before_a_restart_is_not_waited_for() -> None:
    """Whoever mends the settings of a pipeline that fails sees it at once."""
    async with running(placed(1), rules=SLOW) as bench:
        await bench.answers(1)
        os.kill(bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: bench.now.restarts != {}, "the worker is dead")
        await change(bench, deadline_ms=10_000.0)
        await bench.answers(1)


@in_loop
async def test_a_change_before_the_first_worker_is_up() -> None:
    """It is made before that one, or the next."""
    async with running(placed(1), source=FilesSource("/absent.npz")) as bench:
        await change(bench, source=ENDLESS)
        await bench.answers(1)


@in_loop
async def test_a_pipeline_that_is_stopped_meanwhile_holds_nobody_up() -> None:
    """Who waits for the change is let go."""
    async with running(placed(1)) as bench, asyncio.TaskGroup() as group:
        await bench.answers(1)
        changed = group.create_task(change(bench, deadline_ms=10_000.0))
        await asyncio.sleep(0)
        await bench.pipeline.stop()
        await changed


@in_loop
async def test_nobody_is_blamed_for_a_swap_that_met_a_change() -> None:
    """A candidate that came to a worker on its way out is tried again later."""
    async with running(placed(1), source=PACED) as bench:
        await bench.answers(1)
        async with asyncio.TaskGroup() as group:
            changed = group.create_task(change(bench, deadline_ms=10_000.0))
            await asyncio.sleep(0)
            with pytest.raises(DeviceError):
                await bench.pipeline.swap_in(place(digits(2)))
            await changed
        await bench.answers(1)
        assert bench.now.swaps == {}


@in_loop
async def test_nothing_is_left_open(tmp_path: Path) -> None:
    """No descriptor, thread or program grows with the changes."""
    copy = [sys.executable, "-c", "import sys; [0 for _ in sys.stdin]"]
    sinks: list[SinkSettings] = [
        CommandSink(tuple(copy)),
        FileSink(str(tmp_path / "a")),
    ]
    async with running(placed(1), source=PACED, sinks=sinks) as bench:
        counts = []
        for deadline_ms in (9000.0, 9001.0, 9002.0, 9003.0):
            await change(bench, deadline_ms=deadline_ms)
            wanted = bench.ok(1) + 5
            await until(lambda wanted=wanted: bench.ok(1) >= wanted, "answers")  # type: ignore[misc]  # bound now
            counts.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - names alone
        assert counts[-1] <= counts[0]


@in_loop
async def test_other_limits_are_followed_at_once() -> None:
    """The worker is left alone."""
    async with running(placed(1)) as bench:
        await bench.answers(1)
        pid = bench.now.worker_pid
        rules = replace(BRISK, drain_s=1.0, start_s=20.0)
        await bench.pipeline.follow(rules, MonitorSettings())
        await bench.answers(1)
        assert bench.now.worker_pid == pid
        assert bench.pipeline._tenancy.drain_s == 1.0
        assert bench.pipeline._placing.deadline_s == 20.0


@in_loop
async def test_watching_is_changed_in_the_worker_that_runs() -> None:
    """The model is loaded anew between two samples: no pause, and counters go on."""
    async with running(placed(1), source=PACED) as bench:
        await bench.answers(1, 5)
        before, pid = bench.now, bench.now.worker_pid
        generation = bench.pipeline._placing.generation
        await bench.pipeline.follow(BRISK, MonitorSettings(cpu_share=0.1))
        assert bench.pipeline._placing.generation > generation
        await bench.answers(1, 5)
        now = bench.outcomes(1)
        assert bench.now.worker_pid == pid
        assert (now["failed"], now["dropped"]) == (0, 0)
        assert bench.now.swaps == before.swaps == {}


@in_loop
async def test_a_candidate_is_left_alone_by_watching() -> None:
    """What is on trial goes on being watched as it began."""
    async with running(placed(1), source=PACED) as bench:
        await bench.answers(1)
        candidate = place(digits(2))
        await bench.pipeline.swap_in(candidate)
        generation = bench.pipeline._placing.generation
        await bench.pipeline.follow(BRISK, MonitorSettings(cpu_share=0.1))
        assert bench.pipeline._placing.generation == generation
        assert bench.pipeline.answering is candidate


def test_a_file_that_cannot_be_written_is_found_before(tmp_path: Path) -> None:
    """Before any worker is ended for it."""
    (tmp_path / "file").write_text("")
    sink = FileSink(str(tmp_path / "file" / "below"))
    settings = PipelineSettings("a", "a", ENDLESS, (sink,))
    with pytest.raises(DeviceError, match="sink file") as err:
        check_sinks(settings)
    assert err.value.reason == Reason.PERMISSION
