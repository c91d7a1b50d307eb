"""Golden samples: recorded inputs, and what each variant has to answer to them.

``golden.npz`` holds ``samples`` (N, ...), raw samples before preprocess; for a model
with several inputs ``samples.0``, ``samples.1``..., in the order of the inputs that are
not state; and ``output.<variant>.<number>`` (M, ...) float32: the real values of every
output tensor over the M samples that were answered (a window answers fewer than N).

The rules this module keeps:
 * Reading raises ``BundleRefusedError`` only, for any bytes; nothing is unpickled, and
   no size is believed before it fits the bytes that are there.
 * Outputs are compared in real units, every tensor, every value.
 * Law: ``parse_golden(render_golden(g)) == g``, and equal values give equal bytes.
"""

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.container import parse_container, render_container
from agent.core.manifest import Manifest, Variant
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, TrialFailedError
from agent.worker.engines.tensors import real_values
from agent.worker.model import LoadedModel
from agent.worker.npy import read_header
from agent.worker.samples import Array, Arrays, Sample

Real = NDArray[np.float32]
SAMPLES = "samples"


@dataclass(frozen=True, slots=True)
class GoldenSamples:
    """Recorded samples and answers.

    Attributes:
        samples: One stack of raw samples for each input that is not state.
        outputs: Variant -> one stack of real values for each output tensor.
    """

    samples: tuple[Array, ...]
    outputs: Mapping[str, tuple[Real, ...]]

    def sequence(self, names: Sequence[str]) -> Iterator[Sample]:
        """Return the samples one by one, as a source would give them.

        Args:
            names: Names of the inputs that are not state.
        """
        if len(self.samples) == 1:
            yield from self.samples[0]
            return
        for arrays in zip(*self.samples, strict=True):
            yield dict(zip(names, arrays, strict=True))


def render_golden(golden: GoldenSamples) -> bytes:
    """Return the bytes of golden.npz."""
    named = {
        f"output.{variant}.{number}": stack
        for variant, stacks in golden.outputs.items()
        for number, stack in enumerate(stacks)
    }
    if len(golden.samples) == 1:
        named[SAMPLES] = golden.samples[0]
    else:
        named |= {
            f"{SAMPLES}.{number}": stack for number, stack in enumerate(golden.samples)
        }
    return render_container(
        {f"{name}.npy": _render_array(stack) for name, stack in named.items()}
    )


def parse_golden(content: memoryview, manifest: Manifest) -> GoldenSamples:
    """Read golden.npz and check that it is complete.

    Args:
        content: The file; the arrays are views into it.
        manifest: Says which variants and how many samples there are.

    Raises:
        BundleRefusedError: ``malformed``, ``truncated``, ``too_large``, or ``golden``:
            it does not hold what the manifest states.
    """
    entries = {
        name.removesuffix(".npy"): _parse_array(name, entry)
        for name, entry in parse_container(content).items()
    }
    samples = _numbered(entries, SAMPLES)
    if SAMPLES in entries:
        samples = (entries[SAMPLES],)
    outputs = {
        variant.name: _numbered(entries, f"output.{variant.name}")
        for variant in manifest.variants
    }
    golden = GoldenSamples(samples, outputs)
    _check_complete(golden, manifest)
    return golden


def answer(
    model: LoadedModel, samples: Iterable[Sample], limit: int = 0
) -> Iterator[tuple[Arrays, Arrays]]:
    """Yield inputs and outputs (stored values) of each sample that is answered.

    Args:
        model: What answers; it is reset first, so that state begins as recorded.
        samples: Raw samples, in the order they were recorded.
        limit: End after so many answers; 0 means all.

    Raises:
        TrialFailedError: ``invoke``: the interpreter reported an error.
        InputError: A sample cannot become the model's input.
    """
    model.reset()
    answers = 0
    for sample in samples:
        inputs = model.preprocess(sample)
        if inputs is None:
            continue
        try:
            outputs = model.infer(inputs)
        except (ValueError, RuntimeError) as err:
            raise TrialFailedError(f"golden: {err}", reason=Reason.INVOKE) from err
        yield inputs, outputs
        answers += 1
        if answers == limit:
            return


def real_outputs(variant: Variant, outputs: Sequence[Array]) -> list[Real]:
    """Return every output tensor of one answer as real values."""
    return [
        real_values(spec, stored)
        for spec, stored in zip(variant.outputs, outputs, strict=True)
    ]


def compare_outputs(expected: Sequence[Real], actual: Sequence[Real]) -> float:
    """Return the largest distance of two answers, in real units.

    Infinite where shapes differ or a value is not finite: such answers never agree.
    """
    largest = 0.0
    for recorded, answered in zip(expected, actual, strict=True):
        if recorded.shape != answered.shape:
            return math.inf
        if not recorded.size:
            continue
        with np.errstate(invalid="ignore", over="ignore"):  # judged right below
            apart = float(np.max(np.abs(recorded - answered)))
        if not math.isfinite(apart):
            return math.inf
        largest = max(largest, apart)
    return largest


def _check_complete(golden: GoldenSamples, manifest: Manifest) -> None:
    """Every variant has as many answers as it has output tensors, over all samples."""
    lengths = {stack.shape[:1] for stack in golden.samples}
    if lengths != {(manifest.golden.samples,)}:
        raise _incomplete(f"{manifest.golden.samples} samples expected")
    for variant in manifest.variants:
        stacks = golden.outputs[variant.name]
        if len(stacks) != len(variant.outputs):
            raise _incomplete(f"variant {variant.name}: {len(stacks)} outputs")
        rows = len(stacks[0]) if stacks[0].ndim else 0
        if not 0 < rows <= manifest.golden.samples:
            raise _incomplete(f"variant {variant.name}: {rows} answers")
        for stack, spec in zip(stacks, variant.outputs, strict=True):
            if stack.shape != (rows, *spec.shape):
                raise _incomplete(f"variant {variant.name}: outputs of {stack.shape}")
            if stack.dtype != np.float32 or not np.isfinite(stack).all():
                raise _incomplete(f"variant {variant.name}: not finite float32")


def _numbered(entries: Mapping[str, Array], prefix: str) -> tuple[Array, ...]:
    """Return the arrays ``prefix.0``, ``prefix.1``... as far as they go."""
    found: list[Array] = []
    while (name := f"{prefix}.{len(found)}") in entries:
        found.append(entries[name])
    return tuple(found)


def _render_array(values: Array) -> bytes:
    """Return an .npy file, version 1.0, in C order."""
    buffer = io.BytesIO()
    np.lib.format.write_array(
        buffer, np.asarray(values, order="C"), version=(1, 0), allow_pickle=False
    )
    return buffer.getvalue()


def _parse_array(name: str, content: memoryview) -> Array:
    """Return the array of an .npy file as a view of its bytes.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    # Headers are short; the values behind them must not be copied to read them.
    head = io.BytesIO(content[:4096])
    try:
        shape, fortran, dtype = read_header(head)
    except ValueError as err:
        raise _malformed(name, "it is no .npy file") from err
    if fortran or dtype.hasobject or dtype.kind not in "fiub":
        raise _malformed(name, f"an array of {dtype} is not allowed")
    rest = content[head.tell() :]
    if math.prod(shape) * dtype.itemsize != len(rest):
        raise _malformed(name, "its size and its shape differ")
    values: Array = np.frombuffer(rest, dtype)
    try:
        return values.reshape(shape)
    except ValueError as err:  # beside a size of 0, others may be beyond any machine
        raise _malformed(name, "an impossible shape") from err


def _malformed(name: str, what: str) -> BundleRefusedError:
    """Return the error for a file that breaks the format."""
    return BundleRefusedError(f"golden.npz: {name}: {what}", reason=Reason.MALFORMED)


def _incomplete(what: str) -> BundleRefusedError:
    """Return the error for golden samples that do not fit their manifest."""
    return BundleRefusedError(f"golden.npz: {what}", reason=Reason.GOLDEN)
