"""The owner's keys: one encrypted PEM file each, outside the repository.

The rules this module keeps:
 * Keys are Ed25519, in PKCS#8 encrypted with what scrypt makes of the passphrase: the
   PEM format's own stretching takes a millisecond and would not stop a guess.
 * The directory is 0700, its files 0600, and they are durable before anything that
   names their key is signed.
 * An empty passphrase leaves keys unencrypted: for tests and demonstrations that throw
   them away. The command line never passes one.

``tinyward.salt`` holds the parameters of scrypt. To open a key without Tinyward:
``openssl pkey -in KEY.pem -passin pass:HEX``, where HEX is scrypt(passphrase, salt) of
32 bytes, in hexadecimal.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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
from securesystemslib.signer import CryptoSigner, SSlibKey

from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.publish.files import owners_disk, write_durably

_SALT_FILE = "tinyward.salt"
_NAME_CHARACTERS = 16  # of the key id in a file name: enough to tell keys apart


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


class KeyRing:
    """The private keys in one directory, opened when they first sign.

    Holders of other keys lend theirs: each has a directory and a passphrase of its own.
    """

    def __init__(
        self, directory: Path, passphrase: bytes, lent: Sequence["KeyRing"] = ()
    ) -> None:
        self.directory = directory
        self._passphrase = passphrase
        self._rings = (self, *lent)
        self._secret: bytes | None = None
        self._signers: dict[str, CryptoSigner] = {}

    @classmethod
    def create(
        cls, directory: Path, passphrase: bytes, lent: Sequence["KeyRing"] = ()
    ) -> "KeyRing":
        """Make an empty directory for keys.

        Raises:
            SettingsError: It exists and holds something.
        """
        if directory.exists() and any(directory.iterdir()):
            raise SettingsError(
                f"{directory} is not empty: keys are never overwritten",
                reason=Reason.SETTINGS,
                todo="Choose another --keys directory.",
            )
        with owners_disk():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        stretching = Stretching(salt=secrets.token_hex(16))
        write_durably(
            directory / _SALT_FILE, msgspec.json.encode(stretching), mode=0o600
        )
        return cls(directory, passphrase, lent)

    def make_several(self, role: str, count: int) -> list[SSlibKey]:
        """Make keys for a role, shared out among the holders."""
        rings = self._rings
        return [rings[number % len(rings)].make(role) for number in range(count)]

    def make(self, role: str) -> SSlibKey:
        """Make a key for a role here; its file is durable when this returns."""
        private = Ed25519PrivateKey.generate()
        signer = CryptoSigner(private)
        key = signer.public_key
        pem = private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, self._encryption()
        )
        write_durably(self._path(role, key.keyid), pem, mode=0o600)
        self._signers[key.keyid] = signer
        return key

    def signers(
        self, role: str, keyids: list[str], threshold: int
    ) -> list[CryptoSigner]:
        """Return the signers that are here for a role's keys.

        Raises:
            SettingsError: Fewer keys are here than have to sign, or the passphrase
                does not open one.
        """
        here = [(keyid, self._holder(role, keyid)) for keyid in keyids]
        found = [(keyid, ring) for keyid, ring in here if ring is not None]
        if len(found) < threshold:
            places = " and ".join(str(ring.directory) for ring in self._rings)
            raise SettingsError(
                f"{role}: {len(found)} of its keys are in {places}, "
                f"{threshold} have to sign",
                reason=Reason.SETTINGS,
                todo="Name each directory that holds some of them with --keys.",
            )
        return [ring._signer(role, keyid) for keyid, ring in found]  # noqa: SLF001 - same class

    def count(self, role: str, keyids: list[str]) -> int:
        """Return how many of a role's keys are here."""
        return sum(self._holder(role, keyid) is not None for keyid in keyids)

    def _holder(self, role: str, keyid: str) -> "KeyRing | None":
        """Return the ring that has a key."""
        return next((ring for ring in self._rings if ring._has(role, keyid)), None)  # noqa: SLF001 - same class

    def _has(self, role: str, keyid: str) -> bool:
        """Tell whether a key can be used."""
        return keyid in self._signers or self._path(role, keyid).is_file()

    def _signer(self, role: str, keyid: str) -> CryptoSigner:
        """Open a key once."""
        if keyid not in self._signers:
            path = self._path(role, keyid)
            try:
                private = load_pem_private_key(path.read_bytes(), self._password())
                signer = CryptoSigner(private)
            except (OSError, TypeError, ValueError) as err:
                raise SettingsError(
                    f"the passphrase does not open {path}",
                    reason=Reason.SETTINGS,
                    todo="Use the passphrase that these keys were made with.",
                ) from err
            if signer.public_key.keyid != keyid:
                raise SettingsError(
                    f"{path} holds another key",
                    reason=Reason.SETTINGS,
                    todo="Restore it from the copy of the keys.",
                )
            self._signers[keyid] = signer
        return self._signers[keyid]

    def _path(self, role: str, keyid: str) -> Path:
        """Return the file of a key."""
        return self.directory / f"{role}-{keyid[:_NAME_CHARACTERS]}.pem"

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
