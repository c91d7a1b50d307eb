"""Vouchers: one spelling, one board, one vendor, and a fixed order of refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.core.voucher import (
    FIELDS,
    MAX_SEQ,
    MAX_UNITS,
    VOUCHER_BYTES,
    Kind,
    Voucher,
    believe_voucher,
    check_times,
    check_units,
    key_hash,
    pack_fields,
    parse_fields,
    signed_bytes,
)
from agent.errors import RequestRefusedError
from tests.fakes.vouchers import BOARD, VENDOR, Vendor, refused_for

words = st.integers(0, 2**64 - 1)
vouchers = st.builds(
    Voucher,
    st.sampled_from(Kind),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=32, max_size=32),
    st.integers(1, MAX_SEQ),
    words,
    words,
)


def refusal(raw: bytes, vendor: Vendor = VENDOR, board: bytes = BOARD) -> str:
    """Return why a board does not believe a voucher."""
    with pytest.raises(RequestRefusedError) as refused:
        believe_voucher(raw, vendor.issuer, key_hash(board), vendor.verify())
    return refused.value.reason


@given(vouchers, st.binary(min_size=64, max_size=64))
def test_what_is_packed_is_parsed(voucher: Voucher, signature: bytes) -> None:
    """Law: ``parse_fields(pack_fields(v) + signature) == v``, in 136 bytes."""
    raw = pack_fields(voucher) + signature
    assert len(raw) == VOUCHER_BYTES == 136
    assert voucher == parse_fields(raw)


@given(st.binary(max_size=200) | st.binary(min_size=136, max_size=136))
def test_any_bytes_are_a_voucher_or_refused(raw: bytes) -> None:
    """Any bytes parse into what renders to them, or are malformed; nothing else."""
    reason = refused_for(lambda: parse_fields(raw))
    assert reason in {"", Reason.MALFORMED}
    assert reason or raw[: FIELDS.size] == pack_fields(parse_fields(raw))


@given(st.integers(0, VOUCHER_BYTES * 8 - 1))
def test_no_bit_of_a_voucher_can_be_changed(bit: int) -> None:
    """Whichever bit is flipped, a voucher is malformed or its signature is broken."""
    raw = bytearray(VENDOR.voucher(7))
    raw[bit // 8] ^= 1 << bit % 8
    assert refusal(bytes(raw)) in {Reason.MALFORMED, Reason.SIGNATURE}


@given(st.integers(0, VOUCHER_BYTES + 8).filter(lambda n: n != VOUCHER_BYTES))
def test_a_voucher_is_whole(length: int) -> None:
    """One that is truncated or extended is malformed."""
    raw = VENDOR.voucher(7) + bytes(8)
    assert refusal(raw[:length]) == Reason.MALFORMED


def test_a_voucher_of_another_vendor_is_refused() -> None:
    """The right form by the wrong key is `signature`, whoever it says it is of."""
    other = Vendor(b"x" * 32)
    assert refusal(other.voucher(1)) == Reason.SIGNATURE
    assert refusal(other.voucher(1, issuer=VENDOR.issuer)) == Reason.SIGNATURE


def test_a_signature_over_the_bare_fields_is_no_vouchers() -> None:
    """What the vendor's key signs elsewhere cannot be made into a voucher."""
    fields = VENDOR.voucher(1)[: FIELDS.size]
    assert refusal(fields + VENDOR.private.sign(fields)) == Reason.SIGNATURE
    assert signed_bytes(fields) != fields


def test_a_voucher_for_another_board_is_refused() -> None:
    """It is said only once the signature holds: a forged one tells nothing."""
    foreign = VENDOR.voucher(1, board=bytes(32))
    assert refusal(foreign) == Reason.OTHER_BOARD
    assert refusal(foreign[:-1] + bytes([foreign[-1] ^ 1])) == Reason.SIGNATURE


def test_a_version_and_a_kind_that_nobody_knows_are_malformed() -> None:
    """A later form is refused, not read as if it were this one."""
    raw = VENDOR.voucher(1)
    for place, value in ((3, 2), (4, 9), (4, 0), (5, 1), (0, 0)):
        changed = raw[:place] + bytes([value]) + raw[place + 1 :]
        assert refusal(changed) == Reason.MALFORMED


def test_numbers_begin_at_one() -> None:
    """Number 0 is malformed, and cannot be packed."""
    zero = VENDOR.voucher(1)[:48] + bytes(8) + VENDOR.voucher(1)[56:]
    assert refusal(zero) == Reason.MALFORMED
    with pytest.raises(ValueError, match="number"):
        VENDOR.voucher(0)
    with pytest.raises(ValueError, match="does not fit"):
        VENDOR.voucher(1, units=-1)
    with pytest.raises(ValueError, match="32 bytes"):
        VENDOR.voucher(1, board=b"short")


@pytest.mark.parametrize(
    ("voucher", "now_s", "good"),
    [
        ({"expiry_s": 0}, 2e9, True),
        ({"expiry_s": 1000}, 1000.0, True),
        ({"expiry_s": 1000}, 1001.0, False),
        ({"kind": Kind.UNTIL, "units": 500}, 400.0, True),
        ({"kind": Kind.UNTIL, "units": 500}, 500.0, False),
    ],
)
def test_a_voucher_has_its_time(
    voucher: dict[str, int], now_s: float, *, good: bool
) -> None:
    """It is redeemed until its expiry, and one until a date before that date."""
    found = parse_fields(VENDOR.voucher(1, **voucher))  # type: ignore[arg-type] # of tests
    expected = "" if good else Reason.EXPIRED
    assert expected == refused_for(lambda: check_times(found, now_s))


def test_people_read_dates() -> None:
    """What is over says when it was, whatever a voucher holds."""
    for kind, units, expiry_s, said in (
        (Kind.UNITS, 5, 1_790_000_000, "redeemed until 2026-09-21 14:13 UTC"),
        (Kind.UNTIL, 1_790_000_000, 0, "good until 2026-09-21 14:13 UTC"),
    ):
        found = parse_fields(VENDOR.voucher(3, units, kind, expiry_s=expiry_s))
        with pytest.raises(RequestRefusedError, match=said):
            check_times(found, 1_800_000_000)


def test_units_that_no_counter_holds_are_refused() -> None:
    """More than 2^48 - 1, or none at all where there have to be some: `units`."""
    for units, kind in ((MAX_UNITS + 1, Kind.UNITS), (0, Kind.UNITS), (0, Kind.TIME)):
        with pytest.raises(RequestRefusedError) as refused:
            check_units(parse_fields(VENDOR.voucher(1, units, kind)))
        assert refused.value.reason == Reason.UNITS
    check_units(parse_fields(VENDOR.voucher(1, 0, Kind.REVOKE)))
    check_units(parse_fields(VENDOR.voucher(1, MAX_UNITS)))
