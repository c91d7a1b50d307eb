"""This board's private key, and requests for certificates for it.

The rules this module keeps:
 * A key is made here, once, 0600 and durable, and never leaves the board; nothing
   overwrites it.
 * Ed25519 unless asked otherwise; ECDSA on P-256 for CAs and clients that need it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from agent.core.certificates import board_uri
from agent.core.disk_reasons import disk_reason
from agent.core.reasons import Reason
from agent.core.targets import BoardId
from agent.errors import DeviceError, SettingsError
from agent.trust.certificates import MAX_PEM_BYTES, only_value_errors
from agent.trust.durable import sync_directory

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509 import GeneralName

    PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey

KeyKind = Literal["ed25519", "p256"]
KEY_KINDS: tuple[KeyKind, ...] = ("ed25519", "p256")
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Names:
    """What a board's certificate is to say.

    Attributes:
        board: Its id: the common name and a URI.
        dns: Host names by which it is reached; ``addresses`` likewise.
    """

    board: str
    dns: Sequence[str] = ()
    addresses: Sequence[str] = ()


def make_key(path: Path, kind: KeyKind = "ed25519") -> "PrivateKey":
    """Make a private key; its file is durable when this returns.

    Directories above it are made 0700.

    Raises:
        SettingsError: The file exists.
        DeviceError: It cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    private: PrivateKey = (
        ed25519.Ed25519PrivateKey.generate()
        if kind == "ed25519"
        else ec.generate_private_key(ec.SECP256R1())
    )
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        create_own(path, pem)
    except FileExistsError as err:
        raise SettingsError(
            f"{path} exists: keys are never overwritten",
            reason=Reason.SETTINGS,
            todo="`tinyward identity csr` prints the request for the key there is.",
        ) from err
    except OSError as err:
        raise DeviceError(
            f"{path}: {err.strerror}", reason=disk_reason(err.errno)
        ) from err
    return private


def load_key(path: Path) -> "PrivateKey":
    """Return the private key in a file.

    Raises:
        DeviceError: ``certificate``: it cannot be used; ``permission``.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with own_files(path), only_value_errors():
        private = load_pem_private_key(read_own(path), None)
        if not isinstance(private, Ed25519PrivateKey | EllipticCurvePrivateKey):
            raise TypeError("a key that is neither Ed25519 nor ECDSA")
        return private


def name_everything(names: Names) -> list["GeneralName"]:
    """Return the names of a board as a certificate spells them.

    Raises:
        SettingsError: One of them is none.
    """
    from cryptography import x509

    try:
        msgspec.convert(names.board, BoardId)
        return [
            x509.UniformResourceIdentifier(board_uri(names.board)),
            *(x509.DNSName(name) for name in names.dns),
            *(x509.IPAddress(ip_address(text)) for text in names.addresses),
        ]
    except ValueError as err:
        what = (
            f"board {names.board!r}" if isinstance(err, msgspec.MsgspecError) else err
        )
        raise SettingsError(
            f"not a name for a certificate: {what}",
            reason=Reason.SETTINGS,
            todo="A board's id is 1 to 64 of A-Z, a-z, 0-9, -, _ and .; see "
            "`tinyward identity init --help`.",
        ) from err


def render_request(
    private: "PrivateKey", board: str, names: Sequence["GeneralName"]
) -> bytes:
    """Return a signed request (PEM, PKCS #10) for a certificate.

    Raises:
        ValueError: The board's id cannot be a common name.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, board)])
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    digest = None if isinstance(private, Ed25519PrivateKey) else SHA256()
    return builder.sign(private, digest).public_bytes(Encoding.PEM)


@contextmanager
def own_files(path: Path) -> Iterator[None]:
    """Report what is wrong with a file of the board's own identity.

    Raises:
        DeviceError: ``certificate``, or what the disk said.
    """
    try:
        yield
    except FileNotFoundError as err:
        raise _unusable(f"{path} does not exist") from err
    except OSError as err:
        raise DeviceError(
            f"{path}: {err.strerror}", reason=disk_reason(err.errno)
        ) from err
    except ValueError as err:
        raise _unusable(f"{path}: {err}") from err


def read_own(path: Path) -> bytes:
    """Return a file's content, a little more than allowed at most."""
    with path.open("rb") as file:
        return file.read(MAX_PEM_BYTES + 1)


def create_own(path: Path, content: bytes) -> None:
    """Write a file that must not be there yet; it appears whole and durable.

    Raises:
        OSError: It is there (``FileExistsError``), or cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    aside.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(aside, _FLAGS, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link never replaces what has the name already.
        path.hardlink_to(aside)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(path.parent)


def _unusable(what: str) -> DeviceError:
    """Return the error for an identity that cannot be used."""
    return DeviceError(
        what,
        reason=Reason.CERTIFICATE,
        todo="Make one with `tinyward identity init`; see `tinyward identity show`.",
    )
