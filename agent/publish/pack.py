"""Packing: .tflite files, a description and samples in, one bundle out.

The rules this module keeps:
 * The same input gives the same bytes: nothing here asks for a time, a name or a place.
 * Whatever can be computed is computed, never believed: tensor contracts, digests,
   sizes, RAM and golden outputs come from the files themselves.
 * What a board would refuse for its form is refused here first.
 * The schema is the lowest that can say it, so that older boards can run it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from agent.core.container import render_container
from agent.core.contract import Contract
from agent.core.manifest import (
    Golden,
    Manifest,
    TensorSpec,
    Variant,
    needed_schema,
    parse_manifest,
    render_manifest,
)
from agent.core.profile import (
    MAX_PROFILE_BYTES,
    Profile,
    find_reference,
    parse_profile,
)
from agent.core.provenance import MAX_PROVENANCE_BYTES
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, TrialFailedError
from agent.publish.description import (
    MAX_DESCRIPTION_BYTES,
    PackDescription,
    VariantDescription,
    parse_description,
    parse_labels,
    wrong,
)
from agent.publish.origin import build_provenance, check_packed

MAX_MODEL_BYTES = 2**31 - 1  # a flatbuffer's offsets end there


class Examiner(Protocol):
    """Whoever can run a model: passed in, because this folder cannot."""

    def contract(self, content: bytes) -> Contract:
        """Return what a .tflite file says about itself.

        Raises:
            TrialFailedError: ``contract``, ``unsupported_op`` or ``dynamic_shape``.
        """
        ...

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
        """
        ...


def load_description(path: Path) -> PackDescription:
    """Read pack.toml.

    Raises:
        SettingsError: ``settings``: it cannot be read, or a key is wrong.
    """
    return parse_description(_load(path, "description", MAX_DESCRIPTION_BYTES))


def pack(description: PackDescription, base: Path, examiner: Examiner) -> bytes:
    """Return the bundle of a description.

    Args:
        description: What the author wrote.
        base: Directory that its file names are relative to.
        examiner: Who looks into models and computes golden outputs.

    Raises:
        SettingsError: ``settings``: a file or a key does not fit.
        TrialFailedError: A model cannot be used (see ``Examiner``).
        BundleRefusedError: ``manifest`` or ``too_large``: no board would take it.
    """
    contents: dict[str, bytes] = {}
    variants: list[Variant] = []
    for index, variant in enumerate(description.variant):
        key = f"variant[{index}].file"
        content = _load(base / variant.file, key, MAX_MODEL_BYTES)
        contents[variant.name] = content
        with _naming(f"{key}: {base / variant.file}"):
            facts = examiner.contract(content)
        variants.append(_measure(variant, content, facts))
    manifest = _build_manifest(description, tuple(variants), _labels(description, base))
    samples = base / description.samples
    if not samples.exists():
        raise wrong(f"samples: {samples} does not exist")
    golden = examiner.golden(
        manifest, contents, samples, description.array, description.golden_samples
    )
    profile = _profile(description, base, manifest)
    provenance = _provenance(description, base, manifest)
    return render_bundle(manifest, contents, golden, profile, provenance)


def render_bundle(
    manifest: Manifest,
    variants: Mapping[str, bytes],
    golden: bytes,
    profile: bytes = b"",
    provenance: bytes = b"",
) -> bytes:
    """Return the bundle of a manifest, whose ``golden`` is computed here.

    Args:
        manifest: Complete but for the digest and size of its golden samples.
        variants: Variant name -> .tflite bytes.
        golden: golden.npz.
        profile: profile.json, empty without one.
        provenance: provenance.json, empty without one.

    Raises:
        BundleRefusedError: ``manifest`` or ``too_large``.
    """
    digest = hashlib.sha256(golden).hexdigest()
    recorded = replace(manifest.golden, sha256=digest, size=len(golden))
    raw_manifest = render_manifest(replace(manifest, golden=recorded))
    # Values built in code were never checked; a board's own parser does that best.
    checked = parse_manifest(raw_manifest)
    entries: dict[str, bytes | memoryview] = {
        variant.file: variants[variant.name] for variant in checked.variants
    }
    entries |= {"manifest.json": raw_manifest, "golden.npz": golden}
    if profile:
        entries["profile.json"] = profile
    if provenance:
        entries["provenance.json"] = provenance
    return render_container(entries)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Put the key and the file before what is wrong with a model.

    Raises:
        TrialFailedError: What the examiner raised.
    """
    try:
        yield
    except TrialFailedError as err:
        todo = err.todo
        if err.reason == Reason.CONTRACT:
            todo = todo or "Name a .tflite file as its converter wrote it."
        raise TrialFailedError(f"{where}: {err}", reason=err.reason, todo=todo) from err


def _measure(variant: VariantDescription, content: bytes, facts: Contract) -> Variant:
    """Return a variant with everything that its file says."""
    return Variant(
        name=variant.name,
        file=f"variants/{variant.name}.tflite",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        inputs=facts.inputs,
        outputs=facts.outputs,
        tolerance=variant.tolerance,
        runtimes=variant.runtimes,
        delegates=variant.delegates,
        ram_bytes=facts.ram_bytes,
        accuracy=variant.accuracy,
    )


def _build_manifest(
    description: PackDescription,
    variants: tuple[Variant, ...],
    labels: tuple[str, ...],
) -> Manifest:
    """Return the manifest, with a placeholder where the golden samples will stand."""
    manifest = Manifest(
        schema=needed_schema(description.trial, variants, description.degrade),
        model=description.model,
        version=description.version,
        version_name=description.version_name,
        task=description.task,
        io=description.io,
        labels=labels,
        variants=variants,
        golden=Golden(
            sha256=hashlib.sha256(b"").hexdigest(),
            size=1,
            samples=description.golden_samples,
        ),
        preprocess=description.preprocess,
        postprocess=description.postprocess,
        state=description.state,
        budgets=description.budgets,
        trial=description.trial,
        monitor=description.monitor,
        degrade=description.degrade,
    )
    checked = parse_manifest(render_manifest(manifest))
    _check_labels(checked)
    return checked


def _labels(description: PackDescription, base: Path) -> tuple[str, ...]:
    """Return the labels, from their file if they are in one."""
    if isinstance(description.labels, str):
        path = base / description.labels
        return parse_labels(_load(path, "labels", MAX_DESCRIPTION_BYTES))
    return description.labels


def _profile(description: PackDescription, base: Path, manifest: Manifest) -> bytes:
    """Return the reference profile that the description names, if it is this model's.

    Raises:
        SettingsError: It cannot be read, is damaged, or was made of something else: a
            board would run the model and leave it unwatched, without a word here.
    """
    if not description.profile:
        return b""
    path = base / description.profile
    raw = _load(path, "profile", MAX_PROFILE_BYTES)
    try:
        _check_profile(parse_profile(raw), manifest)
    except BundleRefusedError as err:
        raise wrong(f"profile: {path}: {err}") from err
    return raw


def _provenance(description: PackDescription, base: Path, manifest: Manifest) -> bytes:
    """Return what is said of the model's origin, if it is said of these variants.

    Raises:
        SettingsError: It cannot be read, makes no sense, or is about other bytes.
    """
    said = description.provenance
    if not isinstance(said, str):
        return build_provenance(said, base, manifest)
    if not said:
        return b""
    raw = _load(base / said, "provenance", MAX_PROVENANCE_BYTES)
    return check_packed(raw, base / said, manifest)


def _check_profile(profile: Profile, manifest: Manifest) -> None:
    """Everything in a profile was made of a variant that is packed.

    A variant without a reference is the author's choice: it has a site baseline only.

    Raises:
        SettingsError: Something was made of another file.
        BundleRefusedError: It is of another model, preprocessing or agent.
    """
    packed = {variant.sha256 for variant in manifest.variants}
    for reference in profile.references:
        find_reference(profile, manifest, reference.variant)
        if reference.variant not in packed:
            raise wrong(
                f"profile: it was made of a .tflite file {reference.variant[:12]}..., "
                "which is none of the variants: make it again with `tinyward profile`"
            )


def _check_labels(manifest: Manifest) -> None:
    """A classifier has as many names as it has classes, or none at all."""
    if manifest.task != "classification" or not manifest.labels:
        return
    for variant in manifest.variants:
        answer = _answer(manifest, variant)
        classes = answer.shape[-1] if answer.shape else 1
        if classes != len(manifest.labels):
            raise wrong(
                f"labels: {len(manifest.labels)} names, but variant {variant.name!r} "
                f"tells {classes} classes apart"
            )


def _answer(manifest: Manifest, variant: Variant) -> TensorSpec:
    """Return the output that is read: the named one, or the first not fed back."""
    fed_back = {link.output for link in manifest.state}
    for output in variant.outputs:
        if output.name == manifest.postprocess.output:
            return output
        if not manifest.postprocess.output and output.name not in fed_back:
            return output
    raise wrong(
        f"postprocess.output: variant {variant.name!r} has no output to read a "
        f"prediction from; it has {', '.join(spec.name for spec in variant.outputs)}"
    )


def _load(path: Path, key: str, max_bytes: int) -> bytes:
    """Read a file that a key names.

    Raises:
        SettingsError: It cannot be read, is too large, or is empty.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= max_bytes else b""
    except OSError as err:
        raise wrong(f"{key}: {path}: {err.strerror}") from err
    if size > max_bytes:
        raise wrong(f"{key}: {path} has {size} bytes, at most {max_bytes} allowed")
    if not content:
        raise wrong(f"{key}: {path} is empty")
    return content
