"""Addresses of a DDI server: which ones are this board's, and how they are made.

The rules this module keeps:
 * A link is followed only on the server that the settings name (scheme, host and port)
   and below this controller's own path; an artifact may lie elsewhere on that server.
   Anything else is ``foreign_url``.
 * What is asked for is rebuilt from our own origin and the link's path and query: no
   name, password or fragment survives, and nothing climbs out of the path.

>>> ours = Controller("https://hawkbit.example", "default", "pi-0042")
>>> ours.resource("deploymentBase", "5", "feedback")
'https://hawkbit.example/default/controller/v1/pi-0042/deploymentBase/5/feedback'
>>> ours.action_at("/default/controller/v1/pi-0042/deploymentBase/5?c=-2")
'5'
"""

import re
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import msgspec

from agent.core.ddi import ActionId
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, SettingsError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_PORTS = {"https": 443, "http": 80}
# Visible ASCII without the backslash, which some software takes for a slash.
_PLAIN = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,2048}")


def origin_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address.

    Raises:
        ValueError: It has none, or one that no server is asked at.
    """
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port
    if parts.scheme not in _PORTS or not host or port == 0:
        raise ValueError(f"no web address: {url[:100]!r}")
    return parts.scheme, host, port or _PORTS[parts.scheme]


class Controller:
    """This board's place on the server.

    Attributes:
        url: Of the poll resource.
    """

    def __init__(self, server: str, tenant: str, name: str) -> None:
        """Take ``fleet.ddi.url``, the tenant and this board's name there.

        Raises:
            SettingsError: The address cannot be used.
        """
        try:
            self._origin = origin_of(server)
            parts = urlsplit(server)
        except ValueError as err:
            raise _wrong(f"is no address: {err}") from err
        scheme, host, _ = self._origin
        if scheme == "http" and host not in LOOPBACK:
            raise _wrong(f"{server!r} is unencrypted")
        if parts.username is not None or parts.query or parts.fragment:
            raise _wrong("must not carry a password, query or fragment")
        self._root = f"{scheme}://{parts.netloc}"
        above = parts.path.strip("/")
        prefix = [unquote(it) for it in above.split("/")] if above else []
        self._base = (*prefix, tenant, "controller", "v1", name)
        self._tenant_at = len(prefix)
        if not {".", ".."}.isdisjoint(self._base):
            raise _wrong("tenant and controller cannot be dots")
        self.url = self._root + "/" + "/".join(quote(it, safe="") for it in self._base)

    def resource(self, *parts: str) -> str:
        """Return the address of something below the poll resource."""
        return "/".join((self.url, *(quote(it, safe="") for it in parts)))

    def own(self, href: str) -> str:
        """Return the address that a link names, below this controller's path.

        Raises:
            BundleRefusedError: ``foreign_url``.
        """
        url, segments = self._on_server(href)
        if len(segments) <= len(self._base) or not self._begins(segments):
            raise _foreign(href, "is not below this board's own path")
        return url

    def artifact(self, href: str) -> str:
        """Return the address that an artifact's link names, on this server.

        Raises:
            BundleRefusedError: ``foreign_url``.
        """
        return self._on_server(href)[0]

    def action_at(self, href: str) -> str:
        """Return the id that a link ends with: ``.../deploymentBase/5?c=-2``.

        Raises:
            BundleRefusedError: ``foreign_url``; ``protocol``: it has none.
        """
        self.own(href)
        rest = self._on_server(href)[1][len(self._base) :]
        try:
            return msgspec.convert(rest[1] if len(rest) == 2 else "", ActionId)
        except msgspec.ValidationError as err:
            what = f"link {href[:200]!r} names no action"
            raise BundleRefusedError(what, reason=Reason.PROTOCOL) from err

    def _on_server(self, href: str) -> tuple[str, tuple[str, ...]]:
        """Return a link's address and its path's segments."""
        if not _PLAIN.fullmatch(href):
            raise _foreign(href, "is no address")
        try:
            target = urljoin(self.url + "/", href)
            parts, origin = urlsplit(target), origin_of(target)
        except ValueError as err:
            raise _foreign(href, "is no address") from err
        if origin != self._origin or "@" in parts.netloc:
            raise _foreign(href, "is another server")
        return self._rebuilt(href, parts)

    def _rebuilt(self, href: str, parts: SplitResult) -> tuple[str, tuple[str, ...]]:
        """Return a link's address on our own origin, and its path's segments."""
        path = parts.path or "/"
        segments = tuple(unquote(it) for it in path.split("/")[1:])
        for segment in segments:
            if segment in {".", ".."} or not segment.isprintable() or "/" in segment:
                raise _foreign(href, "climbs")
        query = f"?{parts.query}" if parts.query else ""
        return f"{self._root}{path}{query}", segments

    def _begins(self, segments: tuple[str, ...]) -> bool:
        """Whether a path begins as ours; servers may write the tenant in capitals."""
        at = self._tenant_at
        head = list(segments[: len(self._base)])
        if head[at].casefold() == self._base[at].casefold():
            head[at] = self._base[at]
        return tuple(head) == self._base


def _foreign(href: str, what: str) -> BundleRefusedError:
    """Return the error for a link that is not followed."""
    return BundleRefusedError(f"link {href[:200]!r} {what}", reason=Reason.FOREIGN_URL)


def _wrong(what: str) -> SettingsError:
    """Return the error for settings that cannot be used."""
    return SettingsError(
        f"fleet.ddi.url {what}",
        reason=Reason.SETTINGS,
        todo="Name an https:// address below which /TENANT/controller lies.",
    )
