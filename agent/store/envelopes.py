"""Envelopes of sealed bundles on disk: each beside its object, under the same name.

The rules this module keeps:
 * ``envelope/<sha256>`` is written aside, synced and renamed before its object gets its
   own name: an object that COMMIT refers to never lacks it.
 * It lives as long as its object, and is collected with it.
 * It proves nothing, and is not hashed: it opens the object, or does not.
"""

from collections.abc import Collection
from pathlib import Path

from agent.core.reasons import Reason
from agent.core.sealing import MAX_ENVELOPE_BYTES
from agent.store.atomic import Disk, device_errors, read_regular, replace_durably
from agent.store.staging import refused


class Envelopes:
    """The folder ``envelope`` of a state directory; made with its first envelope.

    The names are digests that ``Objects.path`` has checked. All methods raise
    ``DeviceError`` when the disk does not play along.
    """

    def __init__(self, state_dir: Path, disk: Disk) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / "envelope"
        self._disk = disk

    def load(self, sha256: str) -> bytes | None:
        """Return an object's envelope; None where none is kept, or none is readable."""
        path = self._folder / sha256
        with device_errors(path):
            return read_regular(self._disk, path, MAX_ENVELOPE_BYTES)

    def save(self, sha256: str, content: bytes) -> None:
        """Keep an object's envelope; the same again writes nothing.

        Raises:
            BundleRefusedError: ``length``: no envelope is empty, or so long.
        """
        if not 0 < len(content) <= MAX_ENVELOPE_BYTES:
            what = f"cannot have an envelope of {len(content)} bytes"
            raise refused(sha256, what, Reason.LENGTH)
        if self.load(sha256) == content:
            return
        with device_errors(self._folder):
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700)
                self._disk.sync_directory(self._state_dir)
            replace_durably(self._disk, self._folder / sha256, content)

    def discard(self, sha256: str) -> None:
        """Remove an object's envelope; one that is not there is fine."""
        with device_errors(self._folder):
            self._disk.remove(self._folder / sha256)

    def collect(self, keep: Collection[str]) -> None:
        """Remove all but these, and what an interrupted write left."""
        with device_errors(self._folder):
            # Boards that never met a sealed bundle have no such folder.
            found = list(self._folder.iterdir()) if self._folder.is_dir() else []
            for path in found:
                if path.name not in keep:
                    self._disk.remove(path)
