"""A draft: what stands in for a description and samples when there is only a model.

``tinyward inspect MODEL.tflite --run`` tries a bundle of it that never leaves memory:
no preprocess, no labels, inputs drawn at random, and no opinion on what may differ.
"""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

from agent.core.contract import Contract
from agent.core.manifest import SCHEMA, Budgets, Golden, Manifest, TensorSpec, Variant

DRAWN_SAMPLES = 8  # zeros, and enough others that a difference between kernels shows
VARIANT = "model"
# Nothing says how slow or large it may be: only what no board could mean is refused.
BUDGETS = Budgets(p95_ms=60_000.0, ram_mb=4096.0)
MAX_TOLERANCE = 1e9  # differences are shown, not judged
SEED = 1  # the same model is always tried with the same inputs


def draft_manifest(contract: Contract, content: bytes) -> Manifest:
    """Return a manifest for a model of which nothing but its file is known."""
    variant = Variant(
        name=VARIANT,
        file=f"variants/{VARIANT}.tflite",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        inputs=contract.inputs,
        outputs=contract.outputs,
        tolerance=MAX_TOLERANCE,
        ram_bytes=contract.ram_bytes,
    )
    golden = Golden(hashlib.sha256(b"").hexdigest(), size=1, samples=DRAWN_SAMPLES)
    return Manifest(
        schema=SCHEMA,
        model=VARIANT,
        version=1,
        task="raw",
        variants=(variant,),
        golden=golden,
        budgets=BUDGETS,
    )


def record_drawn(manifest: Manifest, content: bytes) -> bytes:
    """Return golden.npz of a draft: drawn inputs and what the model gives for them.

    The model runs in this process.

    Raises:
        AgentError: It does not load, does not answer, or answers no numbers.
    """
    import numpy as np

    from agent.worker.agreement import check_finite
    from agent.worker.content import seal_content
    from agent.worker.examine import default_examiner
    from agent.worker.golden import GoldenSamples, answer, real_outputs, render_golden
    from agent.worker.model import load_model

    specs = manifest.variants[0].inputs
    drawn = GoldenSamples(tuple(np.stack(list(draw(spec))) for spec in specs), {})
    samples = drawn.sequence([spec.name for spec in specs])
    executor = default_examiner().executor
    descriptor = seal_content(content, VARIANT)
    try:
        model = load_model(0, manifest, VARIANT, executor, descriptor)
    finally:
        os.close(descriptor)
    rows = []
    for number, (_, outputs) in enumerate(answer(model, samples)):
        rows.append(real_outputs(model.variant, outputs))
        check_finite(rows[-1], f"sample {number}")
    stacks = tuple(np.stack(stack) for stack in zip(*rows, strict=True))
    return render_golden(GoldenSamples(drawn.samples, {VARIANT: stacks}))


def draw(spec: TensorSpec) -> Iterator[Any]:
    """Yield stored values for one input: zeros first, then what its type may hold."""
    import numpy as np

    dtype = np.dtype(spec.dtype)
    random = np.random.default_rng(SEED)
    yield np.zeros(spec.shape, dtype)
    for _ in range(DRAWN_SAMPLES - 1):
        if dtype.kind == "f":
            yield random.uniform(-1, 1, spec.shape).astype(dtype)
        elif dtype.kind == "b" or dtype.itemsize > 2:
            # Wide integers are indices, as a rule: any other could be out of bounds.
            yield random.integers(0, 2, spec.shape).astype(dtype)
        else:
            ends = np.iinfo(dtype)
            yield random.integers(ends.min, ends.max, spec.shape, dtype, endpoint=True)
