"""Preflight: a candidate is tried in a child of its own, which may die of it.

The rules this module keeps:
 * One child tries every pair of variant and executor; if it dies, the pair it had
   announced is to blame, and a new child tries the others.
 * The child has the worker's locks, a memory limit and a deadline.
 * The child is not trusted: what it sends is believed only where it makes sense.
 * What the findings mean is decided by ``agent.core.trial_verdict``, not here.
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from agent.core.executors import DelegateFile, Executor
from agent.core.manifest import Manifest
from agent.core.messages import (
    Examine,
    Examined,
    Examining,
    Finding,
    FromChild,
    Ready,
)
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.trial_verdict import (
    Chosen,
    judge_preflight,
    plan_examination,
)
from agent.errors import DeviceError, TrialFailedError
from agent.supervise.child import PROGRAM, Child, spawn_child
from agent.supervise.memfd import sealed_memfd

log = logging.getLogger(__name__)
START_S = 30.0  # numpy and the runtime, cold, on a Pi 3 with a slow card
MB = 1024 * 1024
# Golden samples, raw copies and thread stacks of a preflight beside the model itself.
SLACK_MB = 96
# Messages about one pair, a few times over: stages, timed rounds, a finding.
MESSAGES_A_PAIR = 64
LAST_WORDS_S = 0.5  # a process that died of a signal is gone at once
# SIGKILL is what the kernel's memory killer sends, SIGALRM the child's own deadline.
CAUSES = {-signal.SIGKILL: Reason.MEMORY, -signal.SIGALRM: Reason.HANG}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pipeline's settings ask of executors; see ``plan_examination``."""

    threads: int = 1
    kernels: str = "auto"
    delegates: Sequence[DelegateFile] = ()
    cpu_count: int = 1


@dataclass(slots=True)
class PreflightReport:
    """What a preflight found out.

    Attributes:
        plan: The pairs that were tried.
        findings: Index in ``plan`` -> what was found.
        crashed: Index in ``plan`` -> the reason its child died for.
        locks: The layers that held while they were tried.
        chosen: What may run; set once judged.
    """

    plan: Sequence[tuple[str, Executor]] = ()
    findings: dict[int, Finding] = field(default_factory=dict)
    crashed: dict[int, Reason] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)
    chosen: Chosen | None = None

    def untried(self, indexes: Sequence[int]) -> list[int]:
        """Return those pairs about which nothing is known yet."""
        tried = self.findings.keys() | self.crashed.keys()
        return [index for index in indexes if index not in tried]


async def run_preflight(
    bundle: OpenedBundle,
    wish: Wish,
    report: PreflightReport | None = None,
    program: Sequence[str] = PROGRAM,
) -> PreflightReport:
    """Try a bundle in a child; return the report with the executor to use.

    Args:
        bundle: What to try.
        wish: What the settings ask of executors.
        report: Filled as findings come in, for whoever wants to see them even if
            nothing passes.
        program: What is started as the child; only tests start anything else.

    Raises:
        TrialFailedError: Nothing here may run it; the reason is the most telling one.
        DeviceError: There was no process or descriptor left to try it (``memory``).
    """
    report = report or PreflightReport()
    trial = bundle.manifest.trial
    async with _deadline(trial.preflight_s + START_S):
        while not _complete(report):
            await _one_child(bundle, report, wish, program)
    report.chosen = judge_preflight(
        report.plan,
        list(report.findings.values()),
        report.crashed,
        bundle.manifest.budgets,
    )
    return report


def _complete(report: PreflightReport) -> bool:
    """Whether every pair has been found out about."""
    return bool(report.plan) and not report.untried(range(len(report.plan)))


async def _one_child(
    bundle: OpenedBundle, report: PreflightReport, wish: Wish, program: Sequence[str]
) -> None:
    """Let one child try what has not been tried yet."""
    readable = [Path(delegate.path) for delegate in wish.delegates]
    try:
        child = await spawn_child(
            "preflight", name="preflight", readable=readable, program=program
        )
    except OSError as err:
        raise DeviceError(
            f"no child for a preflight: {err}", reason=Reason.MEMORY
        ) from err
    try:
        ready = await _ready(child)
        report.locks = ready.locks
        if not report.plan:
            report.plan = plan_examination(
                bundle.manifest,
                ready.engines,
                threads=wish.threads,
                kernels=wish.kernels,
                delegates=wish.delegates,
                cpu_count=wish.cpu_count,
            )
        await _converse(child, bundle, report)
    finally:
        await child.close()


async def _ready(child: Child) -> Ready:
    """Wait until the child has locked itself in.

    Raises:
        TrialFailedError: It died or sent something else (``crash``).
    """
    message = await _next(child)
    if isinstance(message, Ready):
        return message
    raise TrialFailedError(
        f"the preflight child did not start: {child.last_words or 'no word'}",
        reason=Reason.CRASH,
    )


async def _converse(
    child: Child, bundle: OpenedBundle, report: PreflightReport
) -> None:
    """Send what is left of the plan and collect the findings."""
    left = report.untried(range(len(report.plan)))
    plan = tuple(report.plan[index] for index in left)
    _limit_memory(child.pid, bundle.manifest)
    descriptors = _descriptors(bundle, plan)
    try:
        trial = bundle.manifest.trial
        order = Examine(bundle.raw_manifest, plan, deadline_s=trial.preflight_s)
        await child.send(order, descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    blamed = await _collect(child, report, left)
    if blamed is not None:
        report.crashed[blamed] = await _cause(child)


async def _collect(
    child: Child, report: PreflightReport, left: Sequence[int]
) -> int | None:
    """Collect findings until the child has ended; return the pair it died of, if any.

    Args:
        child: Who sends.
        report: What is filled.
        left: Numbers of the pairs that the child was given, in its order.
    """
    blamed = 0
    patience = MESSAGES_A_PAIR * (len(left) + 1)
    while patience and (message := await _next(child)) is not None:
        patience -= 1
        match message:
            case Examining() if 0 <= message.index < len(left):
                blamed = message.index
            case Finding() if 0 <= message.index < len(left):
                index = left[message.index]
                report.findings[index] = replace(message, index=index)
            case Examined():
                break
            case _:
                log.warning("preflight.unexpected", extra={"text": f"{message!r:.80}"})
                break
    if not report.untried(left):
        return None
    # The pair that was announced last may have been found out about already.
    untried = report.untried(left)
    return left[blamed] if left[blamed] in untried else untried[0]


async def _next(child: Child) -> FromChild | None:
    """Wait for the next message; None at the end, and for what is no message."""
    try:
        return await child.receive()
    except DeviceError as err:
        log.warning("preflight.broken", extra={"detail": str(err)})
        return None


async def _cause(child: Child) -> Reason:
    """Return why a child ended before its time; ``_one_child`` makes sure it did."""
    try:
        # It may have closed its socket before it dies of what it dies of.
        code = await asyncio.wait_for(child.wait(), LAST_WORDS_S)
    except TimeoutError:  # it lives: it was the one to break off
        return Reason.CRASH
    return CAUSES.get(code, Reason.CRASH)


def _descriptors(
    bundle: OpenedBundle, plan: Sequence[tuple[str, Executor]]
) -> list[int]:
    """Return one memfd a variant, in order of first appearance, then the golden one."""
    variants = list(dict.fromkeys(variant for variant, _ in plan))
    opened: list[int] = []
    try:
        opened.extend(
            sealed_memfd(f"model-{name}", bundle.variant_bytes(name))
            for name in variants
        )
        opened.append(sealed_memfd("golden", bundle.golden))
    except OSError as err:
        for descriptor in opened:
            os.close(descriptor)
        raise DeviceError(
            f"no memory for the candidate: {err}", reason=Reason.MEMORY
        ) from err
    return opened


def _limit_memory(pid: int, manifest: Manifest) -> None:
    """Cap the child's data at what the bundle declares, with slack for the trial."""
    largest = max(variant.size for variant in manifest.variants)
    limit = int((manifest.budgets.ram_mb + SLACK_MB) * MB * 1.25) + 2 * largest
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


@contextlib.asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """Translate a missed deadline."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as err:
        raise TrialFailedError(
            f"the preflight took longer than {seconds:.0f} s", reason=Reason.HANG
        ) from err
