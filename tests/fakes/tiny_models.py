"""The models of tests/data, with manifests and golden samples to go with them."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from agent.core.executors import EngineName, Executor
from agent.core.manifest import Golden, Manifest, StateLink, Variant
from agent.worker.content import seal_content
from agent.worker.engines import build_engine
from agent.worker.golden import GoldenSamples, answer, real_outputs, render_golden
from agent.worker.model import LoadedModel, load_model, sample_specs
from agent.worker.runtimes import PACKAGES, available_engines
from agent.worker.samples import Array

FOLDER = Path(__file__).resolve().parent.parent / "data"
CARRY = (StateLink(output="carry", input="carried"),)


def content(name: str) -> bytes:
    """Return the bytes of a model."""
    return (FOLDER / f"{name}.tflite").read_bytes()


def executor(kernels: str = "plain", engine: str = "", threads: int = 1) -> Executor:
    """Return an executor on a runtime that is installed here."""
    installed: EngineName
    installed = next(name for name in PACKAGES if name in available_engines())
    return Executor(engine or installed, kernels, threads)  # type: ignore[arg-type] # words of the tests


def variant(name: str, tolerance: float = 1e-5) -> Variant:
    """Return the manifest's entry of a model, its contract taken from the file."""
    raw = content(name)
    engine = build_engine(executor(), raw)
    return Variant(
        name=name,
        file=f"variants/{name}.tflite",
        sha256=hashlib.sha256(raw).hexdigest(),
        size=len(raw),
        inputs=engine.inputs,
        outputs=engine.outputs,
        tolerance=tolerance,
    )


def manifest(*names: str, **changes: Any) -> Manifest:  # noqa: ANN401 - any field
    """Return the manifest of a bundle of models, without golden samples yet."""
    plain = Manifest(
        schema=1,
        model="tiny",
        version=1,
        task="raw",
        variants=tuple(variant(name) for name in names),
        golden=Golden(hashlib.sha256(b"").hexdigest(), 1, 1),
        state=CARRY if "streaming" in names else (),
    )
    return replace(plain, **changes)


@contextmanager
def loaded(
    stated: Manifest, name: str, wanted: Executor | None = None
) -> Iterator[LoadedModel]:
    """Load a model as a worker does."""
    descriptor = seal_content(content(name), name)
    try:
        yield load_model(7, stated, name, wanted or executor(), descriptor)
    finally:
        os.close(descriptor)


def record(stated: Manifest, samples: Sequence[Array]) -> tuple[Manifest, bytes]:
    """Return the manifest with golden samples, and golden.npz: a packer in small.

    Args:
        stated: A manifest without golden samples.
        samples: One stack of samples for each input that is not state.
    """
    outputs = {}
    inputs = GoldenSamples(tuple(samples), {})
    for each in stated.variants:
        names = [spec.name for spec in sample_specs(stated, each)]
        with loaded(stated, each.name) as model:
            rows = [
                real_outputs(each, answered)
                for _, answered in answer(model, inputs.sequence(names))
            ]
        outputs[each.name] = tuple(np.stack(stack) for stack in zip(*rows, strict=True))
    raw = render_golden(GoldenSamples(tuple(samples), outputs))
    digest = hashlib.sha256(raw).hexdigest()
    return replace(stated, golden=Golden(digest, len(raw), len(samples[0]))), raw
