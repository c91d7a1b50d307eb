"""Certificates as this fleet writes them (RFC 5280), from a key and what to say.

The rules this module keeps:
 * Every certificate passes the strict checks of OpenSSL and Python.
 * A leaf is for what it is asked for, signs nothing, and begins an hour ago: clocks of
   a fleet differ.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.publish.signing_requests import PublicKey
from agent.publish.vault import PrivateKey

CLOCKS_DIFFER = timedelta(hours=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a certificate that is not a CA's shall say.

    Attributes:
        name: The common name.
        names: The alternative names; ``uses`` the extended key usages.
        key: Whose it is.
        ends: UTC.
    """

    name: str
    names: Sequence[x509.GeneralName]
    uses: Sequence[x509.ObjectIdentifier]
    key: PublicKey
    ends: datetime


def make_ca(
    private: PrivateKey, name: str, now: datetime, ends: datetime
) -> x509.Certificate:
    """Return the certificate of a CA that signs leaves and no other CA."""
    subject = _subject(name)
    public = private.public_key()
    builder = (
        _begin(subject, public, now, ends)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    return builder.sign(private, _digest(private))


def make_leaf(
    ca: x509.Certificate, private: PrivateKey, leaf: Leaf, now: datetime
) -> x509.Certificate:
    """Return a leaf, signed by a CA."""
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key())
    builder = (
        _begin(_subject(leaf.name), leaf.key, now, leaf.ends)
        .issuer_name(ca.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(leaf.uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(leaf.names), critical=False)
        .add_extension(signer, critical=False)
    )
    return builder.sign(private, _digest(private))


def _begin(
    subject: x509.Name, key: PublicKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    """Return what all certificates have in common."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(_serial())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _serial() -> int:
    """Return a serial number of 159 random bits, always 40 hexadecimal digits."""
    return 1 << 158 | secrets.randbits(158)


def _subject(name: str) -> x509.Name:
    """Return a name with nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _digest(private: PrivateKey) -> SHA256 | None:
    """Return how a key hashes what it signs."""
    return None if isinstance(private, Ed25519PrivateKey) else SHA256()


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    """Return what a key may do: sign certificates, or handshakes."""
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
