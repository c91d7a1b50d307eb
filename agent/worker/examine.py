"""The author's side: what a .tflite file is, and what its golden outputs are.

``Examiner`` fits the Protocol of ``agent.publish.pack``; the command line joins them.

The rules this module keeps:
 * The same model and samples give the same facts and bytes on every machine: plain
   kernels answer (both runtimes' agree to the bit), and RAM is estimated, not measured.
 * Models run in this process: they are the author's own. A stranger's model belongs
   into a preflight child (``tinyward inspect --run``).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.core.contract import Contract
from agent.core.executors import EngineName, Executor
from agent.core.flow import FilesSource
from agent.core.manifest import Manifest, TensorSpec
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.agreement import check_finite
from agent.worker.content import seal_content
from agent.worker.engines import Engine, available_engines, build_engine
from agent.worker.engines.failures import translated
from agent.worker.golden import (
    GoldenSamples,
    Real,
    answer,
    real_outputs,
    render_golden,
)
from agent.worker.model import LoadedModel, load_model, sample_specs
from agent.worker.runtimes import PACKAGES
from agent.worker.samples import Array, Sample
from agent.worker.sources import build_source

READ_S = 30.0  # one recorded sample, from the slowest of disks


@dataclass(frozen=True, slots=True)
class Examiner:
    """Looks into models with the plain kernels of one runtime."""

    executor: Executor

    def contract(self, content: bytes) -> Contract:
        """Return what a .tflite file says about itself.

        Raises:
            TrialFailedError: ``contract``, ``unsupported_op``, ``dynamic_shape``,
                ``memory`` or ``invoke``.
        """
        engine = build_engine(self.executor, content)
        check_fixed_outputs(engine)
        return Contract(
            engine.inputs, engine.outputs, engine.operators, engine.ram_bytes
        )

    def golden(
        self,
        manifest: Manifest,
        variants: Mapping[str, bytes],
        samples: Path,
        array: str,
        count: int,
    ) -> bytes:
        """Return golden.npz: the first ``count`` samples and what they must give.

        Args:
            manifest: Complete but for its ``golden``, which is a placeholder.
            variants: Variant name -> .tflite bytes.
            samples: File or directory of samples before preprocess.
            array: Which array of an .npz; empty means the first, ``*`` all by name.
            count: How many to record.

        Raises:
            TrialFailedError: ``input``: too few samples, or their shapes differ;
                ``golden``: none is answered; ``not_finite``; or the model does not
                load.
            AgentError: The samples cannot be read, or do not become the input.
        """
        recorded = read_samples(samples, array, count)
        stacks = stack_samples(recorded, sample_specs(manifest, manifest.variants[0]))
        golden = GoldenSamples(stacks, {})
        outputs: dict[str, tuple[Real, ...]] = {}
        for name, content in variants.items():
            with self._loaded(manifest, name, content) as model:
                outputs[name] = _record(model, golden)
        return render_golden(GoldenSamples(stacks, outputs))

    @contextmanager
    def _loaded(
        self, manifest: Manifest, name: str, content: bytes
    ) -> Iterator[LoadedModel]:
        """Load one variant as the worker would, from a sealed memfd."""
        descriptor = seal_content(content, name)
        try:
            yield load_model(0, manifest, name, self.executor, descriptor)
        finally:
            os.close(descriptor)


def default_examiner() -> Examiner:
    """Return an examiner on the best runtime of this machine.

    Raises:
        TrialFailedError: ``no_executor``: it has none.
    """
    engines = available_engines()
    engine: EngineName
    for engine in PACKAGES:
        if engine in engines:
            return Examiner(Executor(engine, "plain", 1, engines[engine]))
    raise TrialFailedError(
        "neither LiteRT nor tflite-runtime is installed",
        reason=Reason.NO_EXECUTOR,
        todo="pip install ai-edge-litert",
    )


def read_samples(path: Path, array: str, count: int) -> list[Sample]:
    """Return the first ``count`` samples of a file or directory.

    Raises:
        TrialFailedError: ``input``: there are fewer.
        AgentError: They cannot be read.
    """
    source = build_source(FilesSource(str(path), array), None)
    found: list[Sample] = []
    with closing(source):
        while len(found) < count:
            sample = source.take(READ_S)
            if sample is None:
                raise TrialFailedError(
                    f"{path} holds {len(found)} samples, {count} wanted",
                    reason=Reason.INPUT,
                    todo="Record more samples, or lower `golden_samples`.",
                )
            found.append(sample)
    return found


def stack_samples(
    recorded: list[Sample], specs: tuple[TensorSpec, ...]
) -> tuple[Array, ...]:
    """Return one stack of samples for each input.

    Raises:
        TrialFailedError: ``input``: they differ in shape, or lack an input.
    """
    return tuple(
        _stack(spec.name, [_array_for(sample, spec, specs) for sample in recorded])
        for spec in specs
    )


def _array_for(
    sample: Sample, spec: TensorSpec, specs: tuple[TensorSpec, ...]
) -> Array:
    """Return what a sample holds for one input.

    Raises:
        TrialFailedError: ``input``: nothing, or it is not told for which one.
    """
    if not isinstance(sample, dict):
        if len(specs) == 1:
            return sample
        names = ", ".join(spec.name for spec in specs)
        raise _unfit(f"the model has {len(specs)} inputs ({names}), the samples one")
    if spec.name not in sample:
        there = ", ".join(sample) or "nothing"
        raise _unfit(f"no array for input {spec.name!r}; there is {there}")
    return sample[spec.name]


def _stack(name: str, arrays: list[Array]) -> Array:
    """Return arrays of one shape as one.

    Raises:
        TrialFailedError: ``input``: their shapes differ.
    """
    for number, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise _unfit(
                f"sample {number} for {name!r} is {_shape(array)}, "
                f"the first is {_shape(arrays[0])}"
            )
    return np.stack(arrays)


def _shape(array: Array) -> str:
    """Return a shape for people."""
    return " x ".join(map(str, array.shape)) or "a single number"


def _unfit(what: str) -> TrialFailedError:
    """Return the error for samples that cannot become golden."""
    return TrialFailedError(
        f"golden samples: {what}",
        reason=Reason.INPUT,
        todo="Record samples of one shape; for several inputs as an .npz with an array "
        'for each by name (and array = "*"), or as JSONL.',
    )


def _record(model: LoadedModel, golden: GoldenSamples) -> tuple[Real, ...]:
    """Return the real values of every output over the samples that are answered."""
    names = [spec.name for spec in sample_specs(model.manifest, model.variant)]
    rows = []
    for number, (_, outputs) in enumerate(answer(model, golden.sequence(names))):
        actual = real_outputs(model.variant, outputs)
        check_finite(actual, f"sample {number}")
        rows.append(actual)
    if not rows:
        raise TrialFailedError(
            f"none of {len(golden.samples[0])} golden samples was answered",
            reason=Reason.GOLDEN,
            todo="Record more of them: a window has to fill first.",
        )
    return tuple(np.stack(stack) for stack in zip(*rows, strict=True))


def check_fixed_outputs(engine: Engine) -> None:
    """Outputs keep the shape they had for zeros, whatever the values are.

    Raises:
        TrialFailedError: ``dynamic_shape``.
    """
    ones = [np.ones(spec.shape, spec.dtype) for spec in engine.inputs]
    # A runtime does not return an output that came out empty: it raises.
    with translated("second sample", Reason.DYNAMIC_SHAPE):
        shapes = tuple(output.shape for output in engine.infer(ones))
    expected = tuple(spec.shape for spec in engine.outputs)
    if shapes != expected:
        raise TrialFailedError(
            f"output shapes depend on the values: {expected}, then {shapes}",
            reason=Reason.DYNAMIC_SHAPE,
        )
