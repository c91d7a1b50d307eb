"""A bundle that was opened and checked, as those see it who never open one.

``agent.trust.bundle.Bundle`` is one; supervision and updates, which never import trust,
declare here what they need of it.
"""

from typing import Protocol

from agent.core.manifest import Manifest


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

    def variant_bytes(self, name: str) -> memoryview:
        """Return the .tflite bytes of a variant."""
