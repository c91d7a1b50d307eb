"""Content of a sealed bundle, decrypted piece by piece into memory of the caller.

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
    KEY_BYTES,
    STREAM_CHUNK_BYTES,
    STREAM_HEADER_BYTES,
    TAG_BYTES,
    Algorithm,
    stream_nonce,
)

# Larger windows leave the CPU's cache before they are hashed, smaller ones cost more
# calls: 256 KiB to 1 MiB measure the same.
WINDOW_BYTES = 512 * 1024


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

    def into(self, room: memoryview) -> Iterator[tuple[int, int]]:
        """Write the plain bytes into ``room``; yield (read, written) so far.

        Raises:
            InvalidTag: The content is not what was sealed.
        """
        written = 0
        for begin in range(0, len(self._content), WINDOW_BYTES):
            end = min(begin + WINDOW_BYTES, len(self._content))
            with self._content[begin:end] as window, room[written:] as free:
                written += self._decryptor.update_into(window, free)
            yield end, written
        # Only now it is known which chunk was the last one: that nothing is missing.
        last = self._decryptor.finalize()
        room[written : written + len(last)] = last
        yield len(self._content), written + len(last)


class Stream:
    """STREAM as in age v1: ChaCha20-Poly1305 in chunks of 64 KiB."""

    def __init__(self, content: memoryview, key: bytes, context: bytes) -> None:
        self._content = content
        salt = bytes(content[:STREAM_HEADER_BYTES])
        derived = HKDF(SHA256(), KEY_BYTES, salt=salt, info=context).derive(key)
        self._cipher = ChaCha20Poly1305(derived)
        if not hasattr(self._cipher, "decrypt_into"):
            raise ImportError("ChaCha20Poly1305.decrypt_into")

    def into(self, room: memoryview) -> Iterator[tuple[int, int]]:
        """Write the plain bytes into ``room``; yield (read, written) so far.

        Raises:
            InvalidTag: The content is not what was sealed.
        """
        step, size = STREAM_CHUNK_BYTES + TAG_BYTES, len(self._content)
        begin, written, chunk = STREAM_HEADER_BYTES, 0, 0
        while begin < size:
            end = min(begin + step, size)
            plain = end - begin - TAG_BYTES
            if plain <= 0:  # an empty last chunk would be a second way to spell content
                raise InvalidTag
            nonce = stream_nonce(chunk, last=end == size)
            free_end = written + plain
            with self._content[begin:end] as sealed, room[written:free_end] as free:
                self._cipher.decrypt_into(nonce, sealed, None, free)
            begin, written, chunk = end, free_end, chunk + 1
            yield end, written


Decryption = Cobblestone | Stream
