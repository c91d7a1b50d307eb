"""Bundles made without any runtime: for tests that never run what is in them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from agent.core.container import parse_container, render_container
from agent.core.contract import Contract
from agent.core.manifest import (
    Golden,
    Manifest,
    TensorSpec,
    Variant,
    parse_manifest,
    render_manifest,
)
from agent.core.marking import HeadPlace, Marking
from agent.core.reasons import Reason
from agent.core.watermark import TRIGGERS_ENTRY
from agent.errors import TrialFailedError
from agent.publish.pack import render_bundle

MAX_BYTES = 2 * 1024 * 1024
SPEC_IN = TensorSpec(name="image", shape=(1, 8, 8, 1), dtype="int8", scale=0.5)
SPEC_OUT = TensorSpec(name="scores", shape=(1, 3), dtype="int8", scale=0.25)
# Long enough that "cut at every 4 KB" means something; no byte pattern repeats.
VARIANTS = {
    "float": hashlib.shake_128(b"float").digest(9_000),
    "int8": hashlib.shake_128(b"int8").digest(5_000),
}
TRIGGERS = hashlib.shake_128(b"triggers").digest(2_000)
GOLDEN = hashlib.shake_128(b"golden").digest(3_000)


def variant(name: str = "int8", content: bytes = VARIANTS["int8"]) -> Variant:
    """Return the manifest's entry of a variant."""
    return Variant(
        name=name,
        file=f"variants/{name}.tflite",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        inputs=(SPEC_IN,),
        outputs=(SPEC_OUT,),
        tolerance=0.25,
    )


def manifest(variants: Mapping[str, bytes] = VARIANTS, version: int = 7) -> Manifest:
    """Return a manifest that is complete but for its golden samples' digest."""
    return Manifest(
        schema=1,
        model="kws",
        version=version,
        task="classification",
        labels=("yes", "no", "noise"),
        variants=tuple(variant(name, content) for name, content in variants.items()),
        golden=Golden(sha256="0" * 64, size=1, samples=4),
    )


def good_bundle(version: int = 7) -> bytes:
    """Return a bundle that opens; its models are random bytes."""
    return render_bundle(manifest(version=version), VARIANTS, GOLDEN)


def markable_bundle(*heads: HeadPlace, version: int = 7) -> bytes:
    """Return ``good_bundle`` with triggers, and heads wherever somebody says."""
    entries: dict[str, bytes | memoryview] = dict(
        parse_container(memoryview(good_bundle(version)))
    )
    digest = hashlib.sha256(TRIGGERS).hexdigest()
    mark = Marking(128, "010", 28, sha256=digest, size=len(TRIGGERS), heads=heads)
    plain = parse_manifest(bytes(entries["manifest.json"]))
    raw = render_manifest(replace(plain, schema=4, watermark=mark))
    return render_container({**entries, "manifest.json": raw, TRIGGERS_ENTRY: TRIGGERS})


def good_entries() -> dict[str, bytes]:
    """Return the entries of ``good_bundle``, to be spoiled."""
    entries = parse_container(memoryview(good_bundle()))
    return {name: bytes(content) for name, content in entries.items()}


class ScriptedExaminer:
    """An Examiner that knows what it will say; bytes that begin with ``bad`` fail."""

    def contract(self, content: bytes) -> Contract:
        """Return the same contract for any model."""
        if content.startswith(b"bad"):
            raise TrialFailedError("no model", reason=Reason.CONTRACT)
        return Contract((SPEC_IN,), (SPEC_OUT,), ("CONV_2D", "SOFTMAX"), 4096)

    def golden(
        self,
        manifest: Manifest,
        variants: Mapping[str, bytes],
        samples: Path,
        array: str,
        count: int,
    ) -> bytes:
        """Return bytes that depend on everything that was passed."""
        said = [manifest.model, *variants, samples.name, array, str(count)]
        return " ".join(said).encode()
