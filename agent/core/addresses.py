"""A host and its port as people write them, and the one spelling of each.

The rules this module keeps:
 * Two spellings of one place are equal once parsed: case, a dot at the end, zeros of
   IPv6, an IPv4 address in IPv6's clothes, the port that goes without saying.
 * What resolvers read as an address although it is written as none (``127.1``,
   ``0x7f.1``) is refused: it would be one place under two names.

>>> parse_place("Board-7.Local.:8443"), parse_place("[2001:DB8:0::7]", 8443)
(Place(host='board-7.local', port=8443), Place(host='2001:db8::7', port=8443))
"""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

CONTROL_PORT = 8443  # of [control] listen, where nothing else is said
MAX_NAME = 253  # characters of a host's name (RFC 1035, 2.3.4)
MAX_PORT = 65_535
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something listens.

    Attributes:
        host: A name in lower case, or an address in its shortest spelling.
        port: 1 to 65,535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """Return ``HOST:PORT`` as URLs and Prometheus have it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_place(text: str, port: int = 0) -> Place:
    """Return the place that ``HOST[:PORT]`` names; IPv6 stands in brackets.

    Args:
        text: What somebody wrote.
        port: The one that counts where none is written; 0 if one has to be.

    Raises:
        ValueError: It names none; the message says what is wrong with it.
    """
    host, colon, digits = text.rpartition(":")
    if text.startswith("["):
        inside, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [ADDRESS]:PORT")
        return Place(_address_6(inside), _port(rest[1:], port, given=bool(rest)))
    if ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets: [{text}]")
    name = host if colon else text
    return Place(_host(name), _port(digits, port, given=bool(colon)))


def _host(name: str) -> str:
    """Return a name or an IPv4 address in its one spelling."""
    spelled = name.lower().removesuffix(".")
    labels = spelled.split(".")
    # Names never end in a number (RFC 1123, 2.1): what does is an address, or a trick.
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ip_address(spelled))
        except ValueError as err:
            raise ValueError(f"{name!r} is no address") from err
    if len(spelled) > MAX_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{name!r} is no host's name")
    return spelled


def _address_6(text: str) -> str:
    """Return an IPv6 address in its one spelling."""
    try:
        address = IPv6Address(text)
    except ValueError as err:
        raise ValueError(f"{text!r} is no IPv6 address") from err
    return str(address.ipv4_mapped or address)


def _port(digits: str, default: int, *, given: bool) -> int:
    """Return a port."""
    if not given:
        if not default:
            raise ValueError("the port is missing")
        return default
    # Not int() alone: it takes "+1", "1_0" and digits of other scripts.
    known = digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_PORT))
    if not known or not 0 < int(digits) <= MAX_PORT:
        raise ValueError(f"{digits!r} is no port")
    return int(digits)
