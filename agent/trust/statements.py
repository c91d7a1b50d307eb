"""Signatures under what is said: a board's statements, an owner's challenges.

The rules this module keeps:
 * A key of the board signs DSSE envelopes with their type, so that nothing it signs
   can be taken for a handshake, a checkpoint or a certificate.
 * A key is read each time it is needed and kept nowhere; everything blocks.
 * ``cryptography`` is imported when the first signature is made or verified.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Union

from agent.core.dsse import Envelope, Signature, encode_signed
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, SettingsError
from agent.trust.own_key import load_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PublicKey = Union["Ed25519PublicKey", "EllipticCurvePublicKey"]
SignText = Callable[[bytes], bytes]


def sign_by_key(key: Path, payload_type: str, payload: bytes) -> Envelope:
    """Return a payload signed by the board's own key (Ed25519, or ECDSA and SHA-256).

    Raises:
        DeviceError: The key cannot be used.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import (
        ECDSA,
        EllipticCurvePrivateKey,
    )
    from cryptography.hazmat.primitives.hashes import SHA256

    private = load_key(key)
    signed = encode_signed(payload_type, payload)
    if isinstance(private, EllipticCurvePrivateKey):
        signature = private.sign(signed, ECDSA(SHA256()))
    else:
        signature = private.sign(signed)
    return _seal(payload_type, payload, signature, key_id(private.public_key()))


def sign_by_text(
    sign: SignText, public: bytes, payload_type: str, payload: bytes
) -> Envelope:
    """Return a payload signed by a raw Ed25519 key that somebody else holds."""
    signature = sign(encode_signed(payload_type, payload))
    return _seal(payload_type, payload, signature, key_id(raw_ed25519(public)))


def verify_envelope(envelope: Envelope, key: PublicKey) -> bool:
    """Whether one of the signatures is this key's, over the type and the payload.

    The hint of which key signed is not asked: it proves nothing.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import (
        ECDSA,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.hashes import SHA256

    signed = encode_signed(envelope.payload_type, envelope.payload)
    for it in envelope.signatures:
        try:
            if isinstance(key, EllipticCurvePublicKey):
                key.verify(it.sig, signed, ECDSA(SHA256()))
            else:
                key.verify(it.sig, signed)
        except InvalidSignature:
            continue
        return True
    return False


def verify_by_hex(envelope: Envelope, public_hex: str) -> bool:
    """Whether an envelope is signed by the Ed25519 key that signed metadata names."""
    try:
        key = raw_ed25519(bytes.fromhex(public_hex))
    except ValueError:  # no key, or none at all
        return False
    return verify_envelope(envelope, key)


def raw_ed25519(public: bytes) -> "Ed25519PublicKey":
    """Return the key of 32 bytes.

    Raises:
        ValueError: These are none.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(public)


def parse_key(pem: bytes) -> PublicKey:
    """Return the key in a certificate or a public key file (PEM).

    Raises:
        SettingsError: ``settings``: it is neither, or of another kind of key.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found: object
        if b"BEGIN CERTIFICATE" in pem:
            found = x509.load_pem_x509_certificate(pem).public_key()
        else:
            found = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise _no_key(str(err)) from err
    if not isinstance(found, Ed25519PublicKey | EllipticCurvePublicKey):
        raise _no_key("it is neither Ed25519 nor ECDSA")
    return found


def key_id(key: PublicKey) -> str:
    """Return by what a key is called in an envelope: SHA-256 of its DER, in hex."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(der).hexdigest()


def require_signature(envelope: Envelope | None, key: PublicKey, what: str) -> None:
    """Check that a key has signed.

    Raises:
        BundleRefusedError: ``signature``.
    """
    if envelope is None:
        said, todo = f"{what} is not signed", "Ask for one that is signed."
        raise BundleRefusedError(said, reason=Reason.SIGNATURE, todo=todo)
    if not verify_envelope(envelope, key):
        said = f"{what} is not signed by this key"
        raise BundleRefusedError(
            said,
            reason=Reason.SIGNATURE,
            todo="Name the key or certificate of who is to have signed it; if it was "
            "that one, somebody else made this.",
        )


def _seal(payload_type: str, payload: bytes, signature: bytes, key: str) -> Envelope:
    """Return an envelope with one signature."""
    return Envelope(payload, payload_type, (Signature(signature, key),))


def _no_key(why: str) -> SettingsError:
    """Return the error for a file that holds no public key."""
    return SettingsError(f"no public key or certificate: {why}", reason=Reason.SETTINGS)
