"""A real worker in whose memory a bit flips: replaced, answering again; then set aside.

The flips are in the packed copies that kernels compute from, written from outside.
"""

from dataclasses import replace

import numpy as np

from agent.core.executors import Executor
from agent.core.protect_settings import IntegritySettings
from agent.core.reasons import Reason
from agent.supervise.placing import Placed
from agent.supervise.watching import Monitoring
from agent.worker.engines import build_engine
from agent.worker.engines.build import InterpreterEngine
from tests.fakes.digits import STREAM, Bench, executor, in_loop, placed, running, until
from tests.fakes.other_memory import flip_packed, need_root

FAST = Monitoring(
    integrity=IntegritySettings(rehash_mbps=5.0, known_answers=True, audit_one_in=10)
)


def packed(version: int) -> Placed:
    """Return a version of the demo's model on the kernels that pack weights."""
    one = placed(version)
    kernels = Executor(executor().engine, "xnnpack")
    from msgspec.structs import replace as with_fields

    return replace(one, installed=with_fields(one.installed, executor=kernels))


def weights(one: Placed) -> bytes:
    """Return the largest weight tensor of a model."""
    content = bytes(one.bundle.variant_bytes("int8"))
    engine = build_engine(one.installed.executor, content)
    assert isinstance(engine, InterpreterEngine)
    largest = b""
    for tensor in engine.interpreter.get_tensor_details():
        try:
            values = np.array(engine.interpreter.tensor(tensor["index"])())
        except ValueError:
            continue
        raw = values.tobytes()
        if values.ndim > 1 and len(raw) > len(largest) and raw in content:
            largest = raw
    return largest


async def checked(bench: Bench) -> None:
    """Wait until the memory of what answers was hashed as a whole."""

    def whole() -> bool:
        now = bench.now.integrity.now
        return now is not None and now.passed > 0 and "packed" in now.bytes

    await until(whole, "a pass over memory")


@in_loop
async def test_a_flipped_bit_costs_a_restart_and_the_next_one_the_model() -> None:
    """The first is mended from the verified bytes, the second rolls back."""
    need_root()
    one = packed(1)
    wanted = weights(one)
    async with running(one, monitoring=FAST) as bench:
        bench.successor = packed(2)
        await bench.ready()
        await checked(bench)
        first = bench.now.worker_pid
        flip_packed(first, wanted)
        await until(lambda: bench.now.restarts.get(Reason.INTEGRITY) == 1, "a restart")
        await until(lambda: bench.now.worker_pid not in (0, first), "another worker")
        await bench.ready()
        await bench.answers(1)
        seen = bench.now.integrity
        assert seen.last is not None
        assert (seen.last.check, seen.answer) == ("packed", "restart")
        assert seen.mismatches["packed"] >= 1
        assert bench.fallen == []

        await checked(bench)
        flip_packed(bench.now.worker_pid, wanted)
        await until(lambda: bool(bench.fallen), "a fall back")
        assert bench.fallen == [("digits", Reason.INTEGRITY)]
        await bench.answers(2)
        assert bench.now.integrity.answer == "roll_back"


@in_loop
async def test_checks_are_no_samples() -> None:
    """Known answers are asked while nobody comes, and nothing counts them."""
    async with running(packed(1), source=STREAM, monitoring=FAST) as bench:
        await bench.ready()
        await until(
            lambda: (
                bench.now.integrity.checks.get("answers", 0) > 3
                and bench.outcomes(1)["received"] == len(stream())
            ),
            "known answers",
        )
        sums = bench.outcomes(1)
        assert sums["ok"] == sums["received"] == len(stream())
        assert bench.now.integrity.mismatches == {} or not any(
            bench.now.integrity.mismatches.values()
        )
        assert bench.now.worker_locks["seccomp"] == ""


@in_loop
async def test_settings_are_followed_without_a_restart() -> None:
    """Checks that are switched off end with the next load of the same worker."""
    async with running(packed(1), monitoring=FAST) as bench:
        await bench.ready()
        await checked(bench)
        worker = bench.now.worker_pid
        off = IntegritySettings(rehash_mbps=0, known_answers=False, audit_one_in=0)
        pipeline = bench.pipeline
        await pipeline.follow(
            pipeline._rules,
            FAST.settings,
            off,
        )
        assert not bench.now.integrity.wanted
        await bench.answers(1)
        assert bench.now.worker_pid == worker


def stream() -> np.ndarray:
    """Return the recorded samples."""
    with np.load(STREAM.path) as archive:
        images: np.ndarray = archive[STREAM.array]
        return images
