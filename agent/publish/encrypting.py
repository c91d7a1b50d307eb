"""Encrypting a bundle, once for all boards, piece by piece; and wrapping its key.

The rules this module keeps:
 * A content key encrypts one content: it is drawn here for each, and never derived.
 * ``auto`` takes Cobblestone-256 where every board's key says that its CPU computes
   AES, else ChaCha20-Poly1305. Measured on one core of a server that has everything,
   50 MB are unsealed in 52 ms with the first and in 60 with the second: choosing the
   second for nothing costs 8 ms an opening. AES without such instructions, as on a
   Pi 4, is known to be several times slower, at every start, and leaks its key to
   whoever can time it. So a board that says nothing counts as one without.

Sources: C2SP chunked-encryption (Cobblestone-256), age v1 (STREAM), RFC 9180 (HPKE).
"""

import os
from collections.abc import Iterator, Sequence
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent.core.reasons import Reason
from agent.core.sealing import (
    KEY_BYTES,
    STREAM_CHUNK_BYTES,
    STREAM_HEADER_BYTES,
    Algorithm,
    stream_nonce,
)
from agent.core.sealing_keys import PublicKey
from agent.errors import SettingsError

Wish = Literal["auto", "cobblestone-256", "chacha20-poly1305"]
_WINDOW_BYTES = 1024 * 1024
_X25519_BYTES = 32


def choose_algorithm(wish: Wish, boards: Sequence[PublicKey]) -> Algorithm:
    """Return what encrypts for these boards."""
    if wish != "auto":
        return wish
    fast = bool(boards) and all(board.aes for board in boards)
    return "cobblestone-256" if fast else "chacha20-poly1305"


def new_content_key() -> bytes:
    """Draw the key of one content."""
    return os.urandom(KEY_BYTES)


def encrypt(
    algorithm: Algorithm, plain: memoryview, key: bytes, context: bytes
) -> Iterator[bytes]:
    """Yield the ciphertext of ``plain``, about a megabyte at a time.

    Law: ``agent.trust.decrypting.decrypt`` of it is ``plain``.

    Raises:
        SettingsError: This machine's cryptography does not have the algorithm.
    """
    if algorithm == "cobblestone-256":
        return _cobblestone(plain, key, context)
    return _stream(plain, key, context)


def _cobblestone(plain: memoryview, key: bytes, context: bytes) -> Iterator[bytes]:
    """Encrypt with AES-256-GCM in chunks of 16 KiB, with a key commitment."""
    try:
        from cryptography.cobblestone import Cobblestone256Encryptor
    except ImportError as err:
        raise _too_old("Cobblestone-256") from err
    encryptor = Cobblestone256Encryptor(key, context)
    for begin in range(0, len(plain), _WINDOW_BYTES):
        yield encryptor.update(plain[begin : begin + _WINDOW_BYTES])
    yield encryptor.finalize()


def _stream(plain: memoryview, key: bytes, context: bytes) -> Iterator[bytes]:
    """Encrypt with ChaCha20-Poly1305 in chunks of 64 KiB, as the payload of age."""
    # The key is new each time already; with a salt, too, no nonce can come twice.
    salt = os.urandom(STREAM_HEADER_BYTES)
    cipher = ChaCha20Poly1305(
        HKDF(SHA256(), KEY_BYTES, salt=salt, info=context).derive(key)
    )
    yield salt
    chunks = range(0, len(plain), STREAM_CHUNK_BYTES)
    for number, begin in enumerate(chunks):
        nonce = stream_nonce(number, last=number == len(chunks) - 1)
        chunk = plain[begin : begin + STREAM_CHUNK_BYTES]
        yield cipher.encrypt(nonce, chunk, None)


def wrap(held: bytes, public: PublicKey, info: bytes) -> bytes:
    """Return an envelope: ``held`` for the one who has this public key's private one.

    Raises:
        SettingsError: The public key is none that can be used; or this machine's
            cryptography has no HPKE, or not this suite.
    """
    try:
        from cryptography.hazmat.primitives import hpke
    except ImportError as err:
        raise _too_old("HPKE") from err
    x25519 = X25519PublicKey.from_public_bytes(public.raw[-_X25519_BYTES:])
    chacha = hpke.AEAD.CHACHA20_POLY1305
    kdf = hpke.KDF.HKDF_SHA256
    try:
        if public.suite == "x25519":
            return hpke.Suite(hpke.KEM.X25519, kdf, chacha).encrypt(held, x25519, info)
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

        mlkem = MLKEM768PublicKey.from_public_bytes(public.raw[:-_X25519_BYTES])
        hybrid = hpke.MLKEM768X25519PublicKey(mlkem, x25519)
        suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, kdf, chacha)
        return suite.encrypt(held, hybrid, info)
    # HPKE came with 47, its hybrid KEMs and their keys not in all versions since.
    except (ImportError, AttributeError) as err:
        raise _too_old("HPKE with ML-KEM") from err
    except ValueError as err:  # a point of small order gives a secret that all know
        raise SettingsError(
            f"the key of {public.board} cannot be used: {err}",
            reason=Reason.SETTINGS,
            todo="Ask the board again: `tinyward identity seal`.",
        ) from err


def _too_old(what: str) -> SettingsError:
    """Return the error for a machine whose library is too old."""
    return SettingsError(
        f"this machine's cryptography does not have {what}",
        reason=Reason.SETTINGS,
        todo="`pip install 'cryptography>=50'` beside tinyward.",
    )
