"""The board's Ed25519 key that signs checkpoints, and the public keys of others.

The rules this module keeps:
 * A key is made here, once, 0600 and durable; nothing overwrites it, and one that
   others of this machine may read is refused: it is no secret any more.
 * cryptography is imported when a key is first needed.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.disk_reasons import disk_reason
from agent.core.note import KEY_BYTES, NoteKey, malformed, parse_key
from agent.core.reasons import Reason
from agent.errors import DeviceError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_KEY_BYTES = 4096
OTHERS = stat.S_IRWXG | stat.S_IRWXO
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, repr=False)
class AuditKey:
    """A key that signs.

    Attributes:
        sign: Returns the signature of a text.
        public: The raw public key.
    """

    sign: Callable[[bytes], bytes]
    public: bytes

    def named(self, origin: str) -> NoteKey:
        """Return by which name and key a log's notes are verified."""
        return NoteKey(origin, self.public)


def load_audit_key(path: Path, *, may_make: bool) -> AuditKey:
    """Return the key in a file.

    Args:
        path: A PEM file that its owner alone may read.
        may_make: One that is missing is made.

    Raises:
        DeviceError: ``permission``: others may read it; ``log``: it is no Ed25519 key,
            or missing; else what the disk says.
    """
    try:
        if may_make and not path.exists():
            return _wrap(_make(path))
        return _wrap(_parse(_read_private(path), path))
    except OSError as err:
        reason = disk_reason(err.errno)
        raise DeviceError(f"{path}: {err.strerror}", reason=reason) from err


def verify_ed25519(public: bytes, signature: bytes, text: bytes) -> bool:
    """Whether a signature is that of a key over a text; satisfies ``note.Verify``."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def parse_public(text: str) -> bytes:
    """Return the raw Ed25519 key in a verifier key or in PEM.

    Raises:
        BundleRefusedError: ``malformed``: it is neither.
    """
    if not text.lstrip().startswith("-----BEGIN PUBLIC KEY-----"):
        return parse_key(text).public
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = load_pem_public_key(text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise malformed(f"no public key: {err}") from err
    if not isinstance(found, Ed25519PublicKey):
        raise malformed("a public key that is not Ed25519")
    return found.public_bytes_raw()


def render_pem(public: bytes) -> str:
    """Return a raw public key as PEM."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PublicKey.from_public_bytes(public)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode("ascii")


def _make(path: Path) -> "Ed25519PrivateKey":
    """Make a key; its file is durable when this returns."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    aside.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(aside, _NEW, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link never replaces what has the name already.
        path.hardlink_to(aside)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return private


def _read_private(path: Path) -> bytes:
    """Return the content of a file that is its owner's alone.

    Raises:
        DeviceError: ``permission``, ``log``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as err:
        raise _no_key(f"{path} does not exist") from err
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        # systemd's credentials are 0440 for the service's own group, in a 0500 folder.
        others = found.st_mode & (stat.S_IRWXO if _is_credential(path) else OTHERS)
        if not stat.S_ISREG(found.st_mode) or others:
            raise DeviceError(
                f"{path}: others may read this key",
                reason=Reason.PERMISSION,
                todo=f"chmod 600 {path}",
            )
        return file.read(MAX_KEY_BYTES)


def _is_credential(path: Path) -> bool:
    """Whether systemd keeps the file from others by its folder."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return bool(folder) and path.parent == Path(folder)


def _parse(pem: bytes, path: Path) -> "Ed25519PrivateKey":
    """Return the key in a PEM file.

    Raises:
        DeviceError: ``log``.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as err:
        raise _no_key(f"{path}: no private key") from err
    if not isinstance(private, Ed25519PrivateKey):
        raise _no_key(f"{path}: not an Ed25519 key")
    return private


def _no_key(what: str) -> DeviceError:
    """Return the error for a key of the log that is not there."""
    return DeviceError(
        what,
        reason=Reason.LOG,
        todo="Restore the key of this board's log, or correct audit.key and "
        "audit.credential; with another key another log begins.",
    )


def _wrap(private: "Ed25519PrivateKey") -> AuditKey:
    """Return what of a key is needed."""
    public = private.public_key().public_bytes_raw()
    if len(public) != KEY_BYTES:
        raise malformed("an Ed25519 key of another length")
    return AuditKey(private.sign, public)
