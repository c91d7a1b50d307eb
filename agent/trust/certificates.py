"""What certificates say: facts of one, and whether one may take another's place.

The rules this module keeps:
 * Whatever bytes come in, only ``ValueError`` leaves; callers say whose fault it is.
 * A certificate renews another only with the same key, the same CA, every name and use
   it had, a later end, and nothing that would make it a client's or a CA's.

``cryptography`` is imported when the first certificate is read.
"""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from agent.core.certificates import ROLE_URI, board_of, board_uri, spell_serial

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
    )
    from cryptography.x509 import Certificate, GeneralName

MAX_PEM_BYTES = 64 * 1024  # a chain of ten certificates takes 20 kB
USES = ("clientAuth", "serverAuth")  # what a board's certificate is for


class CertificateFacts(Struct, frozen=True):
    """One certificate, for people and JSON.

    Attributes:
        subject: Its name (RFC 4514), as ``issuer`` the CA's.
        serial: Lower case hex without zeros ahead.
        names: Alternative names, such as ``DNS:door.example``, sorted.
        uses: Extended key usages, sorted.
        begins: Unix seconds of its validity, until ``ends``.
        fingerprint: SHA-256 of the whole certificate, hexadecimal.
        key: SHA-256 of the public key (DER), hexadecimal.
        authority: It may sign other certificates.
    """

    subject: str
    issuer: str
    serial: str
    names: tuple[str, ...]
    uses: tuple[str, ...]
    begins: float
    ends: float
    fingerprint: str
    key: str
    authority: bool = False

    @property
    def board(self) -> str:
        """The board it belongs to; empty for anybody else's."""
        uris = (name for name in self.names if name.startswith("URI:"))
        return board_of(uri.removeprefix("URI:") for uri in uris)


@contextmanager
def only_value_errors() -> Iterator[None]:
    """Report everything that parsers of certificates raise as ``ValueError``.

    What ``cryptography`` only warns of, such as a serial number below one (RFC 5280,
    4.1.2.2), counts too: its later versions refuse it, and a board would lose its
    certificate by an upgrade.

    Raises:
        ValueError: The bytes are not what they should be.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.utils import CryptographyDeprecationWarning

    unreadable = (
        TypeError,
        OverflowError,
        AttributeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        CryptographyDeprecationWarning,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            yield
    except unreadable as err:
        raise ValueError(str(err)) from err


def parse_certificates(raw: bytes) -> list["Certificate"]:
    """Return the certificates of a PEM file, at least one.

    Raises:
        ValueError: It is none, or too long.
    """
    from cryptography.x509 import load_pem_x509_certificates

    if len(raw) > MAX_PEM_BYTES:
        raise ValueError(f"{len(raw)} bytes, at most {MAX_PEM_BYTES} allowed")
    with only_value_errors():
        return load_pem_x509_certificates(raw)


def read_facts(certificate: "Certificate") -> CertificateFacts:
    """Return what a certificate says.

    Raises:
        ValueError: An extension of it cannot be read.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    with only_value_errors():
        extensions = certificate.extensions
        names: Iterable[GeneralName] = ()
        uses: Iterable[x509.ObjectIdentifier] = ()
        authority = False
        with suppress(x509.ExtensionNotFound):
            alternatives = x509.SubjectAlternativeName
            names = extensions.get_extension_for_class(alternatives).value
        with suppress(x509.ExtensionNotFound):
            uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        with suppress(x509.ExtensionNotFound):
            found = extensions.get_extension_for_class(x509.BasicConstraints)
            authority = found.value.ca
        return CertificateFacts(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            serial=spell_serial(certificate.serial_number),
            names=tuple(sorted(spell_name(name) for name in names)),
            uses=tuple(sorted(use._name for use in uses)),  # noqa: SLF001 - the only way to its word
            begins=certificate.not_valid_before_utc.timestamp(),
            ends=certificate.not_valid_after_utc.timestamp(),
            fingerprint=certificate.fingerprint(SHA256()).hex(),
            key=digest_key(certificate.public_key()),
            authority=authority,
        )


def subject_names(certificate: "Certificate") -> list["GeneralName"]:
    """Return the alternative names of a certificate.

    Raises:
        ValueError: They cannot be read, or there are none.
    """
    from cryptography import x509

    with only_value_errors():
        try:
            found = certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
        except x509.ExtensionNotFound as err:
            raise ValueError("it has no alternative names") from err
        return list(found.value)


def public_bytes(key: "CertificatePublicKeyTypes") -> bytes:
    """Return the one spelling of a public key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def digest_key(key: "CertificatePublicKeyTypes") -> str:
    """Return the SHA-256 of a public key, hexadecimal: what people compare."""
    return hashlib.sha256(public_bytes(key)).hexdigest()


def spell_name(name: "GeneralName") -> str:
    """Return an alternative name with its kind before it."""
    from cryptography import x509

    kinds = {
        x509.DNSName: "DNS",
        x509.IPAddress: "IP",
        x509.UniformResourceIdentifier: "URI",
    }
    return f"{kinds.get(type(name), 'other')}:{name.value}"


def check_renewal(
    new: "Certificate",
    now: "Certificate | None",
    board: str,
    cas: Sequence["Certificate"],
) -> None:
    """Check that a certificate may take another's place; the caller compares keys.

    Args:
        new: The one that came.
        now: The one in use; None before the first.
        board: This board's id, which counts before there is a certificate.
        cas: Certificates that may have signed both.

    Raises:
        ValueError: It may not; the message says why.
    """
    facts = read_facts(new)
    known = None if now is None else read_facts(now)
    names = {f"URI:{board_uri(board)}"} if known is None else set(known.names)
    uses = set(USES) if known is None else set(known.uses)
    signers = [ca for ca in cas if now is None or is_issued(now, ca)]
    if not signers:
        raise ValueError("the CA of the certificate in use is not known here")
    if not any(is_issued(new, ca) for ca in signers):
        raise ValueError("it is signed by another CA")
    if missing := names - set(facts.names):
        raise ValueError(f"it lacks the name {min(missing)}")
    if facts.authority or any(ROLE_URI in name for name in facts.names):
        raise ValueError("it is not the certificate of a board")
    if not facts.board:
        raise ValueError("it names no board, or several")
    if missing := uses - set(facts.uses):
        raise ValueError(f"it is not for {min(missing)}")
    if known is not None and facts.ends <= known.ends:
        raise ValueError("it ends no later than the one in use")


def is_issued(certificate: "Certificate", ca: "Certificate") -> bool:
    """Return whether a CA's key signed a certificate in its name."""
    from cryptography.exceptions import InvalidSignature

    try:
        with only_value_errors():
            certificate.verify_directly_issued_by(ca)
    except (ValueError, InvalidSignature):
        return False
    return read_facts(ca).authority
