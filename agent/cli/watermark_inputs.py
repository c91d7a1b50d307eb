"""Inputs to mark a model with: clean data and golden samples, as its tensor holds them.

They pass the product's own sources and preprocess, as on a board.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from agent.core.manifest import Variant
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.publish.watermark.head import refused
from agent.publish.watermark.markable import Given, check_given
from agent.trust.bundle import Bundle
from agent.worker.engines import build_engine
from agent.worker.examine import default_examiner
from agent.worker.golden import answer, parse_golden
from agent.worker.model import LoadedModel, bind_model, sample_specs
from agent.worker.samples import Array, InputError, Sample
from agent.worker.sources.reading import find_files, read_all

MAX_CLEAN = 4000  # more change nothing about a head of some hundred numbers


def read_givens(bundle: Bundle, data: Sequence[Path], array: str) -> dict[str, Given]:
    """Return what marking needs of every variant.

    Args:
        bundle: The one to mark.
        data: Clean samples before preprocess; none: the golden samples alone.
        array: Which array of an .npz.

    Raises:
        BundleRefusedError: ``watermark``: a variant cannot be marked.
        DeviceError: The data cannot be read.
        TrialFailedError: A model does not load.
    """
    givens = {}
    for variant in bundle.manifest.variants:
        given = _read_given(bundle, variant, _samples(data, array))
        check_given(given)
        givens[variant.name] = given
    return givens


def _read_given(bundle: Bundle, variant: Variant, samples: Iterator[Sample]) -> Given:
    """Read what one variant needs."""
    content = bytes(bundle.variant_bytes(variant.name))
    model = _load(bundle, variant, content)
    golden = parse_golden(bundle.golden, bundle.manifest)
    names = [spec.name for spec in sample_specs(bundle.manifest, variant)]
    recorded = [inputs[0].copy() for inputs, _ in answer(model, golden.sequence(names))]
    clean = list(_inputs(model, samples)) or recorded
    return Given(
        variant=variant,
        content=content,
        clean=np.concatenate(clean),
        golden=np.concatenate(recorded),
        answers=golden.outputs[variant.name][0].reshape(len(recorded), -1),
    )


def _load(bundle: Bundle, variant: Variant, content: bytes) -> LoadedModel:
    """Load a variant on plain kernels, which is enough to prepare inputs.

    Raises:
        BundleRefusedError: ``watermark``: it has several inputs.
    """
    if len(variant.inputs) != 1:
        raise refused(f"a model of {len(variant.inputs)} inputs cannot be marked")
    executor = default_examiner().executor
    shapes = {spec.name: spec.shape for spec in variant.inputs}
    engine = build_engine(executor, content, shapes)
    return bind_model(0, bundle.manifest, variant, executor, engine)


def _samples(data: Sequence[Path], array: str) -> Iterator[Sample]:
    """Yield clean samples of files and folders.

    Raises:
        DeviceError: One cannot be read (``input``): whoever marks a model has time to
            name the right files.
    """
    for path in data:
        for item in read_all(find_files(path), array, loop=False):
            if isinstance(item, InputError):
                raise DeviceError(f"{path}: {item}", reason=Reason.INPUT) from item
            yield item


def _inputs(model: LoadedModel, samples: Iterable[Sample]) -> Iterator[Array]:
    """Yield what samples become, (1, ...), up to ``MAX_CLEAN``."""
    count = 0
    for sample in samples:
        try:
            inputs = model.preprocess(sample)
        except InputError as err:
            raise DeviceError(f"--data: {err}", reason=Reason.INPUT) from err
        if inputs is not None:
            yield inputs[0].copy()
            count += 1
        if count == MAX_CLEAN:
            return
