"""Whom a DDI server lets in: hawkBit's three ways.

A board's own token, the whole tenant's, or what a proxy in front of the server says of
the client certificate that it verified. Headers of the proxy count only where the
server was told that there is one; a client's own are dropped by it.

Source: hawkBit 1.1, "Authentication".
"""

import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

TOKEN = "d" * 32  # hawkBit's own have 32 characters


@dataclass
class Access:
    """A tenant's door.

    Attributes:
        token: The board's; empty: this way is closed.
        gateway: The tenant's, likewise.
        issuer: Common name of the CA whose clients the proxy vouches for, likewise.
        revoked: Nobody is let in any more.
    """

    tenant: str = "default"
    controller: str = "pi-7"
    token: str = TOKEN
    gateway: str = ""
    issuer: str = ""
    revoked: bool = False

    def lets_in(self, headers: Mapping[str, str], client: tuple[str, str]) -> bool:
        """Whether a request may be answered.

        Args:
            headers: Its headers, blind to case.
            client: Name and issuer of the certificate that was verified, or empty.
        """
        if self.revoked:
            return False
        said = headers.get("Authorization", "")
        if self.issuer and client == (self.controller, self.issuer):
            return True  # X-Controller-Id and X-Authority, as the proxy sets them
        expected = {"TargetToken": self.token, "GatewayToken": self.gateway}
        scheme, _, token = said.partition(" ")
        wanted = expected.get(scheme, "")
        return bool(wanted) and hmac.compare_digest(wanted, token)


def verified_client(tls: ssl.SSLObject | None) -> tuple[str, str]:
    """Return name and issuer of a client certificate, as a proxy reads them."""
    certificate = tls.getpeercert() if tls else None
    if not certificate:
        return "", ""
    return _name(certificate.get("subject")), _name(certificate.get("issuer"))


def _name(rows: object) -> str:
    """Return the common name of a subject, else the name of its unit."""
    named: dict[str, str] = {}
    for row in rows if isinstance(rows, tuple) else ():
        named.update(row)
    return named.get("commonName", named.get("organizationalUnitName", ""))
