"""The owner's keys of TUF roles: one encrypted PEM file each, outside the repository.

The rules this module keeps:
 * Keys are Ed25519, kept as ``agent.publish.vault`` says: encrypted, 0600, and durable
   before anything that names their key is signed.
"""

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, SSlibKey

from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.publish.vault import Vault

_NAME_CHARACTERS = 16  # of the key id in a file name: enough to tell keys apart


class KeyRing:
    """The private keys in one directory, opened when they first sign.

    Holders of other keys lend theirs: each has a directory and a passphrase of its own.
    """

    def __init__(
        self, directory: Path, passphrase: bytes, lent: Sequence["KeyRing"] = ()
    ) -> None:
        self.directory = directory
        self._vault = Vault(directory, passphrase)
        self._rings = (self, *lent)
        self._signers: dict[str, CryptoSigner] = {}

    @classmethod
    def create(
        cls, directory: Path, passphrase: bytes, lent: Sequence["KeyRing"] = ()
    ) -> "KeyRing":
        """Make an empty directory for keys.

        Raises:
            SettingsError: It exists and holds something.
        """
        Vault.create(directory, passphrase)
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
        self._vault.keep(self._path(role, key.keyid), private)
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
            signer = CryptoSigner(self._vault.open(path))
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
