"""The preflight child's side: every pair is loaded, compared, pushed and timed.

The rules this module keeps:
 * What comes next is announced (``Examining``) before it is done: if this process dies,
   the daemon knows whom to blame.
 * Cheap and telling first: contract, golden samples, boundary inputs, and only then
   the clock, for those that are left.
 * Every pair that was tried gets exactly one ``Finding``; ``Examined`` comes last.
 * The process ends itself by SIGALRM at the deadline, even while a runtime holds the
   GIL for ever.
"""

import hashlib
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from agent.core.executors import Executor
from agent.core.manifest import Manifest, parse_manifest
from agent.core.messages import Examine, Examined, Examining, Finding, Message
from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, TrialFailedError
from agent.worker.agreement import check_boundaries, check_golden
from agent.worker.engines import import_runtime
from agent.worker.golden import GoldenSamples, parse_golden
from agent.worker.memory import judge_growth, read_memory
from agent.worker.model import LoadedModel, load_model
from agent.worker.samples import Arrays
from agent.worker.timing import (
    Timed,
    affordable,
    count_runs,
    fitting_rounds,
    summarise,
    time_runs,
)

Send = Callable[[Message], None]
TIMED_INPUTS = 8  # different inputs, so that no branch predictor learns one by heart
WARM_RUNS = 3
# The clock must leave time for the findings, and for a slow board's hiccups.
TIMING_SHARE = 0.8


@dataclass(slots=True)
class Contender:
    """A pair that has agreed so far, and what was found out about it."""

    index: int
    model: LoadedModel
    inputs: list[Arrays]
    max_difference: float
    ram_bytes: int
    rounds: list[list[int]] = field(default_factory=list)

    def time_round(self, runs: int) -> None:
        """Add one round of timed runs, each on the next of the inputs."""
        infer = self.model.infer
        infer(self.inputs[0])  # the others pushed its weights out of the caches
        self.rounds.append(time_runs(infer, self.inputs, runs))


@dataclass(frozen=True, slots=True)
class Examination:
    """One Examine message, with its files opened."""

    manifest: Manifest
    plan: Sequence[tuple[str, Executor]]
    models: dict[str, int]
    golden: GoldenSamples
    send: Send
    digests: Mapping[str, str] = field(default_factory=dict)

    def finding(self, index: int, err: AgentError) -> None:
        """Report a pair that may not run."""
        self.send(Finding(index, Reason(err.reason), str(err)))


def examine(message: Examine, descriptors: Sequence[int], send: Send) -> None:
    """Try every pair of the plan and report, as the message's docstring says.

    Args:
        message: The plan.
        descriptors: A sealed memfd for each variant of the plan, in the order of first
            appearance, then the golden samples.
        send: Takes one message to the daemon.
    """
    deadline_ns = time.perf_counter_ns() + int(message.deadline_s * 1e9)
    with ends_by(message.deadline_s):
        try:
            examination = _open(message, descriptors, send)
        except AgentError as err:
            for index in range(len(message.plan)):
                send(Finding(index, Reason(err.reason), str(err)))
        else:
            contenders = _compare_all(examination)
            _time_all(examination, contenders, message.rounds, deadline_ns)
        send(Examined())


def _open(message: Examine, descriptors: Sequence[int], send: Send) -> Examination:
    """Parse what came with the message.

    Raises:
        BundleRefusedError: The manifest or the golden samples are not what was signed.
    """
    manifest = parse_manifest(message.manifest)
    for engine in {executor.engine for _, executor in message.plan}:
        with suppress(TrialFailedError):  # each pair will say so for itself
            import_runtime(engine)  # before memory is measured: it is no model's
    names = list(dict.fromkeys(variant for variant, _ in message.plan))
    golden = _map_golden(descriptors[len(names)], manifest)
    models = dict(zip(names, descriptors, strict=False))
    return Examination(manifest, message.plan, models, golden, send, message.digests)


def _map_golden(descriptor: int, manifest: Manifest) -> GoldenSamples:
    """Return the golden samples of a memfd, whose digest is checked first.

    Raises:
        BundleRefusedError: ``digest``, or whatever ``parse_golden`` raises.
    """
    size = os.fstat(descriptor).st_size
    if size != manifest.golden.size:
        raise BundleRefusedError(f"golden.npz: {size} bytes", reason=Reason.DIGEST)
    mapped = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    if hashlib.sha256(mapped).hexdigest() != manifest.golden.sha256:
        raise BundleRefusedError("golden.npz: changed", reason=Reason.DIGEST)
    return parse_golden(memoryview(mapped), manifest)


def _compare_all(examination: Examination) -> list[Contender]:
    """Return the pairs whose answers are right; report the others."""
    contenders = []
    for index in range(len(examination.plan)):
        try:
            contenders.append(_compare(examination, index))
        except AgentError as err:
            examination.finding(index, err)
        except MemoryError as err:  # numpy's own
            examination.send(Finding(index, Reason.MEMORY, f"no memory: {err}"))
    return contenders


def _compare(examination: Examination, index: int) -> Contender:
    """Load one pair and compare its answers with the golden ones.

    Raises:
        AgentError: It may not run; the reason says why.
    """
    variant, executor = examination.plan[index]
    before = read_memory()
    examination.send(Examining(index, "load"))
    model = load_model(
        0,
        examination.manifest,
        variant,
        executor,
        examination.models[variant],
        examination.digests.get(variant, ""),
    )
    examination.send(Examining(index, "golden"))
    difference, inputs = check_golden(model, examination.golden)
    examination.send(Examining(index, "boundary"))
    check_boundaries(model, inputs)
    growth = judge_growth(before, read_memory())
    return Contender(index, model, inputs[:TIMED_INPUTS], difference, growth)


def _time_all(
    examination: Examination,
    contenders: Sequence[Contender],
    rounds: int,
    deadline_ns: int,
) -> None:
    """Time the contenders in turns and report them."""
    estimates = [_warm(examination, contender) for contender in contenders]
    left_ns = int((deadline_ns - time.perf_counter_ns()) * TIMING_SHARE)
    kept = affordable([count_runs(one) * one for one in estimates], left_ns)
    for at, contender in enumerate(contenders):
        if at not in kept:
            late = f"five rounds of {estimates[at] / 1e6:.0f} ms exceed the deadline"
            examination.send(Finding(contender.index, Reason.LATENCY, late))
    round_ns = sum(count_runs(estimates[at]) * estimates[at] for at in kept)
    for turn in range(fitting_rounds(round_ns, left_ns, rounds) if kept else 0):
        # Begin with another one each time: the first of a round pays for the last.
        first = turn % len(kept)
        for at in kept[first:] + kept[:first]:
            examination.send(Examining(contenders[at].index, "time"))
            contenders[at].time_round(count_runs(estimates[at]))
    for at in kept:
        _report(examination, contenders[at], summarise(contenders[at].rounds))


def _warm(examination: Examination, contender: Contender) -> int:
    """Warm one contender; return the ns of its fastest run."""
    examination.send(Examining(contender.index, "warm"))
    contender.model.reset()
    return min(time_runs(contender.model.infer, contender.inputs, WARM_RUNS))


def _report(examination: Examination, contender: Contender, timed: Timed) -> None:
    """Report a pair that may run, as far as this process can tell."""
    examination.send(
        Finding(
            contender.index,
            p50_ms=timed.p50_ms,
            p95_ms=timed.p95_ms,
            max_difference=contender.max_difference,
            ram_bytes=contender.ram_bytes,
            peak_bytes=read_memory().peak_bytes,
        )
    )


@contextmanager
def ends_by(deadline_s: float) -> Iterator[None]:
    """End the process by SIGALRM at the deadline; disarmed on the way out."""
    earlier_s, interval_s = signal.setitimer(signal.ITIMER_REAL, deadline_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, earlier_s, interval_s)
