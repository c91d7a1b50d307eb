"""Usage reports: what is signed is what is read, and nothing else leaves the board."""

import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent.audit.key import verify_ed25519
from agent.core.meter import UsageRow
from agent.core.meter_report import Usage, open_report, render_report, sum_rows, total
from agent.core.note import NoteKey, sign_note
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"b" * 32)
KEY = NoteKey("tinyward/pi/1", PRIVATE.public_key().public_bytes_raw())
models = st.sampled_from(["", "ab" * 32, "cd" * 32])
rows = st.lists(
    st.builds(UsageRow, st.integers(0, 10**6), models, st.integers(0, 10**9)),
    max_size=6,
)


def render(usage: Usage) -> bytes:
    """Return a report that the board signed."""
    return render_report(usage, lambda it: sign_note(it, KEY, PRIVATE.sign)).encode()


@given(rows, st.integers(0, 10**6))
def test_what_is_rendered_is_opened(found: list[UsageRow], from_hour: int) -> None:
    """Law: ``open_report(render_report(usage)) == usage``; rows are summed up."""
    summed = sum_rows(found, from_hour)
    assert len({(it.hour, it.model) for it in summed}) == len(summed)
    expected = sum(it.count for it in found if it.hour >= from_hour)
    assert expected == total(summed)
    usage = Usage("ee" * 32, expected, expected + 5, 3, summed)
    assert usage == open_report(render(usage), KEY, verify_ed25519)


@given(st.data())
def test_no_byte_of_a_report_can_be_changed(data: st.DataObject) -> None:
    """A report with another byte is refused, wherever that is."""
    raw = bytearray(
        render(Usage("ee" * 32, 3, 3, 0, (UsageRow(491_000, "ab" * 32, 3),)))
    )
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 127))
    with pytest.raises(BundleRefusedError) as refused:
        open_report(bytes(raw), KEY, verify_ed25519)
    assert refused.value.reason in {Reason.SIGNATURE, Reason.MALFORMED}


@given(st.binary(max_size=300))
def test_any_bytes_are_no_report(raw: bytes) -> None:
    """Whatever else somebody brings is refused, and by that error alone."""
    with pytest.raises(BundleRefusedError):
        open_report(raw, KEY, verify_ed25519)


def test_a_report_says_counts_and_no_more() -> None:
    """Its words are sums, hours, digests and counts: no input, no answer, no name."""
    usage = Usage("ee" * 32, 3, 3, 0, (UsageRow(491_000, "ab" * 32, 3),))
    text = render(usage).decode()
    body, _, rest = text.partition("\n\n")
    words = [line.split(" ")[0] for line in body.splitlines()]
    assert words == ["tinyward", "board", "answers", "used", "lost", "rows"]
    shown = rest.partition("\n\n")[2]
    assert re.fullmatch(r"2026-01-05T08 [0-9a-f]{64} 3\n", shown)
