"""A voucher: 136 signed bytes that give one board units, time, or take them back.

Its fields are those of protection.md 8.2, in network order::

    id16     "TWV", version, kind, three zero bytes, 8 bytes of the vendor's key id
    board32  SHA-256 of the board's Ed25519 public key, the one that signs its log
    seq8     the voucher's number for this board, from 1
    units8   inferences, seconds, or a Unix time; see ``Kind``
    expiry8  Unix seconds until which it may be redeemed; 0: for ever
    sig64    Ed25519 over ``DOMAIN`` and the 72 bytes before

The rules this module keeps:
 * Any other spelling of the same voucher is ``malformed``: what is signed is parsed
   from the very bytes the signature covers.
 * The order of refusals is fixed: malformed, signature, other_board, replayed, expired,
   units. Nothing is said about a voucher's content before its signature holds.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from agent.core.reasons import Reason
from agent.errors import RequestRefusedError

MAGIC = b"TWV"
VERSION = 1
# No other signature of the vendor's key, or of ours, can be taken for a voucher's.
DOMAIN = b"tinyward voucher v1\x00"
FIELDS = struct.Struct(">3sBB3s8s32sQQQ")
SIGNATURE_BYTES = 64
VOUCHER_BYTES = FIELDS.size + SIGNATURE_BYTES
BOARD_BYTES = 32
ISSUER_BYTES = 8
RESERVED = bytes(3)
# 280 years of 32,000 inferences a second; and sums stay what JSON readers keep exact.
MAX_UNITS = 2**48 - 1
MAX_TOTAL = 2**53 - 1
MAX_SEQ = 2**53 - 1
LAST_S = 253_402_300_799  # the last second that a datetime has

Verify = Callable[[bytes, bytes], bool]  # signature, message -> whether it holds


class Kind(IntEnum):
    """What a voucher gives, and what its ``units`` are.

    ``UNITS`` gives so many inferences.
    ``TIME`` gives so many seconds of running without counting. They pass while the
    daemon runs, by a clock that nobody sets: no battery is needed, nor the date.
    ``UNTIL`` counts nothing until that Unix time.
    ``REVOKE`` takes so many inferences back, as far as they are left; 0 takes all that
    is left of any kind, and what pipelines were handed already is owed if they use it.
    Vouchers with lower numbers are void from then on.
    """

    UNITS = 1
    TIME = 2
    UNTIL = 3
    REVOKE = 4


@dataclass(frozen=True, slots=True)
class Voucher:
    """What a voucher says.

    Attributes:
        kind: See ``Kind``; ``units`` likewise.
        issuer: First 8 bytes of the SHA-256 of the vendor's public key.
        board: SHA-256 of the board's public key.
        seq: Its number for this board, from 1.
        units: See ``Kind``.
        expiry_s: Unix seconds until which it may be redeemed, 0 for ever.
    """

    kind: Kind
    issuer: bytes
    board: bytes
    seq: int
    units: int
    expiry_s: int = 0


def key_hash(public: bytes) -> bytes:
    """Return what a board or a vendor is known by: SHA-256 of its raw public key.

    The one place that says what binds a voucher to a board.
    """
    return hashlib.sha256(public).digest()


def signed_bytes(fields: bytes) -> bytes:
    """Return what a signature covers, for the 72 bytes of fields."""
    return DOMAIN + fields


def pack_fields(voucher: Voucher) -> bytes:
    """Return the fields of a voucher, without the signature.

    Raises:
        ValueError: One of them does not fit.
    """
    if len(voucher.board) != BOARD_BYTES or len(voucher.issuer) != ISSUER_BYTES:
        raise ValueError("a board's hash has 32 bytes, a vendor's id 8")
    if not 1 <= voucher.seq <= MAX_SEQ:
        raise ValueError(f"a voucher's number is 1 to {MAX_SEQ}")
    try:
        return FIELDS.pack(
            MAGIC,
            VERSION,
            voucher.kind,
            RESERVED,
            voucher.issuer,
            voucher.board,
            voucher.seq,
            voucher.units,
            voucher.expiry_s,
        )
    except struct.error as err:
        raise ValueError(f"a field does not fit: {err}") from err


def parse_fields(raw: bytes) -> Voucher:
    """Parse a voucher of ``VOUCHER_BYTES``; its signature is not looked at.

    Law: ``parse_fields(pack_fields(v) + signature) == v``.

    Raises:
        RequestRefusedError: ``malformed``.
    """
    if len(raw) != VOUCHER_BYTES:
        raise _malformed(f"a voucher has {VOUCHER_BYTES} bytes, not {len(raw)}")
    found = FIELDS.unpack_from(raw)
    magic, version, kind, reserved, issuer, board, seq, units, expiry_s = found
    if magic != MAGIC or reserved != RESERVED:
        raise _malformed("this is no voucher")
    if version != VERSION:
        raise _malformed(f"a voucher of version {version}; this agent reads {VERSION}")
    if kind not in iter(Kind):
        raise _malformed(f"there is no voucher of kind {kind}")
    if not 1 <= seq <= MAX_SEQ:
        raise _malformed(f"a voucher's number is 1 to {MAX_SEQ}")
    return Voucher(Kind(kind), issuer, board, seq, units, expiry_s)


def believe_voucher(raw: bytes, issuer: bytes, board: bytes, verify: Verify) -> Voucher:
    """Return what a voucher says, once it is the vendor's and for this board.

    Args:
        raw: Its bytes.
        issuer: Id of the vendor that this board believes.
        board: SHA-256 of this board's public key.
        verify: Whether a signature by that vendor's key holds.

    Raises:
        RequestRefusedError: ``malformed``, ``signature`` or ``other_board``.
    """
    voucher = parse_fields(raw)
    fields, signature = raw[: FIELDS.size], raw[FIELDS.size :]
    if not verify(signature, signed_bytes(fields)):
        other = voucher.issuer != issuer
        by = "another vendor's key" if other else "a signature that does not hold"
        raise RequestRefusedError(
            f"this voucher has {by}",
            reason=Reason.SIGNATURE,
            todo="Type it again if it was typed; else ask the vendor for another, by "
            "the key that [meter] vendor_key names.",
        )
    if voucher.board != board:
        raise RequestRefusedError(
            f"voucher {voucher.seq} is for another board", reason=Reason.OTHER_BOARD
        )
    return voucher


def check_times(voucher: Voucher, now_s: float) -> None:
    """Check that a voucher may be redeemed now.

    Args:
        voucher: A voucher that is believed.
        now_s: Unix seconds: the later of the clock and its floor.

    Raises:
        RequestRefusedError: ``expired``.
    """
    ended = 0 < voucher.expiry_s < now_s
    if ended or (voucher.kind is Kind.UNTIL and voucher.units <= now_s):
        raise RequestRefusedError(
            f"voucher {voucher.seq} could be redeemed until {date(voucher.expiry_s)}"
            if ended
            else f"voucher {voucher.seq} was good until {date(voucher.units)}",
            reason=Reason.EXPIRED,
            todo="Ask the vendor for another; check the board's clock: `timedatectl`.",
        )


def date(at_s: int) -> str:
    """Return a Unix time as people read it, UTC.

    >>> date(1_790_000_000), date(MAX_TOTAL)
    ('2026-09-21 14:13 UTC', 'the year 9999')
    """
    if at_s > LAST_S:
        return "the year 9999"
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M} UTC"


def check_units(voucher: Voucher) -> None:
    """Check that a counter can hold what a voucher gives.

    Raises:
        RequestRefusedError: ``units``.
    """
    if voucher.units > MAX_UNITS:
        raise units_error(
            f"voucher {voucher.seq} has {voucher.units:,} units; a counter takes "
            f"{MAX_UNITS:,} of one voucher"
        )
    if voucher.units == 0 and voucher.kind is not Kind.REVOKE:
        raise units_error(f"voucher {voucher.seq} has no units")


def units_error(what: str) -> RequestRefusedError:
    """Return the error for units that no counter can hold."""
    return RequestRefusedError(what, reason=Reason.UNITS)


def _malformed(what: str) -> RequestRefusedError:
    """Return the error for bytes that are no voucher."""
    return RequestRefusedError(
        what,
        reason=Reason.MALFORMED,
        todo="Copy it whole; typed lines have a check of their own.",
    )
