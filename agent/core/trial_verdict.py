"""What a trial is made of and how it is judged: pairs to try, findings, one choice.

The rules this module keeps:
 * ``judge_preflight`` chooses among the pairs that passed and keep the budgets; which
   of them, ``agent.core.variant_choice`` says.
 * A pair without a finding did not pass, whatever the reason.
 * A variant that this board has no memory for is not even tried: the board could die of
   it, and not only the child.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

from agent.core.executors import DelegateFile, EngineName, Executor, Kernels
from agent.core.figures import tell_apart
from agent.core.installed import PassedOver
from agent.core.manifest import Budgets, Manifest, Variant
from agent.core.messages import Finding
from agent.core.reasons import Reason
from agent.core.variant_choice import Pair, choose_pair, explain_losers
from agent.errors import TrialFailedError

MB = 1_000_000
MAX_PAIRS = 48  # 16 variants, two runtimes; the plan has to fit one message

# Most wanted first: LiteRT is maintained, and much faster on int8 models.
_ENGINES: tuple[EngineName, ...] = ("litert", "tflite")

# How far a pair got: who came furthest says most about what is missing.
_PROGRESS = (
    Reason.LATENCY,
    Reason.NOT_FINITE,
    Reason.GOLDEN,
    Reason.INPUT,
    Reason.OUTPUT,
    Reason.INVOKE,
    Reason.MEMORY,
    Reason.HANG,
    Reason.CRASH,
    Reason.CONTRACT,
    Reason.DYNAMIC_SHAPE,
    Reason.UNSUPPORTED_OP,
    Reason.DIGEST,
    Reason.DELEGATE,
    Reason.NO_EXECUTOR,
)


class Chosen(Struct, frozen=True):
    """The variant and the executor that will run it, with what was measured.

    Attributes:
        why: Why these, for people.
        passed_over: What was tried beside them, the most telling first.
    """

    variant: str
    executor: Executor
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    ram_bytes: int = 0
    why: str = ""
    passed_over: tuple[PassedOver, ...] = ()


class _Wish(NamedTuple):
    """What the settings of a pipeline ask of executors."""

    threads: tuple[int, ...]
    kernels: str
    delegates: Sequence[DelegateFile]


def plan_examination(
    manifest: Manifest,
    engines: Mapping[str, str],
    threads: int = 1,
    kernels: str = "auto",
    delegates: Sequence[DelegateFile] = (),
    cpu_count: int = 1,
) -> list[Pair]:
    """Return the (variant, executor) pairs to try, most wanted first.

    Args:
        manifest: What the bundle offers.
        engines: Name -> version of the runtimes on this board, most wanted first.
        threads: At most so many threads, and no more than there are CPUs; one thread
            is always tried as well.
        kernels: One kind of kernels, or ``auto`` for all that may be fastest.
        delegates: The libraries that the settings allow.
        cpu_count: CPUs of this board.

    Raises:
        TrialFailedError: ``no_executor`` or ``delegate``: no variant may run here.
    """
    counts = sorted({1, max(1, min(threads, cpu_count))})
    wish = _Wish(tuple(counts), kernels, delegates)
    pairs = [
        (variant.name, executor)
        for variant in manifest.variants
        for engine in _ENGINES
        if engine in engines and (not variant.runtimes or engine in variant.runtimes)
        for executor in _executors(variant, engine, engines[engine], wish)
    ]
    if not pairs:
        raise _nothing_to_try(manifest, tuple(engines), wish)
    return pairs[:MAX_PAIRS]


def leave_out(
    plan: Sequence[Pair], manifest: Manifest, available_bytes: float
) -> dict[int, Finding]:
    """Return findings for the pairs that this board has no memory for.

    Args:
        plan: What could be tried.
        manifest: Says what variants need.
        available_bytes: What the board can give; NaN where nobody knows.
    """
    left_out = {}
    for at, (name, _) in enumerate(plan):
        variant = manifest.variant(name)
        needed = variant.size + variant.ram_bytes
        if needed > available_bytes:  # false for NaN
            texts = tell_apart(needed / MB, available_bytes / MB, 1)
            what = f"needs {texts[0]} MB, {texts[1]} MB available"
            left_out[at] = Finding(at, Reason.MEMORY, what)
    return left_out


def declared_accuracy(manifest: Manifest) -> dict[str, float]:
    """Return variant -> share of right answers, of those that say it."""
    variants = manifest.variants
    return {it.name: it.accuracy for it in variants if it.accuracy is not None}


def judge_preflight(
    plan: Sequence[Pair],
    findings: Iterable[Finding],
    crashed: Iterable[int],
    budgets: Budgets,
    accuracy: Mapping[str, float] = MappingProxyType({}),
) -> Chosen:
    """Choose the pair that is to run, of those that agree and keep the budgets.

    Args:
        plan: What was tried.
        findings: What the preflight child reported, in any order.
        crashed: Numbers of pairs that ended their child; a mapping gives reasons.
        budgets: The manifest's limits.
        accuracy: See ``declared_accuracy``.

    Raises:
        TrialFailedError: No pair passed; the reason is that of the one that came
            furthest, the message names it.
    """
    verdicts = _verdicts(len(plan), findings, crashed, budgets)
    if all(found.reason for found in verdicts):
        raise _none_passed(plan, verdicts)
    chosen, why = choose_pair(plan, verdicts, accuracy)
    found = verdicts[chosen]
    return Chosen(
        *plan[chosen],
        found.p50_ms,
        found.p95_ms,
        found.ram_bytes,
        why,
        explain_losers(plan, verdicts, chosen, accuracy),
    )


def judge_budgets(finding: Finding, budgets: Budgets) -> Finding:
    """Return the finding, failed if it passed so far but exceeds a budget."""
    if finding.reason:
        return finding
    if finding.ram_bytes > budgets.ram_mb * MB:
        ram, limit = tell_apart(finding.ram_bytes / MB, budgets.ram_mb, 1)
        detail = f"{ram} MB, {limit} MB allowed"
        return _failed(finding, Reason.MEMORY, detail)
    # Written so that a NaN, from whatever child, does not pass.
    if not finding.p95_ms <= budgets.p95_ms:
        p95, limit = tell_apart(finding.p95_ms, budgets.p95_ms, 3)
        detail = f"p95 {p95} ms, {limit} ms allowed"
        return _failed(finding, Reason.LATENCY, detail)
    return finding


def _executors(
    variant: Variant, engine: EngineName, version: str, wish: _Wish
) -> list[Executor]:
    """Return what may compute a variant on one runtime, most wanted first."""
    kinds: tuple[tuple[Kernels, tuple[int, ...]], ...] = (
        ("xnnpack", wish.threads),
        # Slower where XNNPACK works: one thread is the alternative, not a contest.
        ("plain", wish.threads if wish.kernels == "plain" else (1,)),
        # 50 times slower: an oracle, chosen only by name.
        ("reference", (1,)),
    )
    found = [
        Executor(engine, "delegate", wish.threads[-1], version, allowed)
        for allowed in wish.delegates
        if allowed.name in variant.delegates and wish.kernels in ("auto", "delegate")
    ]
    for kernels, counts in kinds:
        wanted = wish.kernels == kernels
        if wanted or (wish.kernels == "auto" and kernels != "reference"):
            found += [Executor(engine, kernels, count, version) for count in counts]
    return found


def _nothing_to_try(
    manifest: Manifest, engines: tuple[str, ...], wish: _Wish
) -> TrialFailedError:
    """Return the error for a bundle of which nothing may run on this board."""
    if wish.kernels == "delegate" and engines:
        allowed = ", ".join(file.name for file in wish.delegates) or "none"
        return TrialFailedError(
            f"no variant of {manifest.model} may use an allowed delegate ({allowed})",
            reason=Reason.DELEGATE,
        )
    return TrialFailedError(
        f"no variant of {manifest.model} may run on {', '.join(engines) or 'nothing'}",
        reason=Reason.NO_EXECUTOR,
    )


def _verdicts(
    count: int,
    findings: Iterable[Finding],
    crashed: Iterable[int],
    budgets: Budgets,
) -> list[Finding]:
    """Return one finding for each pair, budgets applied."""
    reasons = crashed if isinstance(crashed, Mapping) else {}
    verdicts = [
        Finding(at, Reason.HANG, "not tried before the deadline") for at in range(count)
    ]
    for finding in findings:
        if 0 <= finding.index < count:
            verdicts[finding.index] = judge_budgets(_believable(finding), budgets)
    for at in crashed:
        reason = reasons.get(at, Reason.CRASH)
        verdicts[at] = Finding(at, reason, "it ended the preflight child")
    return verdicts


def _believable(finding: Finding) -> Finding:
    """Fail what no clock can have measured: the child that reports is not trusted."""
    if finding.reason or 0 <= finding.p50_ms < math.inf:
        return finding
    return _failed(finding, Reason.CRASH, "it reported an impossible duration")


def _none_passed(plan: Sequence[Pair], verdicts: Sequence[Finding]) -> TrialFailedError:
    """Return the error that tells most about why nothing passed."""
    telling = min(verdicts, key=lambda found: _progress(found.reason))
    variant, executor = plan[telling.index]
    others = len({found.index for found in verdicts}) - 1
    also = f" ({others} more did not pass)" if others else ""
    return TrialFailedError(
        f"{variant} on {executor.describe()}: {telling.detail}{also}",
        reason=telling.reason,
    )


def _progress(reason: Reason) -> int:
    """Return the place of a reason in ``_PROGRESS``; unknown ones come last."""
    return _PROGRESS.index(reason) if reason in _PROGRESS else len(_PROGRESS)


def _failed(finding: Finding, reason: Reason, detail: str) -> Finding:
    """Return a finding that keeps its measurements and fails."""
    return Finding(
        finding.index,
        reason,
        detail,
        finding.p50_ms,
        finding.p95_ms,
        finding.max_difference,
        finding.ram_bytes,
        finding.peak_bytes,
    )
