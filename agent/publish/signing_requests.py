"""Requests for certificates: what a board asks for, and what of it is allowed.

The rules this module keeps:
 * Whatever bytes come in, only ``RequestRefusedError`` leaves.
 * A request has to be signed by the key that it is for.
 * A board may be named by its own id, by host names and by addresses; a request that
   asks for anything else, a role above all, is refused whole.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning

from agent.core.certificates import board_of, board_uri
from agent.core.reasons import Reason
from agent.errors import RequestRefusedError

MAX_REQUEST_BYTES = 16 * 1024  # one with twenty names takes 2 kB
MAX_NAMES = 32  # more host names than any board has
PublicKey = Ed25519PublicKey | EllipticCurvePublicKey
_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    r"(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class BoardRequest:
    """A request that may be signed.

    Attributes:
        board: The id of the board.
        names: Everything that the certificate will say, the id's URI first.
        key: The public key; ``key_digest`` is the SHA-256 of its DER, hexadecimal.
    """

    board: str
    names: tuple[x509.GeneralName, ...]
    key: PublicKey
    key_digest: str

    def spelled(self) -> list[str]:
        """Return the names for people."""
        return [str(name.value) for name in self.names]


def parse_request(raw: bytes) -> BoardRequest:
    """Return what a board asks for (PEM, PKCS #10).

    Raises:
        RequestRefusedError: ``certificate``: it is damaged, or asks for too much.
    """
    if len(raw) > MAX_REQUEST_BYTES:
        raise refused(f"{len(raw)} bytes, at most {MAX_REQUEST_BYTES} allowed")
    with only_refusals():
        request = x509.load_pem_x509_csr(raw)
        if not request.is_signature_valid:
            raise refused("it is not signed by its own key")
        key = check_key(request.public_key())
        names = _names(request)
        uris = x509.UniformResourceIdentifier
        board = board_of(name.value for name in names if isinstance(name, uris))
        subject = [str(a.value) for a in request.subject]
        if not board or subject != [board]:
            raise refused(f"its subject {subject} is not the board {board!r}")
        return BoardRequest(board, _allowed(names, board), key, digest_of(key))


def check_key(key: object) -> PublicKey:
    """Return a public key of a kind that every part of a fleet can use.

    Raises:
        RequestRefusedError: ``certificate``.
    """
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    raise refused("its key is neither Ed25519 nor ECDSA on P-256")


def digest_of(key: PublicKey) -> str:
    """Return the SHA-256 of a public key's DER, hexadecimal."""
    digest = Hash(SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def refused(what: str) -> RequestRefusedError:
    """Return the error for a request that is not signed."""
    return RequestRefusedError(
        f"the request is not signed: {what}",
        reason=Reason.CERTIFICATE,
        todo="Make it on the board: `tinyward identity csr`.",
    )


@contextmanager
def only_refusals() -> Iterator[None]:
    """Report everything that parsers of requests raise as a refusal.

    Raises:
        RequestRefusedError: ``certificate``.
    """
    try:
        yield
    except (
        ValueError,
        TypeError,
        OverflowError,
        InvalidSignature,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
        x509.UnsupportedGeneralNameType,
        CryptographyDeprecationWarning,  # raised where warnings are errors
    ) as err:
        raise refused(f"it cannot be read: {err}") from err


def _names(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    """Return the alternative names that are asked for."""
    try:
        extension = request.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound as err:
        raise refused("it names no board") from err
    return list(extension.value)


def _allowed(names: list[x509.GeneralName], board: str) -> tuple[x509.GeneralName, ...]:
    """Return the names a board may have; everything else is refused."""
    own = x509.UniformResourceIdentifier(board_uri(board))
    for name in names:
        is_host = isinstance(name, x509.DNSName) and bool(_HOST.match(name.value))
        if not (is_host or isinstance(name, x509.IPAddress) or name == own):
            raise refused(f"a board may not be called {name.value!r}")
    if len(names) > MAX_NAMES:
        raise refused(f"{len(names)} names, at most {MAX_NAMES} allowed")
    return (own, *(name for name in dict.fromkeys(names) if name != own))
