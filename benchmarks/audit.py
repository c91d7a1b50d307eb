"""``audit``: how often re-execution finds a board that cheats, against theory.

The cheat answers a share of its inferences with a damaged copy of the model, of which
1 % of the weight bytes are others, and gives receipts as if the model itself had
answered; it does not know which receipts are asked for. Boards compute with XNNPACK.
Two auditors compute anew: one with the same executor, who asks for the same bits; and
one elsewhere, with plain kernels, within the tolerance that kernels show there on the
golden samples and on the audited inputs.

Found per receipt (q) is measured on all inputs. Audits of ``SAMPLES`` receipts are then
drawn by many seeds, as ``tinyward audit rerun`` draws them, from a log in which a share
f was cheated; theory says 1 - (1 - f q)^n. Inputs are random, and natural ones differ.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tflite

from agent.cli.rerun_compute import recompute
from agent.cli.rerun_words import Inference, Question
from agent.core.executors import Kernels
from agent.core.kept import choose
from agent.core.rerun import BAD, conclude
from agent.worker.content import seal_content
from agent.worker.model import load_model
from agent.worker.receipts import own_cpu
from benchmarks.rows import Row
from benchmarks.subjects import Subject, first_executor, subject

MODELS = ("kws", "vww", "resnet")
SHARES = (0.01, 0.10, 1.00)  # of the inferences that are cheated
SAMPLES = 64  # the default of ``audit rerun``
KEPT = 2000  # receipts among which is drawn: 2 M inferences at 1 in 1,000
ALTERED = 0.01  # of the weight bytes
WEIGHTS = 512  # buffers from so many bytes on are weights; biases are shorter
WANTED = 0.99


@dataclass(frozen=True, slots=True)
class Auditor:
    """Who computes anew.

    Attributes:
        cpu: What the kept samples say of the board's CPU: its own, or another's.
        kernels: On which the auditor computes.
    """

    name: str
    cpu: str
    kernels: tuple[Kernels, ...]


def run(inputs: int, audits: int) -> list[Row]:
    """Return what is found per receipt, and by whole audits.

    Args:
        inputs: Different inputs of each model.
        audits: Seeds that are tried for each share.
    """
    auditors = (
        Auditor("same executor", own_cpu(), ("xnnpack",)),
        Auditor("other kernels", "elsewhere", ("plain",)),
    )
    rows: list[Row] = []
    for name in MODELS:
        it = subject(name)
        rows += _model(it, auditors, inputs, audits)
    return rows


def _model(
    it: Subject, auditors: Sequence[Auditor], inputs: int, audits: int
) -> Iterator[Row]:
    """Yield the rows of one model."""
    what = it.name + ("" if it.public else " (demo model)")
    spec = it.bundle.manifest.variant("only").inputs[0]
    draw = np.random.default_rng(11)
    given = [
        draw.integers(-128, 128, spec.shape).astype(spec.dtype) for _ in range(inputs)
    ]
    honest = _answers(it, it.content(), given)
    cheated = _answers(it, damaged(it.content()), given)
    for auditor in auditors:
        right = _found(it, auditor, given, honest)
        wrong = _found(it, auditor, given, cheated)
        title = f"{what}, {auditor.name}"
        q = sum(wrong) / inputs
        yield Row("audit", f"{title}: false alarms", sum(right) / inputs, "", 0.0)
        yield Row("audit", f"{title}: found per cheated receipt", q, "")
        for share in SHARES:
            yield from _audited(title, share, q, wrong, audits)


def _audited(
    title: str, share: float, q: float, wrong: Sequence[bool], audits: int
) -> Iterator[Row]:
    """Yield what whole audits find of a board that cheats in a share of its answers."""
    found = sum(_one_audit(share, wrong, seed) for seed in range(audits)) / audits
    theory = 1 - (1 - share * q) ** SAMPLES
    # Three standard deviations of so many audits, plus those of the drawn log.
    slack = 3 * math.sqrt(max(theory * (1 - theory), 0.01) / audits) + 0.02
    name = f"{title}, {share:.0%} cheated"
    yield Row("audit", f"{name}: found by {SAMPLES} samples", found, "")
    yield Row("audit", f"{name}: apart from theory", abs(found - theory), "", slack)
    if 0 < share * q < 1:
        needed = math.ceil(math.log(1 - WANTED) / math.log(1 - share * q))
        yield Row("audit", f"{name}: samples for {WANTED:.0%}", float(needed), "")


def _one_audit(share: float, wrong: Sequence[bool], seed: int) -> bool:
    """Whether one audit finds anything in a log that was cheated in so."""
    draw = random.Random(seed)  # noqa: S311 - simulated chance
    log = [
        draw.random() < share and wrong[draw.randrange(len(wrong))] for _ in range(KEPT)
    ]
    root = seed.to_bytes(32)
    return any(log[seq] for seq in choose(range(KEPT), root[::-1], root, SAMPLES))


def _answers(it: Subject, content: bytes, given: Sequence[np.ndarray]) -> list[bytes]:
    """Return what a board answers with these bytes for a model."""
    import os
    from hashlib import sha256

    descriptor = seal_content(content, it.name)
    try:
        named = ("only", first_executor("xnnpack"), descriptor)
        digest = sha256(content).hexdigest()
        model = load_model(1, it.bundle.manifest, *named, digest)
    finally:
        os.close(descriptor)
    return [model.infer([one])[0].tobytes() for one in given]


def _found(
    it: Subject, auditor: Auditor, given: Sequence[np.ndarray], said: Sequence[bytes]
) -> list[bool]:
    """Return for each receipt whether the auditor objects to it."""
    executor = first_executor("xnnpack").describe()
    question = Question(
        it.bundle.raw_manifest,
        "only",
        it.content(),
        it.bundle.manifest.variant("only").sha256,
        bytes(it.bundle.golden),
        tuple(
            Inference(seq, (one.tobytes(),), (answer,), executor, auditor.cpu)
            for seq, (one, answer) in enumerate(zip(given, said, strict=True))
        ),
    )
    found = recompute(question, auditor.kernels)
    return [conclude(it).result in BAD for it in found]


def damaged(content: bytes) -> bytes:
    """Return a model of which ``ALTERED`` of the weight bytes are others."""
    raw = bytearray(content)
    model = tflite.Model.GetRootAs(raw, 0)
    draw = np.random.default_rng(5)
    for number in range(model.BuffersLength()):
        weights = model.Buffers(number).DataAsNumpy()
        if not isinstance(weights, np.ndarray) or weights.size < WEIGHTS:
            continue
        at = draw.choice(weights.size, max(1, int(weights.size * ALTERED)), False)
        weights[at] ^= draw.integers(1, 256, at.size).astype(np.uint8)
    return bytes(raw)
