"""A model that is ready to answer: preprocess, engine, state and judgement as one.

The rules this module keeps:
 * The bytes are hashed again by the process that loads them, then matched against the
   manifest's contract, then warmed; only what passed all three is returned.
 * ``infer`` is a plain closure; feedback of state costs only models that have state.
 * What is slow here runs outside the GIL: hashing, and the first inference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.core.executors import Executor
from agent.core.manifest import Manifest, StateLink, TensorSpec, Variant
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.content import check_content, content_path
from agent.worker.engines import Engine, Infer, build_engine
from agent.worker.engines.tensors import zeros
from agent.worker.postprocess import build_postprocess
from agent.worker.preprocess import build_preprocess
from agent.worker.samples import Array, Arrays, Sample

# Scales are float32 in a model and decimal in a manifest that a person may have
# written: equal to six digits is equal.
SCALE_RELATIVE_TOLERANCE = 1e-6


def _as_given(samples: Arrays) -> Arrays:
    """Return the inputs of a model without state."""
    return samples


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One variant on one executor, ready for its first sample.

    Attributes:
        generation: The daemon's number of this load.
        labels: Class names, in the model's order; empty means numbers.
        preprocess: Sample -> the inputs that are not state; None while a window
            still fills. Raises ``InputError``.
        prepares: False where samples are tensors already: there is nothing to time.
        infer: Those inputs -> all outputs, stored values; carries the state on.
        judge: (inputs, outputs) -> (label index or -1, score).
        describe: (inputs, outputs, index, score) -> fields of a prediction line.
        reset: Forget all earlier samples: windows, state, variables.
        engine: What computes.
        digest: SHA-256 of the .tflite that runs, where it was loaded from one.
        whole: Inputs that are not state -> what the engine would be given now.
    """

    generation: int
    manifest: Manifest
    variant: Variant
    executor: Executor
    labels: tuple[str, ...]
    preprocess: Callable[[Sample], Arrays | None]
    prepares: bool
    infer: Infer
    judge: Callable[[Arrays, Arrays], tuple[int, float]]
    describe: Callable[[Arrays, Arrays, int, float], dict[str, object]]
    reset: Callable[[], None]
    engine: Engine
    digest: str = ""
    whole: Callable[[Arrays], Arrays] = _as_given


def load_model(
    generation: int,
    manifest: Manifest,
    variant_name: str,
    executor: Executor,
    descriptor: int,
    sha256: str = "",
) -> LoadedModel:
    """Build a variant from a sealed memfd; the caller keeps and closes the memfd.

    Args:
        generation: The daemon's number of this load.
        manifest: As it was signed.
        variant_name: Which of its variants.
        executor: What computes.
        descriptor: The memfd.
        sha256: What it has to hold, where that is a marked copy; else the manifest's.

    Raises:
        BundleRefusedError: ``digest``: these are not the verified bytes; ``manifest``:
            it has no such variant.
        TrialFailedError: Whatever ``build_engine`` raises, and ``contract``.
    """
    variant = manifest.variant(variant_name)
    check_content(descriptor, sha256 or variant.sha256, f"variant {variant_name}")
    shapes = {spec.name: spec.shape for spec in variant.inputs}
    engine = build_engine(executor, content_path(descriptor), shapes)
    model = bind_model(generation, manifest, variant, executor, engine)
    return replace(model, digest=sha256 or variant.sha256)


def bind_model(
    generation: int,
    manifest: Manifest,
    variant: Variant,
    executor: Executor,
    engine: Engine,
) -> LoadedModel:
    """Join an engine with everything around it, after its contract was checked.

    Raises:
        TrialFailedError: ``contract`` or ``dynamic_shape``; or a step of preprocess
            or postprocess cannot work on these tensors.
    """
    check_contract(variant, engine)
    preprocess = build_preprocess(
        manifest.preprocess,
        sample_specs(manifest, variant),
        manifest.io,
        finite=manifest.task != "raw",
    )
    postprocess = build_postprocess(manifest, variant)
    infer, reset_state, whole = carry_state(variant, manifest.state, engine.infer)

    path = preprocess.sample_path()

    def reset() -> None:
        preprocess.reset()
        reset_state()
        engine.reset()

    return LoadedModel(
        generation=generation,
        manifest=manifest,
        variant=variant,
        executor=executor,
        labels=manifest.labels,
        preprocess=path,
        prepares=path is preprocess,
        infer=infer,
        judge=postprocess.judge,
        describe=postprocess.describe,
        reset=reset,
        engine=engine,
        whole=whole,
    )


def sample_specs(manifest: Manifest, variant: Variant) -> tuple[TensorSpec, ...]:
    """Return the inputs that a sample fills: all that are not state."""
    fed_back = {link.input for link in manifest.state}
    return tuple(spec for spec in variant.inputs if spec.name not in fed_back)


def check_contract(variant: Variant, engine: Engine) -> None:
    """Compare what the manifest states with what the model is.

    Raises:
        TrialFailedError: ``contract``: the message names the first difference.
    """
    sides = (
        ("input", variant.inputs, engine.inputs),
        ("output", variant.outputs, engine.outputs),
    )
    for side, stated, found in sides:
        if len(stated) != len(found):
            raise _broken(
                variant, f"{len(found)} {side}s, the manifest states {len(stated)}"
            )
        for spec, tensor in zip(stated, found, strict=True):
            difference = _difference(spec, tensor)
            if difference:
                raise _broken(variant, f"{side} {spec.name!r}: {difference}")


def carry_state(
    variant: Variant, links: Sequence[StateLink], infer: Infer
) -> tuple[Infer, Callable[[], None], Callable[[Arrays], Arrays]]:
    """Return ``infer`` with state outputs fed back, what resets it, what it is given.

    A sample that fails leaves the state as it was. Without links ``infer`` is
    returned as it is.
    """
    if not links:
        return infer, lambda: None, _as_given
    fed = [spec.name for spec in variant.inputs]
    answered = [spec.name for spec in variant.outputs]
    feedback = [(fed.index(link.input), answered.index(link.output)) for link in links]
    state: dict[int, Array] = {}

    def reset() -> None:
        state.update({at: zeros(variant.inputs[at]) for at, _ in feedback})

    def whole(samples: Arrays) -> Arrays:
        given = iter(samples)
        return [state[at] if at in state else next(given) for at in range(len(fed))]

    def infer_with_state(samples: Sequence[Array]) -> Arrays:
        outputs = infer(whole(samples))
        for at, output in feedback:
            state[at] = outputs[output]
        return outputs

    reset()
    return infer_with_state, reset, whole


def _difference(stated: TensorSpec, found: TensorSpec) -> str:
    """Say how a tensor differs from the contract; empty if it does not."""
    pairs: Mapping[str, tuple[object, object]] = {
        "name": (stated.name, found.name),
        "shape": (stated.shape, found.shape),
        "dtype": (stated.dtype, found.dtype),
        "zero point": (stated.zero_point, found.zero_point),
    }
    for what, (expected, actual) in pairs.items():
        if expected != actual:
            return f"{what} is {actual}, the manifest states {expected}"
    apart = abs(stated.scale - found.scale)
    if apart > SCALE_RELATIVE_TOLERANCE * max(stated.scale, found.scale):
        return f"scale is {found.scale}, the manifest states {stated.scale}"
    return ""


def _broken(variant: Variant, what: str) -> TrialFailedError:
    """Return the error for a model that is not what its manifest states."""
    return TrialFailedError(f"variant {variant.name}: {what}", reason=Reason.CONTRACT)
