"""What is signed, and what is kept, about a sealed bundle: names and shapes only.

A sealed bundle is encrypted once for all boards; its content key is wrapped for each
board in an *envelope*, a small unsigned file beside the targets. TUF signs the hash of
the ciphertext and the digest of the plain bytes, so an envelope can open a model or
fail to. Where the owner marks copies, the envelope also carries ``SignedMarks``, signed
by the key that ``Sealing.marks`` names.

Source: RFC 9180 (HPKE), C2SP chunked-encryption, age v1 (STREAM).
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from agent.core.manifest import Digest, ModelName, ModelVersion

Algorithm = Literal["cobblestone-256", "chacha20-poly1305"]
Suite = Literal["x25519", "mlkem768-x25519"]
PublicKeyHex = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$(?!\n)")]
Salt32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
KEY_BYTES = 32  # of a content key, for both algorithms
MARKS_DOMAIN = b"tinyward/marks/v1\0"  # no signature over marks is one over a log
# C2SP chunked-encryption: 24 of salt and 32 of commitment before chunks of 16 KiB.
COBBLESTONE_HEADER_BYTES, COBBLESTONE_CHUNK_BYTES = 56, 16 * 1024
# The payload of age v1: 16 of salt before chunks of 64 KiB.
STREAM_HEADER_BYTES, STREAM_CHUNK_BYTES = 16, 64 * 1024
TAG_BYTES = 16  # GCM and Poly1305
MAX_BLOCKS = 16
MAX_BLOCK_BYTES = 4 * 1024 * 1024  # the head of 1,000 classes on 1,024 features: 4 MB
MAX_ENVELOPE_BYTES = 2 * MAX_BLOCK_BYTES
ENVELOPE_BYTES = 80  # of a board's X25519 key, without marks: 32 + 32 + 16
HYBRID_ENVELOPE_BYTES = 1168  # of its ML-KEM-768 and X25519 key: 1088 + 32 + 32 + 16


class Strict(Struct, frozen=True, forbid_unknown_fields=True):
    """Base: immutable, strict when parsed."""


class Sealing(Strict, frozen=True, omit_defaults=True):
    """The signed field ``sealed`` of a bundle target.

    Attributes:
        algorithm: What encrypts the content.
        marks: Ed25519 public key (hex) that signs the marks of single boards; empty
            where all boards run the same bytes.
    """

    algorithm: Algorithm
    marks: PublicKeyHex = ""


class Sealed(Strict, frozen=True):
    """What a board has to remember of a sealed bundle to open it on every start.

    Attributes:
        plain_sha256: Digest of the bundle after unsealing; ``plain_bytes`` its length.
    """

    model: ModelName
    version: ModelVersion
    sealing: Sealing
    plain_sha256: Digest
    plain_bytes: Annotated[int, Meta(ge=1, le=2**40)]


class HeadBlock(Strict, frozen=True):
    """Bytes of one variant that differ on one board.

    Attributes:
        variant: Its name.
        offset: Where they begin in its .tflite.
        content: What stands there on this board; as long as what it replaces.
    """

    variant: Annotated[str, Meta(max_length=64)]
    offset: Annotated[int, Meta(ge=0, le=2**40)]
    content: Annotated[bytes, Meta(min_length=1, max_length=MAX_BLOCK_BYTES)]


class Marks(Strict, frozen=True):
    """What makes a bundle one board's own copy.

    Attributes:
        board: Whose; ``target`` and ``plain_sha256`` of which bundle.
        blocks: What replaces the head of its variants.
        results: Variant -> SHA-256 of its .tflite with the blocks in place.
        salt: With ``commitment``: SHA-256(salt || board || codeword) commits to the
            codeword that the copy has to answer with.
        codeword: What opens the commitment; secret to the owner and this board, and
            therefore never printed.
    """

    board: Annotated[str, Meta(max_length=128)]
    target: Annotated[str, Meta(max_length=256)]
    plain_sha256: Digest
    blocks: Annotated[tuple[HeadBlock, ...], Meta(min_length=1, max_length=MAX_BLOCKS)]
    results: Annotated[dict[str, Digest], Meta(min_length=1, max_length=MAX_BLOCKS)]
    salt: Salt32
    commitment: Digest
    codeword: Annotated[bytes, Meta(max_length=128)] = b""

    def __repr__(self) -> str:
        """Return whose marks these are, and nothing that would give them away."""
        return f"<marks of {self.board} for {self.target}>"


class SignedMarks(Strict, frozen=True):
    """Marks as they travel inside an envelope.

    Attributes:
        marks: msgpack of ``Marks``.
        signature: Ed25519 over ``MARKS_DOMAIN`` and it.
    """

    marks: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]

    def __repr__(self) -> str:
        """Return nothing that would give them away."""
        return "<signed marks>"


def most_envelope_bytes(sealing: Sealing) -> int:
    """Return how long an envelope can be, by what is signed about the bundle.

    Whoever knows a board's public key can make envelopes: one that holds a content key
    alone is refused by its length, before anything of it is kept or decrypted. How long
    marks are is known to nobody who has not opened the bundle.

    >>> most_envelope_bytes(Sealing("cobblestone-256"))
    1168
    """
    return MAX_ENVELOPE_BYTES if sealing.marks else HYBRID_ENVELOPE_BYTES


def envelope_path(model: str, version: int, board: str) -> str:
    """Return where a board's envelope lies below the repository.

    >>> envelope_path("kws", 8, "pi-0042")
    'envelopes/kws/8/pi-0042'
    """
    return f"envelopes/{model}/{version}/{board}"


def hpke_context(board: str, target: str, version: int) -> bytes:
    """Return HPKE's ``info``: an envelope opens for one board, target and version.

    >>> hpke_context("pi-0042", "models/kws/8.bundle", 8)
    b'tinyward/v1|pi-0042|models/kws/8.bundle|8'
    """
    return f"tinyward/v1|{board}|{target}|{version}".encode()


def content_context(target: str, version: int) -> bytes:
    """Return what the ciphertext itself is bound to: one of another target fails.

    >>> content_context("models/kws/8.bundle", 8)
    b'tinyward/v1|models/kws/8.bundle|8'
    """
    return f"tinyward/v1|{target}|{version}".encode()


def sealed_bytes(algorithm: Algorithm, plain_bytes: int) -> int:
    """Return the length of a ciphertext, which its plain length alone decides.

    >>> sealed_bytes("cobblestone-256", 50 * 2**20) - 50 * 2**20
    51272
    >>> sealed_bytes("chacha20-poly1305", 65536) - 65536
    32
    """
    if algorithm == "cobblestone-256":
        # Its last chunk is the one that is not full, even if nothing is left for it.
        chunks = plain_bytes // COBBLESTONE_CHUNK_BYTES + 1
        return COBBLESTONE_HEADER_BYTES + plain_bytes + chunks * TAG_BYTES
    chunks = -(-plain_bytes // STREAM_CHUNK_BYTES)
    return STREAM_HEADER_BYTES + plain_bytes + chunks * TAG_BYTES


def stream_nonce(chunk: int, *, last: bool) -> bytes:
    """Return the nonce of a chunk (STREAM): its number, and whether it is the last.

    >>> stream_nonce(1, last=True).hex()
    '000000000000000000000101'
    """
    return chunk.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
