"""The ratchet on the disk: the key of now, and nothing that leads back.

The rules this module keeps:
 * Two slots are written in turn, each within one sector: a loss of power leaves the key
   of now or the one before it. The older slot is overwritten at once, and that is on
   the medium with the next checkpoint at the latest.
 * The first key leaves the board sealed to the owner, or not at all. Where keys were
   lost, another first key is made, and its epoch says so.
"""

import os
from collections.abc import Callable
from hashlib import sha256
from struct import Struct

from agent.audit.files import Folder
from agent.core.audit_layout import SEALED_KEYS, pack_sealed_key
from agent.core.ratchet import KEY_BYTES, mac_of, next_key, sealing_context

_SLOT = Struct(f">Q{KEY_BYTES}s8s")
SLOT_BYTES = 512  # a sector: written as a whole or not at all
Seal = Callable[[bytes, bytes], bytes]  # content, context -> sealed to the owner


class Ratchet:
    """Makes the MACs of checkpoints, each with a key of its own.

    Args:
        folder: Where its file is, out of the log's own folder: that may be copied.
        name: What the file is called.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        self.epoch = 0
        self._key = b""

    def load(self) -> bool:
        """Take the newest whole slot; False if there is none."""
        raw = self._folder.read(self._name)
        for place in (0, SLOT_BYTES):
            if place + _SLOT.size > len(raw):
                continue
            epoch, key, check = _SLOT.unpack_from(raw, place)
            if check == _check(epoch, key) and epoch > self.epoch:
                self.epoch, self._key = epoch, key
        return bool(self._key)

    def begin(self, origin: str, log: Folder, seal: Seal | None) -> None:
        """Make another first key, and seal it to the owner.

        Args:
            origin: The log's name.
            log: Its folder, where the sealed key is kept.
            seal: Encrypts to the owner; None where nobody is to verify MACs.

        Raises:
            OSError: It cannot be written.
        """
        self.epoch, self._key = self.epoch + 1, os.urandom(KEY_BYTES)
        if seal is not None:
            sealed = seal(self._key, sealing_context(origin, self.epoch))
            line = pack_sealed_key(self.epoch, sealed)
            log.replace(SEALED_KEYS, log.read(SEALED_KEYS) + line)
        self._write(self._name_slot())
        self._folder.sync([self._name])

    def mac(self, note: bytes) -> bytes:
        """Return the MAC of a checkpoint with the key of now."""
        return mac_of(self._key, self.epoch, note)

    def step(self) -> None:
        """Forget the key of now durably, once its checkpoint is on the medium.

        Raises:
            OSError: It could not be; the key of now is still known.
        """
        before = (self.epoch, self._key)
        self.epoch, self._key = self.epoch + 1, next_key(self._key)
        try:
            self._write(self._name_slot())
            self._folder.sync([self._name])
            other = SLOT_BYTES - self._name_slot()
            self._folder.write(self._name, other, bytes(_SLOT.size))
        except OSError:
            self.epoch, self._key = before
            self._folder.close(self._name)
            raise

    def _name_slot(self) -> int:
        """Return where the slot of this epoch begins."""
        return SLOT_BYTES * (self.epoch & 1)

    def _write(self, place: int) -> None:
        """Write the key of now."""
        slot = _SLOT.pack(self.epoch, self._key, _check(self.epoch, self._key))
        self._folder.write(self._name, place, slot)


def _check(epoch: int, key: bytes) -> bytes:
    """Return what tells a whole slot from half of one."""
    return sha256(epoch.to_bytes(8, "big") + key).digest()[:8]
