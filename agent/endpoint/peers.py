"""Who asks, by the client certificate, and what they may.

The rules this module keeps:
 * A role is exactly one URI ``urn:tinyward:role:...`` among the certificate's names; a
   certificate with none (a board's own), two or an unknown one may nothing.
 * Revocation and validity are judged at every request, not only when a connection
   begins.

>>> may(Role.SCRAPER, Access.METRICS), may(Role.SCRAPER, Access.READ)
(True, False)
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from math import inf
from typing import cast

from agent.core.reasons import Reason
from agent.errors import RequestRefusedError

ROLE_URN = "urn:tinyward:role:"
MAX_NAME = 64  # what a log line shows of a subject


class Role(StrEnum):
    """What a client certificate is for."""

    SCRAPER = "scraper"
    OBSERVER = "observer"
    OPERATOR = "operator"


class Access(IntEnum):
    """What a request does; a role that may one may all before it."""

    ANY = 0
    METRICS = 1
    READ = 2
    OPERATE = 3


ROLES = {f"{ROLE_URN}{role}": role for role in Role}
_MOST = {
    Role.SCRAPER: Access.METRICS,
    Role.OBSERVER: Access.READ,
    Role.OPERATOR: Access.OPERATE,
}


@dataclass(frozen=True, slots=True)
class Peer:
    """The other side of a connection.

    Attributes:
        name: For the log: the subject's common name, printable.
        role: None where the certificate names none that exists.
        key: Tells certificates apart; limits count by it.
        serial: Serial number, lower case hex without leading zeros.
        issuer: The issuer's name, as ``ssl`` gives it.
        begins: Unix seconds of the certificate's validity, until ``ends``.
    """

    name: str
    role: Role | None
    key: bytes = b""
    serial: str = ""
    issuer: object = None
    begins: float = -inf
    ends: float = inf


@dataclass(frozen=True, slots=True)
class Anchor:
    """A CA that vouches for client certificates, valid from ``begins`` to ``ends``."""

    subject: object
    begins: float
    ends: float


# Who can open the daemon's own 0600 socket could replace its files as well.
LOCAL = Peer("local", Role.OPERATOR)


def identify(certificate: Mapping[str, object], key: bytes) -> Peer:
    """Return the peer with a verified certificate (``SSLSocket.getpeercert``)."""
    serial = str(certificate["serialNumber"]).lower().lstrip("0")
    return Peer(
        name=_own_name(certificate) or serial,
        role=_role(certificate),
        key=key,
        serial=serial,
        issuer=certificate["issuer"],
        begins=ssl.cert_time_to_seconds(str(certificate["notBefore"])),
        ends=ssl.cert_time_to_seconds(str(certificate["notAfter"])),
    )


def parse_anchor(certificate: Mapping[str, object]) -> Anchor:
    """Return a pinned CA (``SSLContext.get_ca_certs``)."""
    return Anchor(
        subject=certificate["subject"],
        begins=ssl.cert_time_to_seconds(str(certificate["notBefore"])),
        ends=ssl.cert_time_to_seconds(str(certificate["notAfter"])),
    )


def may(role: Role | None, access: Access) -> bool:
    """Return whether a role allows something."""
    return role is not None and access <= _MOST[role]


def check_access(peer: Peer, access: Access) -> None:
    """Compare what is asked for with the peer's role.

    Raises:
        RequestRefusedError: ``role``.
    """
    if not may(peer.role, access):
        word = peer.role or "none"
        raise RequestRefusedError(
            f"the certificate's role is {word}: not enough", reason=Reason.ROLE
        )


def check_valid(peer: Peer, now: float, anchors: Sequence[Anchor] = ()) -> None:
    """Check that a certificate, and the CA that signed it, are valid at ``now``.

    A chain through an intermediate CA is OpenSSL's to judge: only pinned CAs are known
    here.

    Raises:
        RequestRefusedError: ``certificate``.
    """
    if not peer.begins <= now <= peer.ends:
        raise _unfit("the client certificate is not valid now")
    signers = [anchor for anchor in anchors if anchor.subject == peer.issuer]
    if signers and not any(a.begins <= now <= a.ends for a in signers):
        raise _unfit("the CA of the client certificate is not valid now")


def check_revoked(peer: Peer, revoked: Callable[[], Sequence[str]]) -> None:
    """Check that the fleet's owner did not revoke a certificate.

    Raises:
        RequestRefusedError: ``certificate``.
    """
    if peer.serial and any(peer.serial == one.lstrip("0") for one in revoked()):
        raise _unfit("the client certificate was revoked")


def _role(certificate: Mapping[str, object]) -> Role | None:
    """The one role among the URIs of a certificate."""
    names = cast("Sequence[tuple[str, str]]", certificate.get("subjectAltName", ()))
    uris = [uri for kind, uri in names if kind == "URI" and uri.startswith(ROLE_URN)]
    return ROLES.get(uris[0]) if len(uris) == 1 else None


def _own_name(certificate: Mapping[str, object]) -> str:
    """The subject's last common name, without what could forge a log line."""
    subject = cast(
        "Sequence[Sequence[tuple[str, str]]]", certificate.get("subject", ())
    )
    names = [value for part in subject for key, value in part if key == "commonName"]
    printable = "".join(sign for sign in "".join(names[-1:]) if sign.isprintable())
    return printable[:MAX_NAME]


def _unfit(what: str) -> RequestRefusedError:
    """Return the error for a certificate that is not let in."""
    return RequestRefusedError(what, reason=Reason.CERTIFICATE)
