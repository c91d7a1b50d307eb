"""Browsers at a board: requests that another site made its visitor's browser send.

The rules this module keeps:
 * What changes something comes from nobody's page but the board's own: a browser with
   an operator's certificate sends it along whoever asks (CSRF). Browsers say where a
   request comes from in ``Sec-Fetch-Site`` (W3C Fetch Metadata) and ``Origin``
   (RFC 6454); programs send neither, and cannot be made to act for others.
 * Over plain HTTP the page answers only where it was asked for by a name that no
   stranger can own: an address, ``localhost``, the board's own name. Else a site could
   let its own name point at the board and read it as its own (DNS rebinding).
 * What programs ask for, ``/metrics`` above all, answers to any name, for a fleet has a
   DNS of its own; but a request that looks like a browser's is held to the rule of the
   page. ``Sec-Fetch-*`` alone does not tell: browsers send it over TLS and to the local
   host only (W3C Fetch Metadata, section 2), so not to a name that was rebound.

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
# What browsers send and no scraper or probe does. ``Accept-Language`` is with each of
# their requests, and a page's script can change but not remove it (WHATWG Fetch,
# section "Fetching"); the others are for browsers that do otherwise.
BROWSER_HEADERS = (
    "Accept-Language",
    "Origin",
    "Referer",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
)
BROWSER_AGENT = "Mozilla/"  # all of them, since 1994


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
    origin = request.headers.get("Origin")
    host = request.headers.get("Host", "")
    if origin is not None and _place_of(origin) != host.lower():
        raise ForeignError


def check_scrape(request: web.Request, names: Collection[str]) -> None:
    """Check that what any program may read is not read by another site's page.

    Args:
        request: A program's, by any name, or a browser's.
        names: The names a browser may have reached us by.

    Raises:
        ForeignError: It was sent from another site's page.
        MisdirectedError: A browser came by a name that is not ours.
    """
    check_reader(request)
    if _is_browsers(request):
        check_host(request, names)


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
    if names is not None and "Origin" in request.headers:
        check_host(request, names)


def _is_browsers(request: web.Request) -> bool:
    """Tell whether a request may be a browser's; a program may pretend to be one."""
    if any(name in request.headers for name in BROWSER_HEADERS):
        return True
    return request.headers.get("User-Agent", "").startswith(BROWSER_AGENT)


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
