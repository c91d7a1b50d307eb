"""A vendor, a board's key, and vouchers, made fast and the same every time."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.audit.key import verify_ed25519
from agent.core.voucher import (
    ISSUER_BYTES,
    Kind,
    Verify,
    Voucher,
    key_hash,
    pack_fields,
    signed_bytes,
)
from agent.errors import RequestRefusedError

BOARD_PUBLIC = Ed25519PrivateKey.from_private_bytes(b"b" * 32).public_key()
BOARD = BOARD_PUBLIC.public_bytes_raw()


@dataclass(frozen=True)
class Vendor:
    """Who sells vouchers; ``seed`` tells one from another."""

    seed: bytes = b"v" * 32

    @property
    def private(self) -> Ed25519PrivateKey:
        """The key that signs."""
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public(self) -> bytes:
        """Its public half, raw."""
        return self.private.public_key().public_bytes_raw()

    @property
    def issuer(self) -> bytes:
        """What vouchers call it."""
        return key_hash(self.public)[:ISSUER_BYTES]

    def verify(self) -> Verify:
        """Return what tells its signatures."""
        public = self.public
        return lambda signature, text: verify_ed25519(public, signature, text)

    def voucher(
        self,
        seq: int,
        units: int = 100,
        kind: Kind = Kind.UNITS,
        **other: object,
    ) -> bytes:
        """Return a signed voucher for the board, with any other field replaced."""
        plain = Voucher(kind, self.issuer, key_hash(BOARD), seq, units)
        fields = pack_fields(replace(plain, **other))  # type: ignore[arg-type] # of tests
        return fields + self.private.sign(signed_bytes(fields))


VENDOR = Vendor()


def refused_for(call: Callable[[], object]) -> str:
    """Return the reason for which a call was refused; empty where it was not."""
    try:
        call()
    except RequestRefusedError as err:
        return err.reason
    return ""
