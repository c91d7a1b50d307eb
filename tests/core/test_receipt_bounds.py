"""What a worker may write into receipts, and that nothing else passes."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.receipt_bounds import Bounds, flags_of
from agent.core.receipts import (
    BLAKE2B,
    EVENT,
    FAILED,
    INPUT_HASHED,
    KEPT,
    NO_HASH,
    Receipt,
    ReceiptOrder,
    pack_receipt,
)

MODEL, OTHER = b"\x01" * 32, b"\x02" * 32
BOUNDS = Bounds(FAILED | KEPT, 7, {MODEL})


def record(at_ns: int, flags: int, pipeline: int, model: bytes) -> bytes:
    """Return a record that claims this."""
    return pack_receipt(Receipt(1, 1, at_ns, flags, pipeline, model, NO_HASH, NO_HASH))


CLAIMS = st.tuples(
    st.sampled_from([0, 1, 2**63]),
    st.sampled_from([0, FAILED, KEPT, FAILED | KEPT, EVENT, INPUT_HASHED, 1 << 31]),
    st.sampled_from([7, 8]),
    st.sampled_from([MODEL, OTHER]),
)


def may_be(claim: tuple[int, int, int, bytes]) -> bool:
    """Say in the plainest words what may be."""
    at_ns, flags, pipeline, model = claim
    allowed = flags in {0, FAILED, KEPT, FAILED | KEPT}
    return at_ns > 0 and allowed and pipeline == 7 and model == MODEL


@given(st.lists(CLAIMS, max_size=8))
def test_what_stands_before_the_first_wrong_one_is_good(
    claims: list[tuple[int, int, int, bytes]],
) -> None:
    """So many are good as the plain words say, and the next one has a complaint."""
    wrong = [at for at, claim in enumerate(claims) if not may_be(claim)]
    good, what = BOUNDS.judge(b"".join(record(*claim) for claim in claims))
    assert (min(wrong, default=len(claims)), bool(wrong)) == (good, bool(what))


def test_no_order_lets_a_worker_write_events() -> None:
    """In no mode; and hashes only where they are made."""
    orders = [
        ReceiptOrder(mode, hashed, keep)
        for mode in ("count", "chain", "inputs")
        for hashed in ("sha256", "blake2b")
        for keep in (0, 1000)
    ]
    assert [it for it in orders if flags_of(it) & EVENT] == []
    assert flags_of(ReceiptOrder("count")) == FAILED
    assert flags_of(ReceiptOrder("inputs")) == FAILED | INPUT_HASHED
    assert flags_of(ReceiptOrder("chain", "blake2b", 9)) == (
        FAILED | KEPT | INPUT_HASHED | BLAKE2B
    )
