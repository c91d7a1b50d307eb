"""Sealed bundles without any cipher: a word before the bytes, and envelopes as text."""

import hashlib
from dataclasses import replace

from agent.core.reasons import Reason
from agent.core.sealing import Sealed, Sealing
from agent.errors import BundleRefusedError, DeviceError
from agent.trust.bundle import Bundle, open_bundle
from tests.fakes.scripted_repository import ScriptedRepository

SEAL = b"sealed:"


def envelope(board: str, version: int, key: str = "key", content: str = "") -> bytes:
    """Return an envelope of ``kws``; ``content`` makes it one of another sealing."""
    return f"kws {version} {board} {key} {content}".encode()


class ScriptedUnsealer:
    """Implements ``agent.update.needs.Unsealer``.

    Attributes:
        board: Whose; ``key`` opens its envelopes; empty is no key.
        checks: How often an envelope was looked at; ``opens`` how often all was opened.
    """

    def __init__(self, board: str = "board-1", key: str = "key") -> None:
        self.board = board
        self.key = key
        self.checks = self.opens = 0

    def check(self, sealed: Sealed, envelope: bytes) -> None:
        """Refuse the envelopes of others."""
        self.checks += 1
        if not self.key:
            raise DeviceError("no key", reason=Reason.SEAL_KEY)
        words = envelope.decode().split(" ")
        mine = [sealed.model, str(sealed.version), self.board, self.key]
        if words[:4] != mine:
            raise BundleRefusedError("another's", reason=Reason.ENVELOPE)

    def open(
        self, content: memoryview, target_sha256: str, sealed: Sealed, envelope: bytes
    ) -> Bundle:
        """Take the word away, and look at what is behind it."""
        self.check(sealed, envelope)
        self.opens += 1
        plain = bytes(content).removeprefix(SEAL)
        right = hashlib.sha256(plain).hexdigest() == sealed.plain_sha256
        if not right or envelope.decode().split(" ")[4]:
            raise BundleRefusedError("other bytes", reason=Reason.UNSEAL)
        bundle = open_bundle(plain, max_bytes=10**9)
        return replace(bundle, sha256=target_sha256, size=len(content))


def seal(repository: ScriptedRepository, version: int, plain: bytes) -> str:
    """Publish a version of ``kws`` sealed; return the digest of its ciphertext."""
    content = SEAL + plain
    repository.bundles["kws", version] = content
    repository.fields["kws", version] = {
        "plain_sha256": hashlib.sha256(plain).hexdigest(),
        "plain_bytes": len(plain),
        "sealed": Sealing("chacha20-poly1305"),
    }
    return hashlib.sha256(content).hexdigest()
