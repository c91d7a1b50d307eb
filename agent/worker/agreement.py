"""Agreement: does a loaded model answer as it was recorded, and always with numbers.

The rules this module keeps:
 * Every output tensor is compared in real units against the variant's tolerance.
 * A model that answers NaN or infinity to a golden or a boundary input does not agree.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from agent.core.manifest import TensorSpec
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.golden import GoldenSamples, answer, compare_outputs, real_outputs
from agent.worker.model import LoadedModel, sample_specs
from agent.worker.samples import Array, Arrays

# Reference kernels take 151 ms a sample on MobileNet v2: as an oracle, a few do.
REFERENCE_SAMPLES = 4


def check_golden(
    model: LoadedModel, golden: GoldenSamples
) -> tuple[float, list[Arrays]]:
    """Return the largest difference from a golden output, and the inputs used.

    Raises:
        TrialFailedError: ``golden``, ``not_finite`` or ``invoke``.
        AgentError: A sample does not fit, or an answer makes no prediction.
    """
    recorded = golden.outputs[model.variant.name]
    rows = len(recorded[0])
    wanted = min(rows, REFERENCE_SAMPLES) if _is_oracle(model) else rows
    largest = 0.0
    inputs: list[Arrays] = []
    specs = sample_specs(model.manifest, model.variant)
    samples = golden.sequence([spec.name for spec in specs])
    for row, (given, outputs) in enumerate(answer(model, samples, wanted)):
        actual = real_outputs(model.variant, outputs)
        check_finite(actual, f"golden sample {row}")
        apart = compare_outputs([stack[row] for stack in recorded], actual)
        if not apart <= model.variant.tolerance:
            raise TrialFailedError(
                f"golden sample {row} differs by {apart:.4g}, "
                f"{model.variant.tolerance:.4g} allowed",
                reason=Reason.GOLDEN,
            )
        if not row:
            _check_prediction(model, given, outputs)
        largest = max(largest, apart)
        inputs.append(given)
    if len(inputs) != wanted:
        raise TrialFailedError(
            f"{len(inputs)} golden samples were answered, {wanted} recorded",
            reason=Reason.GOLDEN,
        )
    return largest, inputs


def _check_prediction(model: LoadedModel, inputs: Arrays, outputs: Arrays) -> None:
    """An answer becomes a prediction and its line, as it will for live samples."""
    index, score = model.judge(inputs, outputs)
    model.describe(inputs, outputs, index, score)


def check_boundaries(model: LoadedModel, inputs: list[Arrays]) -> None:
    """Push zeros and extremes through: they must be answered, with finite numbers.

    Raises:
        TrialFailedError: ``invoke`` or ``not_finite``.
    """
    model.reset()
    specs = sample_specs(model.manifest, model.variant)
    for name, given in boundary_inputs(specs, inputs):
        try:
            outputs = model.infer(given)
        except (ValueError, RuntimeError) as err:
            raise TrialFailedError(
                f"boundary input {name}: {err}", reason=Reason.INVOKE
            ) from err
        check_finite(real_outputs(model.variant, outputs), f"boundary input {name}")
        model.reset()


def boundary_inputs(
    specs: Sequence[TensorSpec], recorded: Sequence[Sequence[Array]]
) -> Iterator[tuple[str, Arrays]]:
    """Yield the inputs at the edge of what a model may see, with a name for each.

    8 and 16 bit tensors are filled with the ends of their type: any sensor can
    saturate. Wider integers are indices and floats have no useful ends (any sum of
    them overflows), so there the ends of the golden samples are taken.
    """
    yield "zero", [np.full(spec.shape, spec.zero_point, spec.dtype) for spec in specs]
    ends = [
        _ends(spec, [inputs[number] for inputs in recorded])
        for number, spec in enumerate(specs)
    ]
    for which, name in enumerate(("lowest", "highest")):
        yield (
            name,
            [
                np.full(spec.shape, end[which], spec.dtype)
                for spec, end in zip(specs, ends, strict=True)
            ],
        )


def _ends(spec: TensorSpec, recorded: Sequence[Array]) -> tuple[float, float]:
    """Return the lowest and highest value to push into a tensor."""
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        limits = np.iinfo(dtype)
        return limits.min, limits.max
    lowest = min(array.min() for array in recorded)
    return lowest, max(array.max() for array in recorded)


def check_finite(outputs: Sequence[Array], what: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        TrialFailedError: ``not_finite``.
    """
    for number, values in enumerate(outputs):
        if not np.isfinite(values).all():
            raise TrialFailedError(
                f"{what}: output {number} is not finite", reason=Reason.NOT_FINITE
            )


def _is_oracle(model: LoadedModel) -> bool:
    """Whether the model runs on the slow reference kernels."""
    return model.executor.kernels == "reference"
