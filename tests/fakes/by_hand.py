"""HPKE and STREAM once more, by their specifications: what ours has to agree with.

Sources: RFC 9180 (base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
ChaCha20-Poly1305), age v1 (the payload).
"""

import hmac
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

_KEM = b"KEM" + (0x0020).to_bytes(2, "big")
_HPKE = b"HPKE" + b"".join(it.to_bytes(2, "big") for it in (0x0020, 0x0001, 0x0003))


def open_hpke(sealed: bytes, private: bytes, info: bytes, aad: bytes = b"") -> bytes:
    """Open what was sealed to a private key (section 6.1, single shot)."""
    enc, content = sealed[:32], sealed[32:]
    key = X25519PrivateKey.from_private_bytes(private)
    shared = key.exchange(X25519PublicKey.from_public_bytes(enc))
    context = enc + key.public_key().public_bytes_raw()
    prk = _extract(_KEM, b"", b"eae_prk", shared)
    secret = _expand(_KEM, prk, b"shared_secret", context, 32)
    psk_id = _extract(_HPKE, b"", b"psk_id_hash", b"")
    schedule = b"\0" + psk_id + _extract(_HPKE, b"", b"info_hash", info)
    prk = _extract(_HPKE, secret, b"secret", b"")
    cipher = ChaCha20Poly1305(_expand(_HPKE, prk, b"key", schedule, 32))
    nonce = _expand(_HPKE, prk, b"base_nonce", schedule, 12)
    return cipher.decrypt(nonce, content, aad)


def stream(plain: bytes, key: bytes, salt: bytes, info: bytes) -> bytes:
    """Encrypt as age's payload: 16 of salt, then chunks of 64 KiB."""
    prk = hmac.digest(salt, key, sha256)
    cipher = ChaCha20Poly1305(hmac.digest(prk, info + b"\1", sha256))
    parts, left, number = [salt], plain, 0
    while True:
        chunk, left = left[:65536], left[65536:]
        nonce = number.to_bytes(11, "big") + bytes([not left])
        parts.append(cipher.encrypt(nonce, chunk, None))
        number += 1
        if not left:
            return b"".join(parts)


def _extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    """LabeledExtract of section 4."""
    return hmac.digest(salt, b"HPKE-v1" + suite + label + secret, sha256)


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand of section 4, for at most one block of SHA-256."""
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labeled + b"\1", sha256)[:length]
