"""Connections to a board: its unix socket, or TLS 1.3 with both sides' certificates.

The rules this module keeps:
 * Nothing older than TLS 1.3, no board without a certificate of the given CA, and none
   whose certificate names another board than the one that was asked for.
 * Every wait has an end: ``CONNECT_S`` and ``ANSWER_S``.
 * Another thread can end each of them but the look-up of a name.
 * A failure says whose certificate is at fault: the board's, or the operator's own.
"""

import socket
import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass
from errno import ECONNABORTED
from http.client import HTTPConnection, HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from agent.cli.plain_text import plain
from agent.core.reasons import Reason
from agent.errors import AgentError, DeviceError, SettingsError

CONNECT_S = 10.0  # a board on a bad mobile network answers in three
ANSWER_S = 30.0  # an upload's last part is hashed before it is answered
CONTROL_PORT = 8443
BOARD_NAME = "urn:tinyward:board:"  # how a board's certificate spells its id


class SilentlyClosedError(ConnectionError):
    """A TLS connection that the other end closed before it answered anything."""


class BoardConnection(HTTPConnection):
    """HTTP that another thread can end, in each of its waits."""

    _left = False

    def leave(self) -> None:
        """End what is being waited for, and let nothing more be begun."""
        self._left = True
        sock = self.sock
        if sock is not None:
            with suppress(OSError):
                # The plain socket's: TLS has nothing to say to a peer that is left.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _show(self, sock: socket.socket) -> None:
        """Let a socket be reached by ``leave`` before it waits for anything.

        Raises:
            ConnectionAbortedError: This was left meanwhile.
        """
        self.sock = sock
        # Asked after it is shown: whoever leaves now finds either mark or socket.
        if self._left:
            raise ConnectionAbortedError(ECONNABORTED, "broken off")


class UnixConnection(BoardConnection):
    """HTTP over the daemon's unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket.

        Raises:
            DeviceError: ``unreachable``: no daemon listens there.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_S)
        try:
            self._show(sock)
            sock.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError) as err:
            self.close()
            raise DeviceError(
                f"no daemon listens on {self._path}",
                reason=Reason.UNREACHABLE,
                todo="Start it (`tinyward run`, `systemctl start tinyward`), "
                "or name its settings with --config.",
            ) from err
        except OSError:
            self.close()
            raise
        sock.settimeout(ANSWER_S)


class TlsConnection(BoardConnection):
    """HTTP over TLS.

    Args:
        host: Where to connect; ``port`` likewise.
        context: What to trust, and who we are.
        name: What the board's certificate has to say where it is not ``host``: a DNS
            name, or the id that the board has in the fleet.
    """

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext, name: str = ""
    ) -> None:
        super().__init__(host, port, timeout=ANSWER_S)
        self._context = context
        self._name = name
        self._answered = False

    def connect(self) -> None:
        """Connect and shake hands."""
        try:
            sock = self._reach()
            # A request is one write; waiting to fill a packet costs 40 ms each file.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Wrapping takes the plain socket over; hands are shaken once it is shown.
            wrapped = self._context.wrap_socket(
                sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self._show(wrapped)
            wrapped.do_handshake()
            check_name(dict(wrapped.getpeercert() or {}), self._name or self.host)
        except BaseException:
            self.close()
            raise
        wrapped.settimeout(ANSWER_S)
        self._answered = False

    def _reach(self) -> socket.socket:
        """Return a socket that is connected to the first address that answers.

        ``socket.create_connection`` does the same, and shows it only afterwards.

        Raises:
            OSError: None does.
        """
        failed: OSError | None = None
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, place in found:
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(CONNECT_S)
            try:
                self._show(sock)
                sock.connect(place)
            except OSError as err:
                self.close()
                failed = failed or err
            else:
                return sock
        raise failed or OSError(f"{self.host} has no address")

    def getresponse(self) -> HTTPResponse:
        """Return the next answer.

        In TLS 1.3 a board judges our certificate after our side of the handshake is
        over, and asyncio closes without sending the alert that would tell us.

        Raises:
            SilentlyClosedError: It was closed before the first answer.
        """
        try:
            response = super().getresponse()
        except ConnectionError as err:
            if self._answered:
                raise
            raise SilentlyClosedError(*err.args) from err
        self._answered = True
        return response


@dataclass(frozen=True, slots=True)
class Papers:
    """Files (PEM) for TLS: who we are, and who may vouch for boards.

    Attributes:
        key: The private key of ``certificate``; None where it lies in the same file.
    """

    certificate: Path
    key: Path | None
    ca: Path

    def context(self) -> ssl.SSLContext:
        """Return the context for connections.

        Raises:
            SettingsError: ``certificate``: a file cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Names are checked by ``TlsConnection``: a board that moves between networks
        # is known by its id, not by its address.
        context.check_hostname = False
        file = self.ca
        try:
            context.load_verify_locations(file)
            file = self.key or self.certificate
            context.load_cert_chain(self.certificate, self.key, _ask_passphrase)
        except ssl.SSLError as err:
            what = (
                f"{file} is no PEM file that fits: {getattr(err, 'reason', '') or err}"
            )
            raise _unusable(what) from err
        except OSError as err:
            named = ", ".join(
                str(p) for p in (self.ca, self.certificate, self.key) if p
            )
            raise _unusable(f"one of {named}: {err.strerror}") from err
        return context


def parse_address(text: str) -> tuple[str, str, int]:
    """Return (name, host, port) of ``[NAME@]HOST[:PORT]``; IPv6 stands in brackets.

    >>> parse_address("board-7@[2001:db8::7]:9443")
    ('board-7', '2001:db8::7', 9443)

    Raises:
        SettingsError: ``settings``: it is written otherwise.
    """
    name, _, address = text.rpartition("@")
    host, port = address, str(CONTROL_PORT)
    if ":" in address and not address.endswith("]"):
        host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # an IPv6 address whose port nobody can tell
    valid = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if not host or not valid or set(host) & set("[]/ "):
        raise SettingsError(
            f"{text!r} is not [NAME@]HOST[:PORT]",
            reason=Reason.SETTINGS,
            todo=f"Write board-7@10.0.0.7:{CONTROL_PORT}, or [2001:db8::7]:8443.",
        )
    return name, host, int(port)


def check_name(certificate: dict[str, Any], name: str) -> None:
    """Check that a verified certificate is that of the board ``name``.

    Raises:
        ssl.SSLCertVerificationError: It is another's.
    """
    names = certificate.get("subjectAltName", ())
    wanted = {("DNS", _one_spelling(name)), ("IP Address", _one_spelling(name))}
    held = {(kind, _one_spelling(value)) for kind, value in names}
    if not wanted & held and ("URI", BOARD_NAME + name) not in names:
        said = ", ".join(plain(value) for _, value in names) or "no name"
        raise ssl.SSLCertVerificationError(f"it is for {said}, not for {name!r}")


def explain_failure(where: str, error: OSError) -> AgentError:
    """Return the error for a board that cannot be reached, or does not let us in."""
    if isinstance(error, ssl.SSLCertVerificationError):
        what = getattr(error, "verify_message", "") or str(error.args[-1])
        return DeviceError(
            f"{where}: the board's certificate is not accepted: {what}",
            reason=Reason.CERTIFICATE,
            todo="Check --ca, this clock, and NAME in NAME@HOST if it has another.",
        )
    if isinstance(error, ssl.SSLError):
        return _explain_tls(where, error)
    if isinstance(error, SilentlyClosedError):
        return DeviceError(
            f"{where}: closed the connection before it answered: the board stopped, "
            "or refused our certificate",
            reason=Reason.UNREACHABLE,
            todo="Check --cert and --key: expired, revoked, or of another CA?",
        )
    if isinstance(error, PermissionError):
        return DeviceError(
            f"{where}: {error.strerror}",
            reason=Reason.PERMISSION,
            todo="Run this as the daemon's user or root: `sudo tinyward ...`.",
        )
    what = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
    return DeviceError(
        f"{where}: {(what or str(error) or 'the connection was cut').lower()}",
        reason=Reason.UNREACHABLE,
        todo="Check that the daemon runs and listens there: `tinyward run`, [control].",
    )


def _one_spelling(name: str) -> str:
    """Return a host's name or address as all its spellings have it."""
    try:
        return str(ip_address(name))
    except ValueError:
        return name.lower().rstrip(".")


def _explain_tls(where: str, error: ssl.SSLError) -> AgentError:
    """Return the error for a handshake that the board ended."""
    said = (getattr(error, "reason", "") or str(error)).lower().replace("_", " ")
    # Alerts about certificates: the board did not like ours.
    if "alert" in said and ("certificate" in said or "unknown ca" in said):
        return DeviceError(
            f"{where}: the board refused our certificate: {said}",
            reason=Reason.CERTIFICATE,
            todo="Check --cert and --key: expired, revoked, or of another CA?",
        )
    return DeviceError(
        f"{where}: no TLS 1.3 connection: {said}",
        reason=Reason.TLS,
        todo="Check that the port is that of [control] listen, and that its client_ca "
        "vouches for --cert.",
    )


def _ask_passphrase() -> str:
    """Ask for the passphrase of an encrypted key, where somebody can be asked."""
    if not sys.stdin.isatty():
        raise _unusable("the key is encrypted, and there is no terminal to ask at")
    answer: str = click.prompt("Passphrase of the key", hide_input=True, err=True)
    return answer


def _unusable(what: str) -> SettingsError:
    """Return the error for files that TLS cannot use."""
    return SettingsError(
        what,
        reason=Reason.CERTIFICATE,
        todo="Name PEM files: `tinyward ca issue` writes all three.",
    )
