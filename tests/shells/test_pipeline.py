"""A pipeline with a real worker: nothing is lost, whatever happens to the worker."""

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.flow import (
    BoardSource,
    CommandSink,
    CountSink,
    FileSink,
    FilesSource,
)
from agent.core.manifest import render_manifest
from agent.core.reasons import Reason
from agent.errors import DeviceError, TrialFailedError
from agent.settings import SuperviseSettings
from agent.supervise.placing import Placed
from tests.fakes.digits import (
    ENDLESS,
    STREAM,
    AlteredBundle,
    Bench,
    digits,
    in_loop,
    place,
    placed,
    running,
    until,
)
from tests.fakes.tiny_models import content
from tests.shells.test_preflight import lying

SWAPS = 20
ROGUE = (sys.executable, str(Path(__file__).parent.parent / "fakes" / "rogue_child.py"))


def agrees(bench: Bench, *versions: int) -> bool:
    """Whether every received sample of the versions ended, but for one in flight."""
    sums = [bench.outcomes(version) for version in versions]
    ended = sum(s["ok"] + s["failed"] + s["dropped"] for s in sums)
    return sum(s["received"] for s in sums) - ended in (0, 1)


@in_loop
async def test_starts_and_answers() -> None:
    """A committed model answers, and the snapshot says who, where and how locked."""
    async with running(placed(1)) as bench:
        await bench.ready()
        now = bench.now
        assert (now.state, now.reason, now.active) == (
            "active",
            Reason.NONE,
            placed(1).installed,
        )
        assert now.worker_pid > 0
        assert now.worker_rss_bytes > 10**6
        assert now.worker_locks["seccomp"] == ""
        assert agrees(bench, 1)


@in_loop
async def test_without_a_model_it_waits() -> None:
    """No model is no failure: the worker waits, and says why it is not ready."""
    async with running() as bench:
        await until(lambda: bench.now.worker_pid > 0, "a worker")
        assert (bench.now.ready, bench.now.reason) == (False, Reason.NO_MODEL)
        await bench.pipeline.swap_in(placed(1))
        assert bench.now.state == "candidate"
        await bench.ready()
        assert bench.now.state == "candidate"


@in_loop
async def test_twenty_swaps_under_load_lose_nothing() -> None:
    """Alternating versions under full load: 0 lost, 0 failed, all attributed."""
    async with running(placed(1)) as bench:
        await bench.ready()
        for turn in range(SWAPS):
            version = 2 - turn % 2
            before = bench.ok(version)
            await bench.pipeline.swap_in(placed(version))
            bench.pipeline.commit(placed(version))
            frozen = bench.outcomes(3 - version)
            await bench.answers(version)
            assert bench.ok(version) > before
            assert bench.outcomes(3 - version) == frozen
        await bench.pipeline.stop()
        one, two = bench.outcomes(1), bench.outcomes(2)
        assert one["failed"] == two["failed"] == one["dropped"] == two["dropped"] == 0
        assert one["received"] == one["ok"]
        assert two["received"] == two["ok"]
        assert bench.now.seq - 1 == one["ok"] + two["ok"]
        assert bench.now.swaps == {("ok", ""): SWAPS}
        assert bench.now.restarts == {}


@in_loop
async def test_kill_of_the_worker_loses_nothing() -> None:
    """After kill -9 counters never fall and numbers go on; it is not ready then."""
    async with running(placed(1)) as bench:
        await bench.ready()
        await bench.answers(1, 100)
        before, seq = bench.outcomes(1), bench.now.seq
        pid = bench.now.worker_pid
        os.kill(pid, signal.SIGKILL)
        while bench.now.reason != Reason.CRASH:
            counted = bench.outcomes(1)
            assert all(counted[key] >= before[key] for key in before)
            before = counted
            await asyncio.sleep(0)
        assert not bench.now.ready
        between = bench.outcomes(1)
        assert between["received"] == between["ok"] + between["failed"]
        assert between["failed"] in (0, 1)
        assert all(between[key] >= before[key] for key in before)
        # Killed between two stores, the last sample was counted and has no number yet.
        numbered = bench.now.seq - 1
        assert numbered in {between["received"], between["ok"]}
        assert numbered >= seq - 1
        await bench.ready()
        await bench.answers(1, 100)
        assert bench.outcomes(1)["failed"] == between["failed"]
        assert bench.now.restarts == {"crash": 1}
        assert bench.fallen == []


@in_loop
async def test_a_recording_goes_on_after_a_crash() -> None:
    """A recorded source is answered once, sample by sample, over several workers."""
    slow = replace(STREAM, rate=400.0)
    async with running(placed(1), source=slow) as bench:
        for answered in (50, 150):
            await until(lambda n=answered: bench.now.seq > n, "samples")  # type: ignore[misc] # the number of this round
            os.kill(bench.now.worker_pid, signal.SIGKILL)
            await until(lambda: not bench.now.ready, "the death")
        await until(lambda: bench.now.seq - 1 >= 600, "the end of the recording")
        await until(lambda: bench.now.in_flight == 0, "the last sample")
        await asyncio.sleep(0.2)  # time in which a sample too many would come
        sums = bench.outcomes(1)
        assert sums["ok"] + sums["failed"] == sums["received"] == 600
        assert sums["failed"] <= 2


@in_loop
async def test_a_hang_is_killed_and_named() -> None:
    """A worker that stands still beyond its deadline is replaced, reason `hang`."""
    async with running(placed(1), deadline_ms=300.0) as bench:
        await bench.ready()
        pid = bench.now.worker_pid
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: bench.now.worker_pid != pid, "the hang is noticed")
        await until(lambda: bench.now.reason == Reason.HANG, "the reason")
        assert bench.reasons(1) in ({}, {"hang": 1})
        await bench.ready()
        assert bench.now.restarts == {"hang": 1}


@in_loop
async def test_three_deaths_in_a_row_set_the_model_aside() -> None:
    """The callback is told once, with the reason, and what it returns runs next."""
    async with running(placed(2)) as bench:
        bench.successor = placed(1)
        for death in range(3):
            await until(lambda n=death: bench.now.restarts.get("crash", 0) == n, "")  # type: ignore[misc] # the number of this round
            await bench.ready()
            os.kill(bench.now.worker_pid, signal.SIGKILL)
            await until(lambda: not bench.now.ready, "the death")
        await bench.ready()
        assert bench.fallen == [("digits", "crash")]
        assert bench.now.active == placed(1).installed
        await bench.answers(1, 10)
        os.kill(bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: not bench.now.ready, "the death")
        await bench.ready()
        assert bench.fallen == [("digits", "crash")]
        assert bench.now.restarts == {"crash": 4}


@in_loop
async def test_a_missing_source_never_costs_the_model(tmp_path: Path) -> None:
    """Models come and go without it; the worker is replaced once, when it is back."""
    path = tmp_path / "stream.npz"
    late = replace(ENDLESS, path=str(path))
    async with running(placed(1), source=late) as bench:
        await until(lambda: bench.now.state == "active", "the model")
        pid = bench.now.worker_pid
        await bench.pipeline.swap_in(placed(2))
        bench.pipeline.commit(placed(2))
        with pytest.raises(TrialFailedError) as refused:
            await bench.pipeline.swap_in(spoilt("digest"))
        assert refused.value.reason == "digest"
        assert (bench.now.worker_pid, bench.now.restarts) == (pid, {})
        assert (bench.now.ready, bench.now.reason) == (False, Reason.SOURCE_MISSING)
        shutil.copy(STREAM.path, path)
        await bench.answers(2)
        assert bench.now.restarts == {"source_missing": 1}
        assert bench.fallen == []


@in_loop
async def test_a_candidate_that_kills_its_worker_is_forgotten() -> None:
    """Whatever a candidate does to its worker, the committed model is not to blame."""
    async with running(placed(1)) as bench:
        for _ in range(4):
            await bench.ready()
            await bench.pipeline.swap_in(placed(2))
            await bench.answers(2)
            os.kill(bench.now.worker_pid, signal.SIGKILL)
            await until(lambda: bench.now.state == "active", "the committed model")
        await bench.ready()
        assert bench.fallen == []
        assert bench.now.active == placed(1).installed
        assert bench.now.restarts == {"crash": 4}


@in_loop
async def test_what_is_wrong_with_the_source_comes_before_no_model() -> None:
    """Nobody shall wait for a model where a recording is of no known kind."""
    async with running(source=FilesSource(__file__)) as bench:
        await until(lambda: bench.now.reason == Reason.SOURCE_FAILED, "the reason")
        assert (bench.now.ready, bench.now.restarts) == (False, {})


def spoilt(kind: str) -> Placed:
    """Return a candidate that a worker must refuse."""
    bundle = digits(2)
    manifest = bundle.manifest
    model = bytes(bundle.variant_bytes("int8"))
    if kind == "digest":
        model = bytes([model[0] ^ 1]) + model[1:]
    if kind == "contract":
        variants = tuple(
            replace(v, outputs=tuple(replace(o, shape=(1, 9)) for o in v.outputs))
            for v in manifest.variants
        )
        manifest = replace(manifest, labels=manifest.labels[:9], variants=variants)
    raw = render_manifest(manifest)
    altered = AlteredBundle(manifest, raw, "0" * 64, 1, bundle.golden, model)
    return place(altered)


@pytest.mark.parametrize("kind", ["digest", "contract"])
def test_a_refused_candidate_leaves_the_active_model(kind: str) -> None:
    """A candidate that a worker refuses says why; the active model never stops."""

    @in_loop
    async def case() -> None:
        async with running(placed(1)) as bench:
            await bench.ready()
            pid = bench.now.worker_pid
            with pytest.raises(TrialFailedError) as refused:
                await bench.pipeline.swap_in(spoilt(kind))
            await bench.answers(1, 50)
            assert refused.value.reason == kind
            assert bench.now.worker_pid == pid
            assert bench.now.state == "active"
            assert bench.now.swaps == {("failed", kind): 1}
            assert bench.outcomes(1)["failed"] == 0
            await bench.pipeline.swap_in(placed(2))
            await bench.answers(2)

    case()


@in_loop
async def test_a_hog_is_refused_for_memory() -> None:
    """A candidate that asks for more than the worker may have leaves it unharmed."""
    stated, golden = lying("huge")
    raw, model = render_manifest(stated), content("huge")
    hog = AlteredBundle(stated, raw, "0" * 64, 1, memoryview(golden), model)
    async with running(placed(1)) as bench:
        await bench.ready()
        with pytest.raises(TrialFailedError) as refused:
            await bench.pipeline.swap_in(place(hog, "huge"))
        await bench.answers(1, 50)
        assert refused.value.reason == "memory"
        assert (bench.now.state, bench.now.restarts) == ("active", {})


@in_loop
async def test_swap_back() -> None:
    """What was committed answers again; a second time changes nothing."""
    async with running(placed(1)) as bench:
        await bench.ready()
        await bench.pipeline.swap_in(placed(2))
        await bench.answers(2)
        await bench.pipeline.swap_back()
        await bench.pipeline.swap_back()
        await bench.answers(1, 10)
        assert bench.now.state == "active"
        assert bench.now.swaps == {("ok", ""): 1, ("rolled_back", ""): 1}
        assert bench.now.restarts == {}


@in_loop
async def test_swap_back_to_nothing() -> None:
    """A first candidate that is not committed stops answering, without blame."""
    async with running() as bench:
        await bench.pipeline.swap_in(placed(1))
        await bench.answers(1)
        await bench.pipeline.swap_back()
        await until(lambda: bench.now.state == "none", "nothing answers")
        await until(lambda: bench.now.restarts == {"requested": 1}, "the new worker")
        assert bench.now.reason == Reason.NO_MODEL
        assert bench.fallen == []


@in_loop
async def test_stop_drains_and_is_quick() -> None:
    """Stop ends the sample in flight, counts it, and leaves no process."""
    async with running(placed(1), rules=SuperviseSettings()) as bench:
        await bench.ready()
        pid = bench.now.worker_pid
        await bench.pipeline.stop()
        sums = bench.outcomes(1)
        assert sums["received"] == sums["ok"]
        assert bench.now.seq - 1 == sums["ok"]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert bench.now.restarts == {}


@in_loop
async def test_stop_does_not_wait_for_a_worker_that_hangs() -> None:
    """A worker that does not stop in time is killed, and its sample counted."""
    rules = SuperviseSettings(drain_s=0.1)
    async with running(placed(1), rules=rules) as bench:
        await bench.ready()
        os.kill(bench.now.worker_pid, signal.SIGSTOP)
        await bench.pipeline.stop()
        sums = bench.outcomes(1)
        assert sums["received"] == sums["ok"] + sums["failed"]


@in_loop
async def test_stop_while_a_worker_starts() -> None:
    """A stop that comes before the worker is ready ends it all the same."""
    async with running(placed(1)) as bench:
        await asyncio.sleep(0)
        await bench.pipeline.stop()
        assert bench.now.worker_pid == 0


@in_loop
async def test_a_worker_that_never_gets_ready_is_replaced() -> None:
    """Start has a deadline, too; the next one is tried after a pause."""
    rules = SuperviseSettings(start_s=0.001, backoff_s=0.05, max_backoff_s=0.1)
    async with running(placed(1), rules=rules) as bench:
        await until(lambda: bench.now.restarts.get("hang", 0) >= 4, "deaths")
        assert (bench.now.ready, bench.now.reason) in (
            (False, Reason.HANG),
            (False, Reason.STARTING),
        )
        assert bench.fallen == []
        with pytest.raises(DeviceError) as failed:  # it is not the candidate's fault
            await bench.pipeline.swap_in(placed(2))
        assert failed.value.reason == Reason.STARTING


@in_loop
async def test_sinks_get_every_line_of_several_lives(tmp_path: Path) -> None:
    """Lines of all workers are in the file when the pipeline has ended: no hole."""
    path = tmp_path / "lines.jsonl"
    script = tmp_path / "keep.sh"
    script.write_text(f"exec cat > {tmp_path}/piped.jsonl\n", encoding="utf-8")
    sinks = (FileSink(str(path)), CountSink(), CommandSink(("sh", str(script))))
    slow = replace(ENDLESS, rate=500.0)
    async with running(placed(1), source=slow, sinks=sinks) as bench:
        await bench.ready()
        await bench.answers(1, 20)
        await bench.pipeline.swap_in(placed(2))
        bench.pipeline.commit(placed(2))
        await bench.answers(2, 20)
        os.kill(bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: not bench.now.ready, "the death")
        await bench.ready()
        await bench.answers(2, 20)
        await bench.pipeline.stop()
        dropped = bench.now.sink_dropped
        failed = bench.outcomes(2)["failed"]
        seq = bench.now.seq
    assert dropped == {"0-file": 0, "2-command": 0}
    for lines in (path, tmp_path / "piped.jsonl"):
        rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
        numbers = [row["seq"] for row in rows]
        assert numbers == sorted(set(numbers))
        assert seq - 1 - len(rows) in (failed, failed - 1, 0)
        assert [row["version"] for row in rows] == sorted(
            row["version"] for row in rows
        )


@in_loop
async def test_drops_of_a_sink_never_fall() -> None:
    """What a dead worker could not hand over stays counted."""
    # A program that never reads: the pipe fills up, and then predictions are dropped.
    sinks = (CommandSink(("sleep", "600")),)
    async with running(placed(1), sinks=sinks) as bench:
        await bench.ready()
        await until(lambda: bench.now.sink_dropped["0-command"] > 100, "drops")
        before = bench.now.sink_dropped["0-command"]
        os.kill(bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: not bench.now.ready, "the death")
        assert bench.now.sink_dropped["0-command"] >= before
        await bench.ready()
        assert bench.now.sink_dropped["0-command"] >= before


@pytest.mark.parametrize("behaviour", ["nonsense", "late_nonsense", "stranger", "huge"])
def test_nonsense_from_a_child_is_a_crash(behaviour: str) -> None:
    """A child that speaks no language of ours is ended like one that crashed."""

    @in_loop
    async def case() -> None:
        program = (*ROGUE, behaviour)
        async with running(placed(1), program=program) as bench:
            await until(lambda: bench.now.restarts.get("crash", 0) >= 2, "deaths")
            assert bench.now.restarts.keys() == {"crash"}
            assert not bench.now.ready

    case()


@in_loop
async def test_the_boards_own_readings_are_a_source() -> None:
    """Readings arrive at the worker; a model that cannot take them counts failures."""
    source = BoardSource(rate=100.0)
    async with running(placed(1), source=source) as bench:
        await until(lambda: bench.outcomes(1)["failed"] > 3, "readings")
        assert bench.reasons(1).keys() - {"overrun"} == {"input"}
        assert (bench.now.ready, bench.now.reason) == (False, Reason.INPUT)


@pytest.mark.parametrize("memory", [True, False])
def test_a_source_that_never_answers_is_not_the_models_fault(
    tmp_path: Path,
    *,
    memory: bool,
) -> None:
    """A recording on a file system that hangs replaces workers, not models."""
    path = tmp_path / "stuck.npy"
    os.mkfifo(path)
    rules = SuperviseSettings(start_s=3.0, backoff_s=0.05, crash_limit=2)

    @in_loop
    async def case() -> None:
        source = FilesSource(str(path), memory=memory)
        async with running(
            placed(1), source=source, rules=rules, deadline_ms=300.0
        ) as bench:
            await until(
                lambda: bench.now.restarts.get(Reason.SOURCE_SILENT, 0) >= 2,
                "two workers end",
            )
            assert (bench.fallen, set(bench.now.restarts)) == (
                [],
                {Reason.SOURCE_SILENT},
            )

    case()
