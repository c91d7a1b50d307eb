"""What the names in certificates mean: boards, roles, and how serials are spelled.

A board's certificate carries the URI ``urn:tinyward:board:<id>``, a client's
``urn:tinyward:role:<role>``; neither ever carries the other's.

>>> spell_serial(0x0ABC), parse_serial("0x0A:BC"), parse_serial("zero")
('abc', 'abc', '')
>>> board_of([board_uri("door-7")]), role_of(["urn:tinyward:role:operator"])
('door-7', 'operator')
>>> board_of(["urn:tinyward:board:../7"]), role_of(["urn:tinyward:role:root"])
('', '')
"""

import re
from collections.abc import Callable, Iterable

from agent.core.targets import BOARD_ID_PATTERN

BOARD_URI = "urn:tinyward:board:"
ROLE_URI = "urn:tinyward:role:"
ROLES = ("observer", "scraper", "operator")
_MAX_SERIAL_BITS = 160  # RFC 5280: at most 20 octets


def board_uri(board: str) -> str:
    """Return the name that a board's certificate carries."""
    return BOARD_URI + board


def role_uri(role: str) -> str:
    """Return the name that a client's certificate carries."""
    return ROLE_URI + role


def board_of(uris: Iterable[str]) -> str:
    """Return the id of the only board that is named, else an empty string."""
    return _only(uris, BOARD_URI, lambda name: bool(re.match(BOARD_ID_PATTERN, name)))


def role_of(uris: Iterable[str]) -> str:
    """Return the only role that is named, else an empty string."""
    return _only(uris, ROLE_URI, ROLES.__contains__)


def spell_serial(serial: int) -> str:
    """Return a serial number as ``revoked.json`` has it: lower case, no zeros ahead."""
    return f"{serial:x}"


def parse_serial(text: str) -> str:
    """Return the one spelling of a serial that people and tools spell in many ways.

    Returns:
        An empty string for what is no serial.
    """
    digits = text.strip().lower().removeprefix("0x").replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{1,42}", digits):
        return ""
    serial = int(digits, 16)
    return spell_serial(serial) if 0 < serial < 2**_MAX_SERIAL_BITS else ""


def _only(uris: Iterable[str], prefix: str, known: Callable[[str], bool]) -> str:
    """Return what follows a prefix, where exactly one name has it and it is known."""
    named = [uri.removeprefix(prefix) for uri in uris if uri.startswith(prefix)]
    return named[0] if len(named) == 1 and known(named[0]) else ""
