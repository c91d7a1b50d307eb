"""Typed vouchers: what people get wrong is found, in its line, and what is alike is."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.core.voucher_text import (
    ALPHABET,
    LINE_CHARS,
    LINES,
    TEXT_CHARS,
    parse_file,
    parse_texts,
    render_compact,
    render_text,
)
from agent.errors import RequestRefusedError
from tests.fakes.vouchers import VENDOR, refused_for

raws = st.binary(min_size=136, max_size=136)
RAW = VENDOR.voucher(42, 100_000)
COMPACT = render_compact(RAW)


def refusal(text: str) -> str:
    """Return what is said about a text that is no voucher."""
    with pytest.raises(RequestRefusedError) as refused:
        parse_texts(text)
    assert refused.value.reason == Reason.MALFORMED
    return str(refused.value)


@given(st.lists(raws, min_size=1, max_size=3))
def test_what_is_rendered_is_parsed(vouchers: list[bytes]) -> None:
    """Law: ``parse_texts`` returns what was rendered, with blanks or without."""
    text = "\n# another\n".join(render_text(raw) for raw in vouchers)
    assert vouchers == parse_texts(text)
    assert vouchers == parse_texts("".join(render_compact(raw) for raw in vouchers))
    assert vouchers == parse_file(text.encode())
    assert all(len(line) == 35 for line in render_text(vouchers[0]).splitlines())


@given(raws)
def test_writing_it_otherwise_changes_nothing(raw: bytes) -> None:
    """Case, blanks, hyphens, O for 0 and I or L for 1 are all the same voucher."""
    text = render_text(raw)
    for alike in (
        text.lower(),
        text.replace(" ", "-"),
        text.replace("0", "o").replace("1", "l"),
        text.replace("0", "O").replace("1", "I"),
        " \t\r\n".join(text),
        f"# a remark, 0 and 1\n{text}   # and one more",
    ):
        assert [raw] == parse_texts(alike)


def test_any_wrong_character_is_found_in_its_line() -> None:
    """Every other character at every place is found, and its line is named."""
    for at, char in enumerate(COMPACT):
        line = at // LINE_CHARS + 1
        for other in ALPHABET.replace(char, ""):
            assert f"line {line} " in refusal(COMPACT[:at] + other + COMPACT[at + 1 :])


def test_neighbours_that_changed_places_are_found() -> None:
    """Two different characters beside each other cannot change places unseen."""
    for at, (one, other) in enumerate(pairwise(COMPACT)):
        if one != other:
            refusal(COMPACT[:at] + other + one + COMPACT[at + 2 :])


def test_lines_have_their_places() -> None:
    """Two lines cannot change places, nor one be left out or typed twice."""
    lines = render_text(RAW).splitlines()
    for one in range(LINES):
        for other in range(one):
            moved = [*lines]
            moved[one], moved[other] = lines[other], lines[one]
            refusal("\n".join(moved))
        refusal("\n".join(lines[:one] + lines[one + 1 :]))
        refusal("\n".join([*lines[:one], lines[one], *lines[one:]]))


def test_two_wrong_bits_in_a_line_are_found() -> None:
    """The check is linear: no two of the 150 bits of a line cancel each other out."""
    zero = render_compact(bytes(136))[:LINE_CHARS]
    bits = sum(ALPHABET.index(char) << 5 * (29 - at) for at, char in enumerate(zero))
    seen = set()
    for bit in range(14, 150):
        one = bytearray(17)
        one[16 - (bit - 14) // 8] = 1 << (bit - 14) % 8
        line = render_compact(bytes(one) + bytes(119))[:LINE_CHARS]
        value = sum(ALPHABET.index(it) << 5 * (29 - at) for at, it in enumerate(line))
        seen.add((value ^ bits) & (2**14 - 1))
    assert len(seen) == 136
    assert not any(it.bit_count() < 2 for it in seen)


def test_what_is_missing_is_counted() -> None:
    """A text that ends too soon says how much is missing; one without any says so."""
    assert "30 characters are missing" in refusal(COMPACT[:-30])
    assert "no voucher in it" in refusal(" # nothing\n")
    assert "'!'" in refusal("!" + COMPACT)
    assert "more than" in refusal(COMPACT * 2500)
    assert "line 2 of voucher 2" in refusal(
        COMPACT + COMPACT[:31] + "Z" * 29 + COMPACT[60:]
    )


def test_a_file_holds_text_or_bytes() -> None:
    """The bare bytes of several vouchers are taken, cut off ones are not."""
    expected = [RAW, RAW]
    assert expected == parse_file(RAW + RAW)
    for wrong in (RAW[:-1], RAW + b"x", b"\xff\xfe" + RAW):
        with pytest.raises(RequestRefusedError) as refused:
            parse_file(wrong)
        assert refused.value.reason == Reason.MALFORMED


@given(st.text(max_size=400) | st.text(ALPHABET + " oil-\n#", max_size=600))
def test_any_text_is_vouchers_or_refused(text: str) -> None:
    """Any text is refused as malformed, or is as many vouchers as it is long."""
    reason = refused_for(lambda: parse_texts(text))
    assert reason in {"", Reason.MALFORMED}
    assert reason or len(text) >= len(parse_texts(text)) * TEXT_CHARS > 0


@given(st.binary(max_size=600) | st.binary(max_size=600).map(lambda it: b"TWV" + it))
def test_any_file_is_vouchers_or_refused(content: bytes) -> None:
    """The same for any bytes in a file."""
    reason = refused_for(lambda: parse_file(content))
    assert reason in {"", Reason.MALFORMED}
    assert reason or all(len(raw) == 136 for raw in parse_file(content))
