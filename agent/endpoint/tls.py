"""The control listener's TLS: its files, read again as they change.

The rules this module keeps:
 * TLS 1.3 only; a client certificate for clients, signed by a pinned CA, or no
   handshake. No session is resumed: a certificate is judged every time.
 * Each connection gets the newest context. Files that cannot be used keep the old one
   in use, and are reported once.
 * A certificate's validity is judged by the agent's clock, which never goes back. Where
   the system's is behind it, OpenSSL leaves time out and ``peers.check_valid`` judges
   the whole chain.
"""

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agent.core.reasons import Reason
from agent.endpoint.peers import Anchor, parse_anchor
from agent.settings import ControlSettings

log = logging.getLogger(__name__)
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL; ``ssl`` has no name
CLOCK_SLACK_S = 1.0  # two readings of one clock
State = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Contexts:
    """What one set of files makes.

    Attributes:
        strict: For a system clock that is right; ``timeless`` for one that is behind.
        anchors: The pinned CAs.
    """

    strict: ssl.SSLContext
    timeless: ssl.SSLContext
    anchors: tuple[Anchor, ...]


class Credentials:
    """The files of ``[control]``.

    Args:
        settings: Their paths.
        clock: Unix seconds; the system's time, or the certificate floor if that is
            later: what has ended by then is refused.
        earliest: Unix seconds; a system clock before that is wrong as well, although
            nothing is refused because of it: online keys may have moved it.
    """

    def __init__(
        self,
        settings: ControlSettings,
        clock: Callable[[], float],
        earliest: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._paths = [
            Path(settings.certificate), Path(settings.key), Path(settings.client_ca)
        ]  # fmt: skip
        self._clock = clock
        self._earliest = earliest
        self._state: State | None = None
        self._contexts: Contexts | None = None

    @property
    def anchors(self) -> Sequence[Anchor]:
        """The pinned CAs; none before the files were usable."""
        return self._contexts.anchors if self._contexts is not None else ()

    def current(self) -> ssl.SSLContext | None:
        """Return the context for a new connection; None while files are unusable."""
        state = tuple(_state_of(path) for path in self._paths)
        if state != self._state:
            self._load()
            self._state = state
        if self._contexts is None:
            return None
        return self._contexts.timeless if self.behind() else self._contexts.strict

    def behind(self) -> bool:
        """Tell whether the system's clock is known to be wrong."""
        # OpenSSL compares with this very clock; no other would tell what it will say.
        system = time.time()  # noqa: TID251
        return system < max(self._clock(), self._earliest()) - CLOCK_SLACK_S

    def _load(self) -> None:
        """Read the files; keep what was read before if they cannot be used."""
        first = self._contexts is None
        try:
            strict, timeless = self._build(), self._build()
        except (OSError, ValueError) as err:  # SSLError is an OSError
            log.error(  # noqa: TRY400 - the file is wrong, not the code
                "control.certificate",
                extra={"reason": Reason.CERTIFICATE, "detail": _say(err)},
            )
            return
        timeless.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
        anchors = tuple(parse_anchor(ca) for ca in strict.get_ca_certs())
        self._contexts = Contexts(strict, timeless, anchors)
        if not first:
            log.info("control.certificate_reloaded")

    def _build(self) -> ssl.SSLContext:
        """Return a context made of the files as they are.

        Raises:
            OSError: A file cannot be read, or OpenSSL cannot use it.
            ValueError: No CA is pinned: then nobody could be let in, or everybody.
        """
        certificate, key, client_ca = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        # An intermediate CA may be what is pinned: then its siblings are not let in.
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        # Without this OpenSSL asks for a key's passphrase on the terminal, and waits.
        context.load_cert_chain(certificate, key, password=lambda: "")
        context.load_verify_locations(client_ca)
        if not context.get_ca_certs():
            raise ValueError("client_ca holds no CA certificate")
        return context


def chain_of(tls: ssl.SSLObject) -> list[Anchor]:
    """Return the CAs by which TLS verified the peer, the pinned one last.

    Public since Python 3.13, there as bytes; this one has been behind it since 3.10.
    """
    verified = cast("Any", tls)._sslobj.get_verified_chain()  # noqa: SLF001 - see above
    return [parse_anchor(one.get_info()) for one in (verified or [])[1:]]


def _state_of(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _say(err: Exception) -> str:
    """Return an error in one line; paths are ours, keys never stand in it."""
    return getattr(err, "strerror", None) or str(err)
