"""Computing audited inferences anew: on the kernels that are here, beside each other.

The rules this module keeps:
 * Whatever was kept may be anybody's bytes: what does not fit the model's tensors is a
   finding about that inference, and the others are computed.
 * Each inference begins with the state that was kept with it, and with nothing that
   the model remembers of those before it.
"""

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
from msgspec.structs import replace

from agent.cli.rerun_words import Inference, Question
from agent.core.executors import EngineName, Executor, Kernels
from agent.core.manifest import Manifest, TensorSpec, parse_manifest
from agent.core.rerun import FACTOR, Recomputed, executor_word
from agent.errors import AgentError
from agent.worker.content import seal_content
from agent.worker.golden import (
    Real,
    answer,
    compare_outputs,
    parse_golden,
    real_outputs,
)
from agent.worker.model import LoadedModel, load_model, sample_specs
from agent.worker.receipts import own_cpu
from agent.worker.runtimes import PACKAGES, available_engines
from agent.worker.samples import Array

# Those that boards use; reference kernels take seconds for what these take ms.
KERNELS: tuple[Kernels, ...] = ("xnnpack", "plain")


def recompute(
    question: Question, kernels: Sequence[Kernels] = KERNELS
) -> Iterator[Recomputed]:
    """Yield what comes of each inference here.

    Args:
        question: What to compute.
        kernels: On which of those that are here; all of them teach the tolerance.

    Raises:
        TrialFailedError: The model runs on no kernels here.
        BundleRefusedError: The golden samples cannot be read.
    """
    models = _load(question)
    cpu = own_cpu()
    used = [model for model in models if model.executor.kernels in kernels]
    tolerance = learn_tolerance(models, question)
    remembers = _remembers(models[0], question.inferences)
    for inference in question.inferences:
        try:
            found = _one(used, inference, cpu, tolerance)
            found = replace(found, remembers=remembers)
        except (ValueError, RuntimeError) as err:
            detail = f"it cannot be computed: {err}"[:300]
            found = Recomputed(inference.seq, tolerance=tolerance, detail=detail)
        yield found


def learn_tolerance(models: Sequence[LoadedModel], question: Question) -> float:
    """Return how far answers of right kernels may be apart, in real units.

    That is ``FACTOR`` times the largest distance of any two of the kernels here, on the
    golden samples, where what was recorded at packing counts as one more, and on the
    audited inputs themselves: a few golden samples alone gave one false alarm in five
    on a ResNet-8. What the board answered teaches nothing. It is one step of a
    quantised output at least.
    """
    variant, manifest = models[0].variant, models[0].manifest
    recorded = parse_golden(memoryview(question.golden), manifest)
    names = [spec.name for spec in sample_specs(manifest, variant)]
    expected = zip(*recorded.outputs[variant.name], strict=True)
    answered = [
        (
            real_outputs(variant, outputs)
            for _, outputs in answer(it, recorded.sequence(names))
        )
        for it in models
    ]
    largest = max((spec.scale for spec in variant.outputs), default=0.0)
    for known, *others in zip(expected, *answered, strict=False):
        largest = max(largest, _spread([known, *others]))
    for inference in question.inferences:
        with suppress(ValueError, RuntimeError):  # a finding, once it is its turn
            inputs = _tensors(variant.inputs, inference.inputs)
            largest = max(largest, _spread([_compute(it, inputs) for it in models]))
    return FACTOR * largest


def _spread(answers: Sequence[Sequence[Real]]) -> float:
    """Return the largest distance between any two answers; 0 where one is not finite.

    An answer of NaN is no measure of what rounding does.
    """
    pairs = itertools.combinations(answers, 2)
    found = max((compare_outputs(one, other) for one, other in pairs), default=0.0)
    return found if math.isfinite(found) else 0.0


def _remembers(model: LoadedModel, inferences: Sequence[Inference]) -> bool:
    """Whether a model answers the same input otherwise the second time.

    State that is fed back was kept with each input; variables inside a model were not.
    """
    for inference in inferences:
        with suppress(ValueError, RuntimeError):
            inputs = _tensors(model.variant.inputs, inference.inputs)
            first = _compute(model, inputs)
            again = real_outputs(model.variant, model.engine.infer(inputs))
            if compare_outputs(first, again) > 0:
                return True
    return False


def _compute(model: LoadedModel, inputs: Sequence[Array]) -> list[Real]:
    """Return a model's answer to inputs that include its state.

    Raises:
        ValueError: They do not fit.
        RuntimeError: The runtime does not compute it.
    """
    model.engine.reset()
    return real_outputs(model.variant, model.engine.infer(inputs))


def _load(question: Question) -> list[LoadedModel]:
    """Load the model on all kernels that take it.

    Raises:
        TrialFailedError: None does.
    """
    manifest = parse_manifest(question.manifest)
    engines = available_engines()
    engine: EngineName = next((name for name in PACKAGES if name in engines), "litert")
    version = engines.get(engine, "")
    models: list[LoadedModel] = []
    refusal: AgentError | None = None
    for kernels in KERNELS:
        executor = Executor(engine, kernels, engine_version=version)
        try:
            models.append(_load_on(question, manifest, executor))
        except AgentError as err:
            refusal = err
    if refusal is not None and not models:
        raise refusal
    return models


def _load_on(question: Question, manifest: Manifest, executor: Executor) -> LoadedModel:
    """Load the model on one executor."""
    descriptor = seal_content(question.content, question.variant)
    try:
        named = (question.variant, executor, descriptor, question.sha256)
        return load_model(0, manifest, *named)
    finally:
        os.close(descriptor)


def _one(
    models: Sequence[LoadedModel], inference: Inference, cpu: str, tolerance: float
) -> Recomputed:
    """Compute one inference on all kernels.

    Raises:
        ValueError: It does not fit the model.
        RuntimeError: A runtime does not compute it.
    """
    variant = models[0].variant
    inputs = _tensors(variant.inputs, inference.inputs)
    said = _tensors(variant.outputs, inference.outputs)
    exact = comparable = False
    distance = np.inf
    for model in models:
        model.engine.reset()
        outputs = model.engine.infer(inputs)
        same = [it.tobytes() for it in outputs] == list(inference.outputs)
        exact = exact or same
        word = executor_word(model.executor.describe())
        is_boards = word == executor_word(inference.executor) and cpu == inference.cpu
        comparable = comparable or is_boards
        apart = compare_outputs(
            real_outputs(variant, outputs), real_outputs(variant, said)
        )
        distance = min(distance, apart)
    return Recomputed(inference.seq, exact, comparable, float(distance), tolerance)


def _tensors(specs: Sequence[TensorSpec], raw: Sequence[bytes]) -> list[Array]:
    """Return tensors of raw bytes.

    Raises:
        ValueError: They are of other sizes.
    """
    pairs = zip(specs, raw, strict=True)
    return [np.frombuffer(it, spec.dtype).reshape(spec.shape) for spec, it in pairs]
