"""Browsers at a board: requests that another site made its visitor's browser send.

The rules this module keeps:
 * What changes something comes from nobody's page but the board's own: a browser with
   an operator's certificate sends it along whoever asks (CSRF). Browsers say where a
   request comes from in ``Sec-Fetch-Site`` (W3C Fetch Metadata) and ``Origin``
   (RFC 6454); programs send neither, and cannot be made to act for others.
 * Over plain HTTP the page answers only where it was asked for by a name that no
   stranger can own: an address, ``localhost``, the board's own name. Else a site could
   let its own name point at the board and read it as its own (DNS rebinding).

>>> is_own_name("127.0.0.1:9797", ()), is_own_name("evil.example:9797", ())
(True, False)
>>> is_own_name("[::1]", ()), is_own_name("Pi.local", own_names("pi"))
(True, True)
"""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

from agent.endpoint.problems import ForeignError, MisdirectedError

# "none": the person behind it typed an address or opened a bookmark.
OWN_SITES = ("same-origin", "none")


def own_names(hostname: str) -> frozenset[str]:
    """Return the names a board goes by, and how mDNS publishes them."""
    name = hostname.lower().rstrip(".")
    first = name.partition(".")[0]
    return frozenset({name, first, f"{first}.local"} - {"", ".local"})


def is_own_name(host: str | None, names: Collection[str]) -> bool:
    """Tell whether a ``Host`` header names the board as no stranger can."""
    name = _name_of(host or "")
    if name == "localhost" or name in names:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def check_host(request: web.Request, names: Collection[str]) -> None:
    """Check that a page was asked for by the board's own name.

    Raises:
        MisdirectedError: It was not.
    """
    if not is_own_name(request.headers.get("Host"), names):
        raise MisdirectedError


def check_reader(request: web.Request) -> None:
    """Check that a stream is not opened from another site, which would hold a place.

    Raises:
        ForeignError: It is.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in OWN_SITES:
        raise ForeignError


def check_order(request: web.Request, names: Collection[str] | None) -> None:
    """Check that an order does not come from another site's page.

    Args:
        request: The order.
        names: The names a browser may have reached us by; None where TLS proves it.

    Raises:
        ForeignError: It does.
        MisdirectedError: It comes by a name that is not ours.
    """
    check_reader(request)
    origin = request.headers.get("Origin")
    if origin is None:
        return
    if names is not None:
        check_host(request, names)
    if _place_of(origin) != request.headers.get("Host", "").lower():
        raise ForeignError


def _name_of(host: str) -> str:
    """Return a host's name without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:  # a bracket that is not closed
        return ""


def _place_of(origin: str) -> str:
    """Return host and port of an origin, as ``Host`` spells them; "null" has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
