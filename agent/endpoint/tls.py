"""The control listener's TLS: its files, read again as they change.

The rules this module keeps:
 * TLS 1.3 only; a client certificate for clients, signed by a pinned CA, or no
   handshake. No session is resumed: a certificate is judged every time.
 * Each connection gets the newest context. Files that cannot be used keep the old one
   in use, and are reported once.
 * A certificate's validity is judged by the agent's clock, which never goes back. Where
   the system's is behind it, OpenSSL leaves time out and ``peers.check_valid`` judges.
"""

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
        clock: Unix seconds; the system's time or the clock floor, whichever is later.
    """

    def __init__(self, settings: ControlSettings, clock: Callable[[], float]) -> None:
        self._paths = [
            Path(settings.certificate), Path(settings.key), Path(settings.client_ca)
        ]  # fmt: skip
        self._clock = clock
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
        # OpenSSL compares with this very clock; no other would tell what it will say.
        system = time.time()  # noqa: TID251
        behind = system < self._clock() - CLOCK_SLACK_S
        return self._contexts.timeless if behind else self._contexts.strict

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
