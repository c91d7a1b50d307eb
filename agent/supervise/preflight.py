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
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path

from msgspec.structs import replace

from agent.core.executors import DelegateFile, Executor
from agent.core.messages import (
    Examine,
    Examined,
    Examining,
    Finding,
)
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.trial_verdict import (
    Chosen,
    declared_accuracy,
    judge_preflight,
    leave_out,
    plan_examination,
)
from agent.errors import DeviceError, TrialFailedError
from agent.supervise.child import PROGRAM, Child, spawn_child
from agent.supervise.memfd import sealed_memfd
from agent.supervise.trial_child import (
    START_S,
    cause_of_death,
    limit_child_memory,
    next_message,
    ready_child,
)

log = logging.getLogger(__name__)
# Messages about one pair, a few times over: stages, timed rounds, a finding.
MESSAGES_A_PAIR = 64


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pipeline's settings ask of executors; see ``plan_examination``.

    Attributes:
        available_bytes: Memory that the board can give; NaN where nobody knows.
    """

    threads: int = 1
    kernels: str = "auto"
    delegates: Sequence[DelegateFile] = ()
    cpu_count: int = 1
    available_bytes: float = nan


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
        declared_accuracy(bundle.manifest),
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
        ready = await ready_child(child)
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
            report.findings = leave_out(
                report.plan, bundle.manifest, wish.available_bytes
            )
        if report.untried(range(len(report.plan))):
            await _converse(child, bundle, report)
    finally:
        await child.close()


async def _converse(
    child: Child, bundle: OpenedBundle, report: PreflightReport
) -> None:
    """Send what is left of the plan and collect the findings."""
    left = report.untried(range(len(report.plan)))
    plan = tuple(report.plan[index] for index in left)
    limit_child_memory(child.pid, bundle.manifest)
    descriptors = _descriptors(bundle, plan)
    try:
        trial = bundle.manifest.trial
        order = Examine(
            bundle.raw_manifest,
            plan,
            deadline_s=trial.preflight_s,
            digests={name: bundle.variant_sha256(name) for name, _ in plan},
        )
        await child.send(order, descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    blamed = await _collect(child, report, left)
    if blamed is not None:
        report.crashed[blamed] = await cause_of_death(child)


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
    while patience and (message := await next_message(child)) is not None:
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
