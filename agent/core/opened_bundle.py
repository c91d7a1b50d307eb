"""A bundle that was opened and checked, as those see it who never open one.

``agent.trust.bundle.Bundle`` is one; supervision and updates, which never import trust,
declare here what they need of it.
"""

from typing import Protocol

from agent.core.manifest import Manifest
from agent.core.sealing import Marks

NO_TRIGGERS = memoryview(b"")  # of a bundle without a watermark


class OpenedBundle(Protocol):
    """A bundle whose container, manifest and digests were checked."""

    @property
    def manifest(self) -> Manifest:
        """The parsed manifest."""

    @property
    def raw_manifest(self) -> bytes:
        """The manifest as it was signed."""

    @property
    def sha256(self) -> str:
        """Digest of the whole bundle."""

    @property
    def size(self) -> int:
        """Bytes of the whole bundle."""

    @property
    def profile(self) -> bytes:
        """The reference profile, empty where there is none."""

    @property
    def golden(self) -> memoryview:
        """The golden samples' file."""

    @property
    def provenance(self) -> bytes:
        """What the bundle says of its origin, empty where it says nothing."""

    @property
    def triggers(self) -> memoryview:
        """Inputs that tell the board's own copy, empty without a watermark."""

    @property
    def marks(self) -> Marks | None:
        """What makes it this board's own copy; None where all boards run the same."""

    def variant_bytes(self, name: str) -> memoryview:
        """Return the .tflite bytes of a variant, as this board runs them."""

    def variant_sha256(self, name: str) -> str:
        """Return the digest of those bytes: the manifest's, unless they are marked."""
