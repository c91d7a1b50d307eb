"""Who asks, by the client certificate, and what they may.

The rules this module keeps:
 * A role is exactly one URI ``urn:tinyward:role:...`` among the certificate's names; a
   certificate with none (a board's own), two or an unknown one may nothing.
 * Revocation, validity and whether its CA is still pinned are judged at every request,
   not only when a connection begins.
 * Validity is that of the whole chain as TLS verified it, intermediate CAs included.
 * A clock that is known to be behind proves that something has ended; it cannot prove
   that something has not begun *yet*, and an operator's new certificate usually begins
   after it. Then only ends are judged.

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
        chain: The CAs that vouch for it, the pinned one last.
        begins: Unix seconds of the certificate's validity, until ``ends``.
    """

    name: str
    role: Role | None
    key: bytes = b""
    serial: str = ""
    chain: "tuple[Anchor, ...]" = ()
    begins: float = -inf
    ends: float = inf


@dataclass(frozen=True, slots=True)
class Anchor:
    """A CA that vouches for client certificates, valid from ``begins`` to ``ends``."""

    subject: object
    begins: float
    ends: float
    serial: str = ""


# Who can open the daemon's own 0600 socket could replace its files as well.
LOCAL = Peer("local", Role.OPERATOR)


def identify(
    certificate: Mapping[str, object], key: bytes, chain: Sequence[Anchor] = ()
) -> Peer:
    """Return the peer with a verified certificate (``SSLSocket.getpeercert``)."""
    serial = str(certificate["serialNumber"]).lower().lstrip("0")
    return Peer(
        name=_own_name(certificate) or serial,
        role=_role(certificate),
        key=key,
        serial=serial,
        chain=tuple(chain),
        begins=ssl.cert_time_to_seconds(str(certificate["notBefore"])),
        ends=ssl.cert_time_to_seconds(str(certificate["notAfter"])),
    )


def parse_anchor(certificate: Mapping[str, object]) -> Anchor:
    """Return a CA (of ``SSLContext.get_ca_certs``, or of a verified chain)."""
    return Anchor(
        subject=certificate["subject"],
        begins=ssl.cert_time_to_seconds(str(certificate["notBefore"])),
        ends=ssl.cert_time_to_seconds(str(certificate["notAfter"])),
        serial=str(certificate.get("serialNumber", "")),
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


def check_valid(
    peer: Peer, now: float, anchors: Sequence[Anchor] = (), *, behind: bool = False
) -> None:
    """Check that a certificate, and every CA of its chain, are valid at ``now``.

    Where two CAs of one name are pinned (one was renewed), a valid one is enough:
    without a clock OpenSSL does not look for that one.

    Args:
        peer: Whose certificate it is.
        now: Unix seconds.
        anchors: The pinned CAs.
        behind: ``now`` is only the earliest time it can be.

    Raises:
        RequestRefusedError: ``certificate``.
    """

    def valid(it: Peer | Anchor) -> bool:
        return now <= it.ends and (behind or it.begins <= now)

    if not valid(peer):
        raise _unfit("the client certificate is not valid now")
    for ca in peer.chain:
        namesakes = [anchor for anchor in anchors if anchor.subject == ca.subject]
        if not any(map(valid, [ca, *namesakes])):
            raise _unfit("a CA of the client certificate is not valid now")


def is_pinned(peer: Peer, anchors: Sequence[Anchor]) -> bool:
    """Tell whether the CA that a peer was let in by is still one that is pinned."""
    return bool(peer.chain) and peer.chain[-1] in anchors


def check_pinned(peer: Peer, anchors: Sequence[Anchor]) -> None:
    """Check that nobody has taken the peer's CA away since it was let in.

    Raises:
        RequestRefusedError: ``certificate``.
    """
    if not is_pinned(peer, anchors):
        raise _unfit("the CA of the client certificate is not trusted any more")


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
