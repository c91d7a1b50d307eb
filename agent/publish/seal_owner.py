"""The owner's own sealing key: what keeps content keys, so that boards can be added.

The rules this module keeps:
 * The private half lies in a vault, encrypted by a passphrase; sealing needs the public
   half alone, and asks for none.
 * The private half is made once: another one in its place would open nothing.
 * Opening a content key needs the passphrase: adding a board is giving the model away.
"""

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.core.reasons import Reason
from agent.core.sealing_keys import PublicKey, parse_public_key, render_public_key
from agent.errors import SettingsError
from agent.publish.files import owners_disk, write_durably
from agent.publish.vault import Vault

_PRIVATE, _PUBLIC = "seal-owner.pem", "seal-owner.pub"
_BOARD = "owner"


def load_owner(directory: Path) -> PublicKey | None:
    """Return the public half of the owner's key; None where there is none yet.

    Raises:
        SettingsError: The file is damaged.
        DeviceError: It cannot be read.
    """
    path = directory / _PUBLIC
    with owners_disk():
        if not path.exists():
            return None
        text = path.read_text(errors="replace")
    return parse_public_key(text)


def has_owner(directory: Path) -> bool:
    """Return whether the private half is there, whatever became of the public one.

    Raises:
        DeviceError: Nobody may look.
    """
    with owners_disk():
        return os.path.lexists(directory / _PRIVATE)


def make_owner(directory: Path, passphrase: bytes) -> PublicKey:
    """Make the owner's key in a new vault, or in one whose passphrase this is.

    Where the private half is there already, its public half is written again: every
    content key kept so far opens with that one alone.

    Raises:
        SettingsError: The directory holds something else, or the passphrase does not
            open the key that is there.
        DeviceError: It cannot be written.
    """
    if has_owner(directory):
        private = Vault(directory, passphrase).open_agreement(directory / _PRIVATE)
    else:
        vault = Vault.at(directory, passphrase)
        private = X25519PrivateKey.generate()
        vault.keep(directory / _PRIVATE, private)
    public = PublicKey("x25519", private.public_key().public_bytes_raw(), _BOARD)
    # Last: whoever sees it may rely on the private half.
    write_durably(directory / _PUBLIC, f"{render_public_key(public)}\n".encode())
    return public


def open_owner(directory: Path, passphrase: bytes) -> Callable[[bytes, bytes], bytes]:
    """Return what opens the owner's envelopes: ``unwrap(envelope, info)``.

    Raises:
        SettingsError: There is no such key, or the passphrase does not open it.
    """
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    private = Vault(directory, passphrase).open_agreement(directory / _PRIVATE)
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)

    def unwrap(envelope: bytes, info: bytes) -> bytes:
        try:
            return suite.decrypt(envelope, private, info)
        except InvalidTag as err:
            raise SettingsError(
                f"the key in {directory} does not open this content key",
                reason=Reason.SETTINGS,
                todo="Name the directory it was sealed with: --keys.",
            ) from err

    return unwrap
