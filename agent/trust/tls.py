"""TLS to a server: version 1.3, named CAs, and a clock that may be wrong.

The rules this module keeps:
 * TLS 1.3, the server's name and its chain are checked, always.
 * Where the system clock is before the clock floor, it proves nothing: certificates
   are judged by the certificate floor then, which no online key can poison (see
   ``agent.trust.clock``). Everything else about them is OpenSSL's judgement, as usual.
 * Files are read again when they change: certificates are renewed while we run.
 * A new connection resumes the last one's session: half the bytes of a poll.
"""

import socket
import ssl
from pathlib import Path
from typing import Any, cast

from cryptography import x509

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.trust.clock import moment
from agent.trust.fetcher import TransportError
from agent.trust.transport import Transport

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, which Python does not name.
_NO_CHECK_TIME = 0x200000
# X509_V_ERR_* of the same file, where its own words would not tell what to do.
_WORDS = {
    9: "is not valid yet: is this board's clock slow?",
    10: "has expired",
    18: "is self-signed and not one of the trusted CAs",
    19: "comes from a CA that is not trusted here (update.ca)",
    20: "comes from a CA that is not trusted here (update.ca)",
    21: "comes from a CA that is not trusted here (update.ca)",
    26: "is not meant for a server",
    62: "is another host's",
    64: "is another address's",
}


class _JudgedObject(ssl.SSLObject):
    """What asyncio connects with: judged before the first byte of ours is sent."""

    def do_handshake(self) -> None:
        """Go on with the handshake, and judge the certificates' dates at its end."""
        super().do_handshake()
        if isinstance(self.context, ServerContext):
            self.context.judge(self)


class ServerContext(ssl.SSLContext):
    """What python's ssl needs to know, and the two things it cannot do alone."""

    sslobject_class = _JudgedObject
    _wrong = False
    _earliest_s = 0.0
    _last: ssl.SSLSocket | ssl.SSLObject | None = None
    _session: ssl.SSLSession | None = None

    def judge_by(
        self, now_s: float, floor_s: float, certificate_floor_s: float = 0.0
    ) -> None:
        """Learn what time it is; a clock before its floor is known to be wrong.

        OpenSSL reads the system clock itself and Python cannot give it another time,
        so with a wrong clock its check of dates is switched off, and ``wrap_socket``
        compares them with T = max(system clock, certificate floor). T is a lower bound
        of the true time. It proves that a certificate has expired; it cannot prove
        that one is not valid *yet*, and a renewed one usually begins after it.
        Refusing that would lock out each board that lost its clock, so only the end
        of validity is judged then.
        """
        wrong = now_s < max(floor_s, certificate_floor_s)
        if wrong != self._wrong:
            # What was checked by another clock does not count.
            self._session = self._last = None
        self._wrong, self._earliest_s = wrong, max(now_s, certificate_floor_s)
        flags = int(self.verify_flags) & ~_NO_CHECK_TIME
        self.verify_flags = ssl.VerifyFlags(flags | (_NO_CHECK_TIME if wrong else 0))

    def wrap_socket(self, sock: socket.socket, *a: Any, **k: Any) -> ssl.SSLSocket:  # noqa: ANN401 - as in ssl
        """Connect, resuming the last session, and judge the certificates' dates."""
        if self._session is not None:
            k.setdefault("session", self._session)
        wrapped = super().wrap_socket(sock, *a, **k)
        try:
            self.judge(wrapped)
        except ssl.SSLError:
            wrapped.close()
            raise
        return wrapped

    def wrap_bio(self, *a: Any, **k: Any) -> ssl.SSLObject:  # noqa: ANN401 - as in ssl
        """Do the same for asyncio, which shakes hands later: see ``_JudgedObject``.

        Its user has nobody to tell us that an answer came; the connection before this
        one has ended by now, so what session it had is known.
        """
        self.remember_session()
        if self._session is not None:
            k.setdefault("session", self._session)
        return super().wrap_bio(*a, **k)

    def judge(self, connected: ssl.SSLSocket | ssl.SSLObject) -> None:
        """Refuse a connection whose certificates have ended, by a clock of ours.

        Raises:
            ssl.SSLCertVerificationError: One has.
        """
        if self._wrong:
            _check_ends(connected, self._earliest_s)
        self._last = connected

    def remember_session(self) -> None:
        """Keep the session of the connection that has just answered.

        TLS 1.3 sends it after the handshake; it is there when an answer is. One that
        was resumed stays the one to resume, until the server takes it no longer: each
        time CPython 3.11 is asked for a socket's session, 7 kB are lost for good (of
        OpenSSL 3.0), and a board polls for years.
        """
        last, self._last = self._last, None
        if last is not None and not last.session_reused:
            session = last.session
            if session is not None:
                self._session = session


def server_context(transport: Transport, table: str = "update") -> ServerContext:
    """Return the context for connections to a server.

    Args:
        transport: Whose files count.
        table: The table of agent.toml that names them.

    Raises:
        DeviceError: ``certificate``: a file is missing, or holds something else.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if transport.ca:
            context.load_verify_locations(cafile=transport.ca)
        else:
            context.load_default_certs()
        if transport.certificate:
            # Never ask a person for a passphrase: there is none on a board.
            context.load_cert_chain(transport.certificate, transport.key, lambda: b"")
    except (OSError, ValueError) as err:
        raise DeviceError(
            f"{table}.ca, certificate or key: {err}",
            reason=Reason.CERTIFICATE,
            todo="Name PEM files this user may read; key and certificate must fit.",
        ) from err
    return context


def files_of(transport: Transport) -> tuple[tuple[int, int, int], ...]:
    """Return something that changes when a file is replaced, also by its like."""
    marks = []
    for name in filter(None, (transport.ca, transport.certificate, transport.key)):
        try:
            status = Path(name).stat()
        except OSError:
            marks.append((0, 0, 0))  # reading it will say what is wrong
        else:
            marks.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(marks)


def tls_error(error: BaseException) -> TransportError:
    """Return what went wrong with TLS, in words that name the remedy."""
    text = str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _WORDS.get(error.verify_code)
        text = f"the server's certificate {known}" if known else error.verify_message
    elif isinstance(error, ssl.SSLError):
        name = error.reason or text
        text = f"no TLS 1.3 connection: {name.replace('_', ' ').lower()}"
        if "CERTIFICATE" in name and "ALERT" in name:
            text = (
                "the server refused this board's certificate "
                f"(update.certificate): {name.replace('_', ' ').lower()}"
            )
    return TransportError(text, Reason.TLS)


def _check_ends(sock: ssl.SSLSocket | ssl.SSLObject, earliest_s: float) -> None:
    """Refuse a chain of which a certificate ended before the earliest time it is."""
    now = moment(earliest_s)
    for certificate in _chain(sock):
        ended = certificate.not_valid_after_utc
        if ended < now:
            error = ssl.SSLCertVerificationError(
                1, f"certificate has expired at {ended:%Y-%m-%d}"
            )
            error.verify_code, error.verify_message = 10, "certificate has expired"
            raise error


def _chain(sock: ssl.SSLSocket | ssl.SSLObject) -> list[x509.Certificate]:
    """Return the verified chain; of a resumed session, which has none, the server's."""
    # Public since Python 3.13; before that the same method of the object behind it.
    for owner in (sock, cast("Any", sock)._sslobj):  # noqa: SLF001 - see above
        found = getattr(owner, "get_verified_chain", None)
        if found is not None:
            raw = [c if isinstance(c, bytes) else _der(c) for c in found() or []]
            if raw:
                return [x509.load_der_x509_certificate(der) for der in raw]
    leaf = sock.getpeercert(binary_form=True)
    return [x509.load_der_x509_certificate(leaf)] if leaf else []


def _der(certificate: Any) -> bytes:  # noqa: ANN401 - a type of the private module _ssl
    """Return the bytes of one of OpenSSL's certificates."""
    return ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
