"""Opening a bundle: bytes in, a checked ``Bundle`` or a refusal out.

The rules this module keeps:
 * Order: size limit, container, manifest, then that the entries are exactly those the
   manifest declares, with the declared sizes and digests. Nothing is parsed before
   the step above it has passed, and no .tflite or .npz is parsed here at all.
 * Raises ``BundleRefusedError`` only, for any bytes.
 * Variants and golden samples are never copied: they are views into the given bytes,
   which may be a mapped file.

Opening does not say who made a bundle: a bundle carries no signature of its own. The
caller MUST have verified the bytes' digest against TUF before it believes them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from agent.core.container import parse_container
from agent.core.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from agent.core.opened_bundle import NO_TRIGGERS
from agent.core.reasons import Reason
from agent.core.sealing import Marks
from agent.core.watermark import TRIGGERS_ENTRY
from agent.errors import BundleRefusedError

MANIFEST_ENTRY = "manifest.json"
GOLDEN_ENTRY = "golden.npz"
PROFILE_ENTRY = "profile.json"
PROVENANCE_ENTRY = "provenance.json"
# The optional entries are copied into the daemon's memory: a profile of 64 sketches
# takes 60 kB, a provenance statement about as much.
MAX_OPTIONAL_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose container, manifest, sizes and digests agree with each other.

    Attributes:
        manifest: What it says about itself.
        raw_manifest: The bytes that were parsed, to be handed to children.
        sha256: Digest of the whole bundle as it is signed and stored, which is that of
            the ciphertext where it is sealed; ``size`` likewise its bytes.
        golden: The golden samples (.npz), not yet parsed.
        profile: The reference profile, ``b""`` where there is none.
        provenance: Where the model came from, ``b""`` where nobody says.
        variants: Entry name -> .tflite bytes, not yet parsed.
        triggers: Inputs that tell the board's own copy (.npz), not yet parsed.
        marks: What makes it this board's own copy, applied to ``variants`` already.
    """

    manifest: Manifest
    raw_manifest: bytes
    sha256: str
    size: int
    golden: memoryview
    profile: bytes
    provenance: bytes
    variants: Mapping[str, memoryview]
    triggers: memoryview = NO_TRIGGERS
    marks: Marks | None = None

    def variant_bytes(self, name: str) -> memoryview:
        """Return the .tflite bytes of a variant, whose digest was checked.

        Raises:
            BundleRefusedError: No variant is called ``name`` (``manifest``).
        """
        return self.variants[self.manifest.variant(name).file]

    def variant_sha256(self, name: str) -> str:
        """Return the digest of a variant's bytes as this board runs them.

        Raises:
            BundleRefusedError: No variant is called ``name`` (``manifest``).
        """
        results = self.marks.results if self.marks is not None else {}
        return results.get(name, self.manifest.variant(name).sha256)


def open_bundle(
    content: bytes | memoryview, *, max_bytes: int, sha256: str = ""
) -> Bundle:
    """Check a bundle from the outside in.

    Args:
        content: The whole file; it has to stay unchanged as long as the bundle lives.
        max_bytes: Larger ones are refused before anything is read.
        sha256: Its digest, where the caller has just computed it.

    Raises:
        BundleRefusedError: ``too_large``, ``truncated``, ``malformed``, ``schema``,
            ``manifest``, ``length`` or ``digest``.
    """
    view = memoryview(content).cast("B").toreadonly()
    if len(view) > max_bytes:
        raise BundleRefusedError(
            f"bundle: {len(view)} bytes, at most {max_bytes} allowed",
            reason=Reason.TOO_LARGE,
        )
    entries = parse_container(view)
    if MANIFEST_ENTRY not in entries:
        raise _refused(f"it has no {MANIFEST_ENTRY}", Reason.MALFORMED)
    raw_manifest = _take(entries, MANIFEST_ENTRY, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(raw_manifest)
    profile = _take(entries, PROFILE_ENTRY, MAX_OPTIONAL_BYTES)
    provenance = _take(entries, PROVENANCE_ENTRY, MAX_OPTIONAL_BYTES)
    _check_declared(entries, manifest)
    return Bundle(
        manifest=manifest,
        raw_manifest=raw_manifest,
        sha256=sha256 or hashlib.sha256(view).hexdigest(),
        size=len(view),
        golden=entries.pop(GOLDEN_ENTRY),
        triggers=entries.pop(TRIGGERS_ENTRY, NO_TRIGGERS),
        profile=profile,
        provenance=provenance,
        variants=entries,
    )


def _take(entries: dict[str, memoryview], name: str, max_bytes: int) -> bytes:
    """Remove an entry and return a copy; ``b""`` if it is not there."""
    content = entries.pop(name, memoryview(b""))
    if len(content) > max_bytes:
        raise _refused(
            f"{name} has {len(content)} bytes, at most {max_bytes} allowed",
            Reason.TOO_LARGE,
        )
    return bytes(content)


def _check_declared(entries: Mapping[str, memoryview], manifest: Manifest) -> None:
    """The manifest declares every entry that is there, and no other."""
    declared = {
        variant.file: (variant.size, variant.sha256) for variant in manifest.variants
    }
    declared[GOLDEN_ENTRY] = (manifest.golden.size, manifest.golden.sha256)
    if (mark := manifest.watermark) is not None:
        declared[TRIGGERS_ENTRY] = (mark.size, mark.sha256)
    for name in sorted(declared.keys() - entries.keys()):
        raise _refused(f"{name} is declared but missing", Reason.MALFORMED)
    for name in sorted(entries.keys() - declared.keys()):
        raise _refused(f"{name} is not declared by the manifest", Reason.MALFORMED)
    for name, (size, sha256) in declared.items():
        content = entries[name]
        if len(content) != size:
            raise _refused(
                f"{name} has {len(content)} bytes, its manifest says {size}",
                Reason.LENGTH,
            )
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _refused(f"{name} is not what its manifest says", Reason.DIGEST)


def _refused(what: str, reason: Reason) -> BundleRefusedError:
    """Return the error for a bundle whose parts contradict each other."""
    return BundleRefusedError(f"bundle: {what}", reason=reason)
