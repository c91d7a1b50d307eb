"""What ``tinyward inspect`` finds out: a report that fills up until something refuses.

The rules this module keeps:
 * The order is a board's: container, manifest, contract, what may run, preflight. What
   was found out before a refusal stays in the report.
 * No model runs in this process.
"""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from agent.cli.draft import VARIANT, draft_manifest
from agent.cli.examiner import ChildExaminer
from agent.cli.inspection_profile import ProfileFacts, profile_facts
from agent.core.contract import Contract
from agent.core.executors import Executor
from agent.core.manifest import Budgets, Manifest, TensorSpec, Variant
from agent.core.messages import Finding
from agent.core.reasons import Reason
from agent.core.steps import Step
from agent.core.trial_verdict import Chosen, judge_budgets, plan_examination
from agent.errors import BundleRefusedError, TrialFailedError
from agent.publish.pack import render_bundle
from agent.supervise import preflight
from agent.supervise.preflight import PreflightReport, run_preflight
from agent.trust.bundle import Bundle, open_bundle
from agent.worker.runtimes import available_engines

CONTAINER_MARK = b"PK"  # of any ZIP; what is wrong with it is for the reader to say
MODEL_MARK = b"TFL3"  # the flatbuffer's file identifier, behind its root offset


class VariantFacts(Struct):
    """One variant, or the only model of a .tflite file.

    Attributes:
        tolerance: None where nobody stated one (a .tflite file); ``accuracy`` likewise.
        operators: Empty until its file was looked into.
    """

    name: str
    size: int
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ram_bytes: int
    tolerance: float | None = None
    runtimes: tuple[str, ...] = ()
    delegates: tuple[str, ...] = ()
    accuracy: float | None = None
    operators: tuple[str, ...] = ()


class BundleFacts(Struct):
    """What a bundle's manifest says beside its variants."""

    model: str
    version: int
    version_name: str
    schema: int
    task: str
    io: str
    labels: tuple[str, ...]
    preprocess: tuple[Step, ...]
    budgets: Budgets
    golden_samples: int


class Trial(Struct):
    """One pair that this board would try, and how it went if it was tried.

    Attributes:
        finding: None until it was tried; budgets are applied.
        chosen: Whether this is what would run; ``why`` or why not, of what passed.
    """

    variant: str
    executor: str
    finding: Finding | None = None
    chosen: bool = False
    why: str = ""


class Refusal(Struct):
    """Why a board like this one would refuse it."""

    reason: str
    detail: str
    todo: str


class SealedFacts(Struct):
    """What can be told of a sealed bundle without a key.

    Attributes:
        boards: Whom it is sealed for.
        marked: Whether each board has its own copy.
        opened: Whether a board's key has opened it.
    """

    model: str
    version: int
    algorithm: str
    plain_bytes: int
    boards: tuple[str, ...]
    marked: bool
    opened: bool = False


class Report(Struct):
    """Everything that was found out, in the order it was.

    Attributes:
        kind: What the file is; empty where it is neither.
        trials: What this board would try, most wanted first.
        ran: Whether it was tried.
        profile: What a bundle's profile says; None without one.
        refused: None where nothing refuses it.
        sealed: Of a sealed folder; the rest stays empty until a key opens it.
    """

    file: str
    size: int
    sha256: str
    kind: Literal["", "bundle", "model", "sealed"] = ""
    bundle: BundleFacts | None = None
    variants: tuple[VariantFacts, ...] = ()
    trials: tuple[Trial, ...] = ()
    ran: bool = False
    profile: ProfileFacts | None = None
    refused: Refusal | None = None
    sealed: SealedFacts | None = None


class Wish(Struct, frozen=True):
    """What the command line asks for."""

    run: bool
    threads: int
    kernels: str
    max_bytes: int


def begin_report(file: str, content: bytes) -> Report:
    """Return a report that knows no more than the bytes."""
    return Report(file, len(content), hashlib.sha256(content).hexdigest())


def fill_report(report: Report, content: bytes, wish: Wish) -> None:
    """Find out everything, in the order in which a board would refuse.

    Raises:
        AgentError: A board like this one would refuse it; the report is filled so far.
    """
    if content[4:8] == MODEL_MARK:
        report.kind = "model"
        _fill_from_model(report, content, wish)
    elif content.startswith(CONTAINER_MARK):
        report.kind = "bundle"
        fill_from_bundle(report, open_bundle(content, max_bytes=wish.max_bytes), wish)
    else:
        raise BundleRefusedError(
            "neither a bundle nor a .tflite file",
            reason=Reason.MALFORMED,
            todo="Name a file that `tinyward pack` or a converter has written; of a "
            "sealed bundle, its folder.",
        )


def _fill_from_model(report: Report, content: bytes, wish: Wish) -> None:
    """Find out about a .tflite file, by a draft of a bundle."""
    examiner = ChildExaminer()
    contract = examiner.contract(content)
    manifest = draft_manifest(contract, content)
    facts = _variant_facts(manifest.variants[0])
    facts.tolerance = None
    facts.operators = contract.operators
    report.variants = (facts,)
    _plan(report, manifest, wish)
    if wish.run:
        golden = examiner.drawn(manifest, content)
        drafted = render_bundle(manifest, {VARIANT: content}, golden)
        _run(report, open_bundle(drafted, max_bytes=len(drafted)), wish)


def fill_from_bundle(report: Report, bundle: Bundle, wish: Wish) -> None:
    """Find out about a bundle.

    Raises:
        AgentError: A board like this one would refuse it; the report is filled so far.
    """
    examiner = ChildExaminer()
    report.bundle = _bundle_facts(bundle.manifest)
    report.variants = tuple(map(_variant_facts, bundle.manifest.variants))
    for variant, facts in zip(bundle.manifest.variants, report.variants, strict=True):
        contract = examiner.contract(bytes(bundle.variant_bytes(variant.name)))
        facts.operators = contract.operators
        check_stated(variant, contract)
    report.profile = profile_facts(bundle)
    _plan(report, bundle.manifest, wish)
    if wish.run:
        _run(report, bundle, wish)


def check_stated(variant: Variant, contract: Contract) -> None:
    """Compare names, shapes and types that a manifest states with the model's own.

    Raises:
        TrialFailedError: ``contract``.
    """
    sides = (
        ("inputs", variant.inputs, contract.inputs),
        ("outputs", variant.outputs, contract.outputs),
    )
    for side, stated, found in sides:
        if _outline(stated) != _outline(found):
            raise TrialFailedError(
                f"variant {variant.name}: {side} are stated as "
                f"{_outline(stated)}, but are {_outline(found)}",
                reason=Reason.CONTRACT,
            )


def _outline(specs: Sequence[TensorSpec]) -> str:
    """Return names, shapes and types of tensors as text."""
    return ", ".join(
        f"{spec.name!r} {'x'.join(map(str, spec.shape)) or 'scalar'} {spec.dtype}"
        for spec in specs
    )


def _variant_facts(variant: Variant) -> VariantFacts:
    """Return what the manifest says about a variant."""
    return VariantFacts(
        name=variant.name,
        size=variant.size,
        sha256=variant.sha256,
        inputs=variant.inputs,
        outputs=variant.outputs,
        ram_bytes=variant.ram_bytes,
        tolerance=variant.tolerance,
        runtimes=variant.runtimes,
        delegates=variant.delegates,
        accuracy=variant.accuracy,
    )


def _bundle_facts(manifest: Manifest) -> BundleFacts:
    """Return what the manifest says beside its variants."""
    return BundleFacts(
        model=manifest.model,
        version=manifest.version,
        version_name=manifest.version_name,
        schema=manifest.schema,
        task=manifest.task,
        io=manifest.io,
        labels=manifest.labels,
        preprocess=manifest.preprocess,
        budgets=manifest.budgets,
        golden_samples=manifest.golden.samples,
    )


def _plan(report: Report, manifest: Manifest, wish: Wish) -> None:
    """Say what this board would try, most wanted first.

    Raises:
        TrialFailedError: ``no_executor``: nothing.
    """
    plan = plan_examination(
        manifest,
        available_engines(),
        threads=wish.threads,
        kernels=wish.kernels,
        cpu_count=os.cpu_count() or 1,
    )
    report.trials = _trials(plan)


def _trials(plan: Sequence[tuple[str, Executor]]) -> tuple[Trial, ...]:
    """Return pairs that were not tried yet."""
    return tuple(Trial(name, executor.describe()) for name, executor in plan)


def _run(report: Report, bundle: Bundle, wish: Wish) -> None:
    """Try it as an update would: in a preflight child.

    Raises:
        TrialFailedError: Nothing here may run it.
    """
    report.ran = True
    found = PreflightReport()
    wished = preflight.Wish(
        threads=wish.threads, kernels=wish.kernels, cpu_count=os.cpu_count() or 1
    )
    try:
        asyncio.run(run_preflight(bundle, wished, found))
    finally:
        report.trials = _tried(found, bundle.manifest.budgets) or report.trials


def _tried(found: PreflightReport, budgets: Budgets) -> tuple[Trial, ...]:
    """Return what was tried, and how it went."""
    trials = _trials(found.plan)
    for index, trial in enumerate(trials):
        finding = found.findings.get(index)
        if index in found.crashed:
            what = "it ended the preflight child"
            finding = Finding(index, found.crashed[index], what)
        if finding is not None:
            trial.finding = judge_budgets(finding, budgets)
        if found.chosen is not None:
            _explain(trial, found.plan[index], found.chosen)
    return trials


def _explain(trial: Trial, pair: tuple[str, Executor], chosen: Chosen) -> None:
    """Say why a pair was chosen, or why not although it passed."""
    if pair == (chosen.variant, chosen.executor):
        trial.chosen, trial.why = True, chosen.why
    for row in chosen.passed_over:
        if pair == (row.variant, row.executor) and not row.reason:
            trial.why = row.detail
