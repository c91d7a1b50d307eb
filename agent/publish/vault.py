"""A directory of private keys: one encrypted PEM file each, opened by one passphrase.

The rules this module keeps:
 * Keys are PKCS#8, encrypted with what scrypt makes of the passphrase: the PEM format's
   own stretching takes a millisecond and would not stop a guess.
 * The directory is 0700, its files 0600, and a key is durable before it is used.
 * No key is ever replaced by another: what it opens would be lost for good.
 * An empty passphrase leaves keys unencrypted: for tests and demonstrations that throw
   them away. The command line never passes one.

``tinyward.salt`` holds the parameters of scrypt. To open a key without Tinyward:
``openssl pkey -in KEY.pem -passin pass:HEX``, where HEX is scrypt(passphrase, salt) of
32 bytes, in hexadecimal.
"""

import secrets
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from msgspec import Struct

from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.publish.files import create_durably, owners_disk, write_durably

_SALT_FILE = "tinyward.salt"
PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey


class Stretching(Struct, frozen=True):
    """Parameters of scrypt (RFC 7914).

    Attributes:
        salt: 16 random bytes, hexadecimal.
        n: Cost: 2^16 with r = 8 takes 64 MB and a quarter of a second.
    """

    salt: str
    n: int = 2**16
    r: int = 8
    p: int = 1


class Vault:
    """The private keys in one directory."""

    def __init__(self, directory: Path, passphrase: bytes) -> None:
        self.directory = directory
        self._passphrase = passphrase
        self._secret: bytes | None = None

    @classmethod
    def create(cls, directory: Path, passphrase: bytes) -> "Vault":
        """Make an empty directory for keys.

        Raises:
            SettingsError: It exists and holds something.
            DeviceError: It cannot be made.
        """
        if directory.exists() and any(directory.iterdir()):
            raise SettingsError(
                f"{directory} is not empty: keys are never overwritten",
                reason=Reason.SETTINGS,
                todo="Choose another directory for keys.",
            )
        with owners_disk():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        return cls.beside(directory, passphrase)

    @classmethod
    def beside(cls, directory: Path, passphrase: bytes) -> "Vault":
        """Return a vault in a directory that may hold other files, too.

        Raises:
            DeviceError: It cannot be written.
        """
        if not (directory / _SALT_FILE).exists():
            salt = msgspec.json.encode(Stretching(salt=secrets.token_hex(16)))
            write_durably(directory / _SALT_FILE, salt, mode=0o600)
        return cls(directory, passphrase)

    @classmethod
    def at(cls, directory: Path, passphrase: bytes) -> "Vault":
        """Return the vault in a directory, which is made where there is none.

        Raises:
            SettingsError: It holds something else.
            DeviceError: It cannot be made.
        """
        if (directory / _SALT_FILE).exists():
            return cls(directory, passphrase)
        return cls.create(directory, passphrase)

    def keep(self, path: Path, private: PrivateKey | X25519PrivateKey) -> None:
        """Encrypt a new key into a new file; it is durable when this returns.

        Raises:
            SettingsError: There is a file of this name.
            DeviceError: It cannot be written.
        """
        pem = private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, self._encryption()
        )
        create_durably(path, pem, mode=0o600)

    def open(self, path: Path) -> PrivateKey:
        """Return the key in a file.

        Raises:
            SettingsError: It is not there, or the passphrase does not open it.
        """
        private = self._open(path)
        if not isinstance(private, PrivateKey):
            raise _another_kind(path)
        return private

    def open_agreement(self, path: Path) -> X25519PrivateKey:
        """Return the key for agreements (X25519) in a file, as ``open`` does.

        Raises:
            SettingsError: It is not there, or the passphrase does not open it.
        """
        private = self._open(path)
        if not isinstance(private, X25519PrivateKey):
            raise _another_kind(path)
        return private

    def _open(self, path: Path) -> PrivateKeyTypes:
        """Return whatever key is in a file."""
        try:
            return load_pem_private_key(path.read_bytes(), self._password())
        except (OSError, TypeError, ValueError, UnsupportedAlgorithm) as err:
            raise SettingsError(
                f"the passphrase does not open {path}",
                reason=Reason.SETTINGS,
                todo="Use the passphrase that these keys were made with.",
            ) from err

    def _encryption(self) -> KeySerializationEncryption:
        """Return how a new key is encrypted."""
        password = self._password()
        return BestAvailableEncryption(password) if password else NoEncryption()

    def _password(self) -> bytes | None:
        """Return what scrypt makes of the passphrase; None for an empty one."""
        if not self._passphrase:
            return None
        if self._secret is None:
            self._secret = self._stretch()
        return self._secret

    def _stretch(self) -> bytes:
        """Stretch the passphrase."""
        path = self.directory / _SALT_FILE
        try:
            chosen = msgspec.json.decode(path.read_bytes(), type=Stretching)
            salt = bytes.fromhex(chosen.salt)
            scrypt = Scrypt(salt, length=32, n=chosen.n, r=chosen.r, p=chosen.p)
        except (OSError, ValueError) as err:
            raise SettingsError(
                f"{path} is missing or damaged: {err}",
                reason=Reason.SETTINGS,
                todo="Restore it from the copy of the keys.",
            ) from err
        return scrypt.derive(self._passphrase).hex().encode()


def _another_kind(path: Path) -> SettingsError:
    """Return the error for a file that holds a key for something else."""
    return SettingsError(
        f"{path} is a key of another kind",
        reason=Reason.SETTINGS,
        todo="Restore it from the copy of the keys.",
    )
