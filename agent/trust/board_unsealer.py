"""What opens sealed bundles on this board; nothing of cryptography until one is here.

``agent.trust.envelope`` and ``agent.trust.unseal`` do the work; they import HPKE and
ciphers, which a board without sealed models never needs.

The rules this module keeps:
 * A key that others on this machine may read opens nothing new: ``seal_key``, until it
   is private again.
 * It opens what is committed, with a warning: that model was opened with it before, so
   refusing it now would protect nothing, and only stop the board's answers.
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.protect_settings import SealSettings
from agent.core.reasons import Reason
from agent.core.sealing import Sealed
from agent.trust.bundle import Bundle

if TYPE_CHECKING:
    from agent.trust.seal_key import LoadKey

log = logging.getLogger(__name__)


class BoardUnsealer:
    """Opens bundles that were sealed for one board, with the key its settings name.

    The key is read anew each time: one that was mended or replaced counts at once.
    """

    def __init__(
        self, settings: SealSettings, board: str, *, committed: bool = False
    ) -> None:
        """Remember where the key is.

        Args:
            settings: Name it.
            board: The id that envelopes name.
            committed: It opens what this board runs already; see the module's rules.
        """
        self._settings = settings
        self._board = board
        self._committed = committed

    def for_committed(self) -> "BoardUnsealer":
        """Return what opens models that are committed, by the same settings."""
        return BoardUnsealer(self._settings, self._board, committed=True)

    def check(self, sealed: Sealed, envelope: bytes) -> None:
        """Stay silent if an envelope is for this board's key, model and version.

        Raises:
            BundleRefusedError: ``envelope`` or ``watermark``.
            DeviceError: ``seal_key``: there is no key that can be used.
        """
        from agent.trust.envelope import open_envelope

        open_envelope(envelope, self._load_key()(), self._board, sealed)

    def open(
        self, content: memoryview, target_sha256: str, sealed: Sealed, envelope: bytes
    ) -> Bundle:
        """Open a sealed bundle; see ``agent.trust.unseal.Unsealer``.

        Raises:
            BundleRefusedError: ``envelope``, ``unseal``, or as ``open_bundle``.
            DeviceError: ``seal_key``; or there is no memory.
        """
        from agent.trust.unseal import Unsealer

        unsealer = Unsealer(self._board, self._load_key())
        return unsealer.open(content, target_sha256, sealed, envelope)

    def _load_key(self) -> "LoadKey":
        """Return what reads the key that the settings name."""
        from agent.trust.seal_key import key_loader

        credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
        table, note_open = self._settings, _warn_open if self._committed else None
        return key_loader(table.credential, table.key, credentials, note_open)


def _warn_open(path: Path) -> None:
    """Say that others may read the key."""
    detail = f"{path} may be read by others; no update is opened with it: chmod 600"
    log.warning("seal.key_open", extra={"reason": Reason.SEAL_KEY, "detail": detail})
