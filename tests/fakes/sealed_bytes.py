"""Sealed bundles in memory: a board's key, a ciphertext, an envelope; no folders."""

import hashlib
import os
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.core.sealing import (
    MARKS_DOMAIN,
    Algorithm,
    HeadBlock,
    Marks,
    Sealed,
    Sealing,
    SignedMarks,
    Suite,
    content_context,
    hpke_context,
)
from agent.core.targets import bundle_path
from agent.publish.encrypting import encrypt, wrap
from agent.trust.bundle import Bundle
from agent.trust.seal_key import SealKey
from agent.trust.unseal import Unsealer
from tests.fakes.bundles import VARIANTS, good_bundle

BOARD, MODEL, VERSION = "pi-7", "kws", 7
TARGET = bundle_path(MODEL, VERSION)
ALGORITHMS: tuple[Algorithm, ...] = ("cobblestone-256", "chacha20-poly1305")
SUITES: tuple[Suite, ...] = ("x25519", "mlkem768-x25519")
KEY_BYTES = {"x25519": 32, "mlkem768-x25519": 96}


@dataclass(frozen=True)
class SealedBytes:
    """One sealed bundle, and the board it is for.

    Attributes:
        plain: What was sealed; ``content`` the ciphertext.
        key: The content key, which a real owner keeps to himself.
    """

    plain: bytes
    content: bytes
    sealed: Sealed
    key: bytes
    board_key: SealKey

    def envelope(
        self,
        marks: SignedMarks | None = None,
        board: str = BOARD,
        version: int = VERSION,
        held: bytes | None = None,
    ) -> bytes:
        """Return an envelope for the board's key, bound to what is named."""
        more = msgspec.msgpack.encode(marks) if marks else b""
        info = hpke_context(board, bundle_path(MODEL, version), version)
        public = self.board_key.public(board)
        return wrap(self.key + more if held is None else held, public, info)

    def open(
        self,
        content: bytes | memoryview | None = None,
        envelope: bytes | None = None,
        board: str = BOARD,
    ) -> Bundle:
        """Open it as the board would."""
        unsealer = Unsealer(board, lambda: self.board_key)
        return unsealer.open(
            memoryview(self.content if content is None else content),
            "a" * 64,
            self.sealed,
            self.envelope() if envelope is None else envelope,
        )


def new_key(suite: Suite = "x25519") -> SealKey:
    """Return a board's key that lies in no file."""
    return SealKey(suite, os.urandom(KEY_BYTES[suite]))


def seal_bytes(
    algorithm: Algorithm = "chacha20-poly1305",
    suite: Suite = "x25519",
    plain: bytes | None = None,
    marks_key: str = "",
) -> SealedBytes:
    """Seal a bundle for a new board."""
    plain = good_bundle(VERSION) if plain is None else plain
    key, context = os.urandom(32), content_context(TARGET, VERSION)
    content = b"".join(encrypt(algorithm, memoryview(plain), key, context))
    digest = hashlib.sha256(plain).hexdigest()
    sealing = Sealing(algorithm, marks_key)
    sealed = Sealed(MODEL, VERSION, sealing, digest, len(plain))
    return SealedBytes(plain, content, sealed, key, new_key(suite))


@dataclass(frozen=True)
class Marker:
    """An owner who signs marks."""

    private: Ed25519PrivateKey

    @property
    def public_key(self) -> str:
        """What the bundle's signed fields name."""
        return self.private.public_key().public_bytes_raw().hex()

    def sign(self, marks: Marks, domain: bytes = MARKS_DOMAIN) -> SignedMarks:
        """Sign any marks."""
        raw = msgspec.msgpack.encode(marks)
        return SignedMarks(raw, self.private.sign(domain + raw))


def marks_of(plain: bytes, *blocks: HeadBlock) -> Marks:
    """Return right marks for ``BOARD``: these blocks, and what comes of them."""
    changed = {block.variant: bytearray(VARIANTS[block.variant]) for block in blocks}
    for block in blocks:
        room = changed[block.variant]
        room[block.offset : block.offset + len(block.content)] = block.content
    return Marks(
        board=BOARD,
        target=TARGET,
        plain_sha256=hashlib.sha256(plain).hexdigest(),
        blocks=blocks,
        results={
            name: hashlib.sha256(content).hexdigest()
            for name, content in changed.items()
        },
        salt=bytes(32),
        commitment="c" * 64,
    )
