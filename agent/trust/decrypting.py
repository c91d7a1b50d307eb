"""Content of a sealed bundle, decrypted piece by piece into a buffer of the caller.

Both algorithms are chunked AEADs with a nonce that says which chunk is the last one:
flipped, reordered, cut or extended content fails at the chunk where it begins to be
wrong. What was written before is authentic, but not yet all: nothing may be handed on
before the iterator has ended.

Sources: C2SP chunked-encryption (Cobblestone-256), age v1 (STREAM, with a context of
our own in the key's derivation).
"""

from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent.core.sealing import (
    COBBLESTONE_CHUNK_BYTES,
    KEY_BYTES,
    STREAM_CHUNK_BYTES,
    STREAM_HEADER_BYTES,
    TAG_BYTES,
    Algorithm,
    stream_nonce,
)

# What is decrypted is hashed and copied while it is in the CPU's cache: with windows of
# 128 KiB to 2 MiB that takes 51 ms for 50 MB on one core, with a map of all 68 ms.
WINDOW_BYTES = 256 * 1024
# A decryptor of Cobblestone holds back less than a chunk, and gives it out later.
BUFFER_BYTES = WINDOW_BYTES + COBBLESTONE_CHUNK_BYTES


def decrypt(
    algorithm: Algorithm, content: memoryview, key: bytes, context: bytes
) -> "Decryption":
    """Return the decryption of ``content``, not begun yet.

    Raises:
        ImportError: This board's cryptography does not have the algorithm.
    """
    if algorithm == "cobblestone-256":
        return Cobblestone(content, key, context)
    return Stream(content, key, context)


class Cobblestone:
    """Cobblestone-256: AES-256-GCM in chunks of 16 KiB, with a key commitment."""

    def __init__(self, content: memoryview, key: bytes, context: bytes) -> None:
        from cryptography.cobblestone import Cobblestone256Decryptor

        self._content = content
        self._decryptor = Cobblestone256Decryptor(key, context)

    def into(self, buffer: memoryview) -> Iterator[tuple[int, int]]:
        """Decrypt window by window; yield (bytes read, plain bytes in buffer).

        Raises:
            InvalidTag: The content is not what was sealed.
        """
        size = len(self._content)
        for begin in range(0, size, WINDOW_BYTES):
            end = min(begin + WINDOW_BYTES, size)
            with self._content[begin:end] as window:
                yield end, self._decryptor.update_into(window, buffer)
        # Only now it is known which chunk was the last one: that nothing is missing.
        last = self._decryptor.finalize()
        buffer[: len(last)] = last
        yield size, len(last)


class Stream:
    """STREAM as in age v1: ChaCha20-Poly1305 in chunks of 64 KiB."""

    def __init__(self, content: memoryview, key: bytes, context: bytes) -> None:
        self._content = content
        salt = bytes(content[:STREAM_HEADER_BYTES])
        derived = HKDF(SHA256(), KEY_BYTES, salt=salt, info=context).derive(key)
        self._cipher = ChaCha20Poly1305(derived)
        if not hasattr(self._cipher, "decrypt_into"):
            raise ImportError("ChaCha20Poly1305.decrypt_into")

    def into(self, buffer: memoryview) -> Iterator[tuple[int, int]]:
        """Decrypt some chunks at a time; yield (bytes read, plain bytes in buffer).

        Raises:
            InvalidTag: The content is not what was sealed.
        """
        step, size = STREAM_CHUNK_BYTES + TAG_BYTES, len(self._content)
        filled = 0
        for chunk, begin in enumerate(range(STREAM_HEADER_BYTES, size, step)):
            end = min(begin + step, size)
            plain = end - begin - TAG_BYTES
            if plain <= 0:  # an empty last chunk would be a second way to spell content
                raise InvalidTag
            nonce = stream_nonce(chunk, last=end == size)
            room = slice(filled, filled + plain)
            with self._content[begin:end] as sealed, buffer[room] as free:
                self._cipher.decrypt_into(nonce, sealed, None, free)
            filled += plain
            if end == size or filled + STREAM_CHUNK_BYTES > WINDOW_BYTES:
                yield end, filled
                filled = 0


Decryption = Cobblestone | Stream
