"""Names and serials in certificates: one spelling each, nothing ambiguous."""

import string

from hypothesis import given
from hypothesis import strategies as st

from agent.core.certificates import (
    ROLES,
    board_of,
    board_uri,
    parse_serial,
    role_of,
    role_uri,
    spell_serial,
)

BOARDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)


@given(st.integers(1, 2**160 - 1), st.booleans(), st.booleans())
def test_a_serial_has_one_spelling(serial: int, upper: bool, colons: bool) -> None:  # noqa: FBT001 - drawn
    """Law: however tools spell a serial, ``parse_serial`` gives ``spell_serial``."""
    digits = f"{serial:x}"
    even = digits.zfill(len(digits) + len(digits) % 2)
    text = even.upper() if upper else even
    if colons:
        text = ":".join(text[i : i + 2] for i in range(0, len(text), 2))
    assert spell_serial(serial) == parse_serial(text)
    assert spell_serial(serial) == parse_serial(f"0x{digits}")


@given(st.text(max_size=60))
def test_any_text_is_a_serial_or_nothing(text: str) -> None:
    """What comes out is what boards read: at most 40 lower case hex digits, or none."""
    serial = parse_serial(text)
    assert len(serial) <= 40
    assert set(serial) <= set(string.hexdigits.lower())
    assert serial in {"", spell_serial(int(serial or "0", 16))}


def test_impossible_serials_are_nothing() -> None:
    """Zero, and more than 20 octets, are no serial numbers."""
    assert [parse_serial(text) for text in ("0", "", "1" + "0" * 40, "-1")] == [
        "",
        "",
        "",
        "",
    ]


@given(BOARDS)
def test_a_board_is_found_by_its_name(board: str) -> None:
    """Law: ``board_of([board_uri(b)]) == b``, whatever else is named."""
    assert board == board_of([board_uri(board)])
    assert board == board_of(["https://example", board_uri(board), role_uri("x")])
    assert board_of([board_uri(board), board_uri(board)]) == ""


@given(st.text(max_size=80))
def test_no_other_text_is_a_board(text: str) -> None:
    """An id that could be a path, or is too long, is no board's."""
    found = board_of([board_uri(text)])
    allowed = set(string.ascii_letters + string.digits + "_.-")
    assert found in {"", text}
    assert (set(found) <= allowed, found[:1] in {".", "-", "_"}) == (True, False)


def test_roles_are_exactly_those_that_exist() -> None:
    """A role counts alone, and only if it exists."""
    assert list(ROLES) == [role_of([role_uri(role)]) for role in ROLES]
    assert role_of([role_uri("root")]) == ""
    assert role_of([role_uri("observer"), role_uri("operator")]) == ""
    assert role_of([]) == ""
