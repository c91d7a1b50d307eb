"""The board's private key for sealed models: made here, read from a file or credential.

The rules this module keeps:
 * A key is made here, once, 0600 and durable, and never leaves the board; nothing
   overwrites it.
 * A file that others of this machine may read is refused: it is no secret any more.
 * It is in no message and no repr, whatever is wrong with it.

The file is one line, ``tinyward-secret-SUITE BASE64``: X25519's 32 bytes, in the hybrid
suite after the 64 of ML-KEM's seed (FIPS 203, algorithm 16: d || z).
"""

import base64
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent.core.disk_reasons import disk_reason
from agent.core.reasons import Reason
from agent.core.sealing import Suite
from agent.core.sealing_keys import PublicKey
from agent.errors import DeviceError, SettingsError
from agent.trust.own_key import create_own

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

_PREFIX = "tinyward-secret-"
_SEED_BYTES, _X25519_BYTES = 64, 32
_MAX_FILE_BYTES = 1024
# What the service's drop-in gives where root has put no key there.
_MISSING = "missing"
# A FIFO without a writer is not waited for.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAKE = "Make one with `tinyward identity seal`."


class SealKey:
    """A private key that opens envelopes; says nothing of itself."""

    __slots__ = ("_raw", "suite")

    def __init__(self, suite: Suite, raw: bytes) -> None:
        self.suite = suite
        self._raw = raw

    def public(self, board: str) -> PublicKey:
        """Return the public half, as ``board``'s.

        Raises:
            ValueError: The bytes are no key of this suite.
            ImportError: This board's cryptography has no such keys.
        """
        x25519 = self._x25519().public_key().public_bytes_raw()
        if self.suite == "x25519":
            return PublicKey(self.suite, x25519, board)
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

        mlkem = MLKEM768PrivateKey.from_seed_bytes(self._raw[:_SEED_BYTES])
        raw = mlkem.public_key().public_bytes_raw() + x25519
        return PublicKey(self.suite, raw, board)

    def unwrap(self, envelope: bytes | memoryview, info: bytes) -> bytes:
        """Return what was sealed to this key (RFC 9180, base mode, single shot).

        Raises:
            InvalidTag: It was not, or not with this ``info``.
            ImportError: This board's cryptography has no HPKE.
        """
        from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM
        from cryptography.hazmat.primitives.hpke import Suite as Hpke

        kem = KEM.X25519 if self.suite == "x25519" else KEM.MLKEM768_X25519
        suite = Hpke(kem, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
        return suite.decrypt(envelope, self._private(), info)

    def to_line(self) -> bytes:
        """Return the private key as its file holds it."""
        return (
            f"{_PREFIX}{self.suite} {base64.b64encode(self._raw).decode()}\n".encode()
        )

    def _private(self) -> "X25519PrivateKey | MLKEM768X25519PrivateKey":
        """Return the key as HPKE takes it."""
        if self.suite == "x25519":
            return self._x25519()
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
        from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

        seed = MLKEM768PrivateKey.from_seed_bytes(self._raw[:_SEED_BYTES])
        return MLKEM768X25519PrivateKey(seed, self._x25519())

    def _x25519(self) -> "X25519PrivateKey":
        """Return the X25519 key, alone or as the second part."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return X25519PrivateKey.from_private_bytes(self._raw[-_X25519_BYTES:])


LoadKey = Callable[[], SealKey]
NoteOpen = Callable[[Path], None]


def make_seal_key(path: Path, suite: Suite = "x25519") -> SealKey:
    """Make a private key; its file is durable when this returns.

    Raises:
        SettingsError: The file exists; or this machine's cryptography has no such
            keys.
        DeviceError: It cannot be written.
    """
    # Both kinds of key are uniformly random bytes (RFC 7748, FIPS 203).
    key = SealKey(suite, os.urandom(_key_bytes(suite)))
    try:
        key.public("")  # before there is a file that nobody can use
        create_own(path, key.to_line())
    except ImportError as err:
        raise SettingsError(
            f"this board's cryptography has no keys of {suite}",
            reason=Reason.SETTINGS,
            todo="`pip install 'cryptography>=50'` beside the agent.",
        ) from err
    except FileExistsError as err:
        raise SettingsError(
            f"{path} exists: keys are never overwritten",
            reason=Reason.SETTINGS,
            todo="`tinyward identity show` prints its public line.",
        ) from err
    except OSError as err:
        what = f"{path}: {err.strerror}"
        raise DeviceError(what, reason=disk_reason(err.errno)) from err
    return key


def seal_key_place(credential: str, file: str, credentials: str) -> Path | None:
    """Return where the key is; None where none is named.

    Args:
        credential: ``seal.credential``.
        file: ``seal.key``.
        credentials: ``$CREDENTIALS_DIRECTORY``, empty outside of a service.

    Raises:
        DeviceError: ``seal_key``: there is a credential, and no directory of them; or
            the file's path is none.
    """
    if credential and not credentials:
        raise _unusable(
            f"credential {credential!r}: this is no service that was given any",
            "`tinyward install --with seal`, or set seal.key.",
        )
    if credential:
        return Path(credentials) / credential
    if "\0" in file:
        raise _unusable(f"{file!r} is no path", "Correct seal.key.")
    try:
        return Path(file).expanduser() if file else None
    except RuntimeError as err:  # ~ of nobody
        raise _unusable(f"{file!r}: {err}", "Correct seal.key.") from err


def key_loader(
    credential: str, file: str, credentials: str, note_open: NoteOpen | None = None
) -> LoadKey:
    """Return what reads the key anew whenever something is opened.

    It is called seldom (an update, a start), and so none is kept in memory.
    ``note_open``: see ``load_seal_key``.
    """

    def load() -> SealKey:
        place = seal_key_place(credential, file, credentials)
        if place is None:
            raise _unusable("neither seal.key nor seal.credential is set", _MAKE)
        return load_seal_key(place, note_open)

    return load


def load_seal_key(path: Path, note_open: NoteOpen | None = None) -> SealKey:
    """Return the private key in a file.

    Args:
        path: Where it is.
        note_open: Told where others may read the key, which is used all the same;
            without it such a key is refused.

    Raises:
        DeviceError: ``seal_key``: it is not there, others may read it, or it is none.
    """
    try:
        mode, raw = _content(path)
    except FileNotFoundError as err:
        raise _unusable(f"{path} does not exist", _MAKE) from err
    except OSError as err:
        todo = "The service's own user must be able to read it."
        raise _unusable(f"{path}: {err.strerror}", todo) from err
    except ValueError as err:  # a NUL
        raise _unusable(f"{str(path)!r}: {err}", "Correct seal.key.") from err
    if not stat.S_ISREG(mode):
        raise _unusable(f"{path} is no file", _MAKE)
    # systemd gives credentials 0400, or 0440 to a service with a user of its own.
    if mode & stat.S_IRWXO or (mode & (stat.S_IWGRP | stat.S_IXGRP)):
        if note_open is None:
            raise _unusable(
                f"{path} may be read by others on this machine",
                f"`chmod 600 {path}`; if it was so for long, make another key.",
            )
        note_open(path)
    return _parsed(path, raw)


def _content(path: Path) -> tuple[int, bytes]:
    """Return a file's mode, and its content where it is a regular one.

    Raises:
        OSError: It cannot be opened or read.
    """
    descriptor = os.open(path, _READ)
    try:
        # A directory can be opened: only then it is known to be one.
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            return mode, b""
        return mode, os.read(descriptor, _MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)


def _parsed(path: Path, raw: bytes) -> SealKey:
    """Return the key that a file holds; nothing of it is in the error."""
    words = raw.decode("ascii", "replace").split()
    if words in ([], [_MISSING]):
        raise _unusable(f"{path} holds no key", _MAKE)
    try:
        kind, encoded = words
        suite = msgspec.convert(kind.removeprefix(_PREFIX), Suite)
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise _damaged(path) from None  # its cause would quote the file
    if not kind.startswith(_PREFIX) or len(key) != _key_bytes(suite):
        raise _damaged(path)
    return SealKey(suite, key)


def _key_bytes(suite: Suite) -> int:
    """Return how long a private key is."""
    return _X25519_BYTES if suite == "x25519" else _SEED_BYTES + _X25519_BYTES


def _damaged(path: Path) -> DeviceError:
    """Return the error for a file that is no key."""
    todo = "Restore it, or make another key; versions have to be sealed for it then."
    return _unusable(f"{path} is no key for sealed models", todo)


def _unusable(what: str, todo: str) -> DeviceError:
    """Return the error for a key that cannot be used."""
    return DeviceError(f"seal: {what}", reason=Reason.SEAL_KEY, todo=todo)
