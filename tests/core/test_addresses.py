"""Places: one spelling each, whatever was written, and nothing that only looks so."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.addresses import CONTROL_PORT, Place, parse_place

PORTS = st.integers(1, 65_535)
LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("board-7", "board-7", CONTROL_PORT),
        ("BOARD-7.Local.:9443", "board-7.local", 9443),
        ("10.0.0.7", "10.0.0.7", CONTROL_PORT),
        ("[2001:DB8:0:0::7]", "2001:db8::7", CONTROL_PORT),
        ("[::ffff:10.0.0.7]:08443", "10.0.0.7", CONTROL_PORT),
        ("pi_7:1", "pi_7", 1),
    ],
)
def test_a_place_has_one_spelling(text: str, host: str, port: int) -> None:
    """Case, zeros and what goes without saying make no other place."""
    assert parse_place(text, CONTROL_PORT) == Place(host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":8443", "a b", "a/b", "user@a", "a..b", "-a", "a:0", "a:65536", "a:"),
        *("a:+1", "a:1_0", "a:\u0661", "2001:db8::7", "[2001:db8::7", "[::1]8443"),
        *("[10.0.0.7]", "127.1", "0x7f.1", "2130706433", "010.0.0.1", "1.2.3.256"),
        *("a\n", "a\x00", "x" * 64, ".".join(["abcdefgh"] * 32), "b\u00fcro", "[fe80"),
    ],
)
def test_what_is_no_place_is_said_to_be_none(text: str) -> None:
    """Also what a resolver would take, under a second name, for an address."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_place(text, CONTROL_PORT)


def test_a_port_may_have_to_be_written() -> None:
    """Where none goes without saying."""
    with pytest.raises(ValueError, match="the port is missing"):
        parse_place("board-7")


@given(NAMES | NAMES.map(str.upper), PORTS)
def test_what_is_written_back_is_read_the_same(name: str, port: int) -> None:
    """Whatever the case, a place names itself."""
    place = parse_place(f"{name}:{port}")
    assert parse_place(str(place)) == place == Place(name.lower(), port)


@given(st.ip_addresses(v=6), PORTS)
def test_every_spelling_of_an_address_is_the_same_place(
    address: IPv6Address, port: int
) -> None:
    """All zeros written out, or none."""
    short, full = f"[{address}]:{port}", f"[{address.exploded}]:{port}"
    place = parse_place(full.upper())
    assert parse_place(short) == place
    assert parse_place(str(place)) == place


@given(st.text(max_size=40))
def test_anything_is_a_place_or_an_error(text: str) -> None:
    """And nothing else than the one error."""
    try:
        place = parse_place(text, CONTROL_PORT)
    except ValueError:
        return
    assert parse_place(str(place)) == place
