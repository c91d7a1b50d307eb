"""Certificates for tests: a fleet's CA, boards and operators, made by the product."""

import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

from agent.publish.authority import Authority, KeyKind
from agent.publish.signing_requests import parse_request
from agent.trust.identity import Identity
from agent.trust.own_key import Names, make_key, name_everything, render_request

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Files:
    """Certificate and key of somebody, as files."""

    certificate: Path
    key: Path


class Papers:
    """A CA in ``home/ca`` that signs at ``now``, without a passphrase."""

    def __init__(self, home: Path, now: float, kind: KeyKind = "ed25519") -> None:
        self.home, self.now, self.kind = home, now, kind
        self.authority = Authority.create(
            home / "ca", b"", name="test CA", now=now, days=3650, kind=kind
        )

    @property
    def ca(self) -> Path:
        """The CA's certificate."""
        return self.authority.certificate_path

    def board(self, name: str = "pi-7", days: float = 90, begin: float = 0.0) -> Files:
        """Return a board with a key of its own and a signed certificate."""
        folder = self.home / name
        names = Names(name, ("localhost",), ("127.0.0.1",))
        private = make_key(folder / "board.key", self.kind)
        request = render_request(private, name, name_everything(names))
        (folder / "board.csr").write_bytes(request)
        pem, _ = self.authority.sign_board(
            parse_request(request), now=begin or self.now, days=days
        )
        (folder / "board.crt").write_bytes(pem)
        return Files(folder / "board.crt", folder / "board.key")

    def client(self, role: str = "operator", days: float = 30) -> Files:
        """Return a client."""
        key, pem, _ = self.authority.issue_client(
            role, "alice", now=self.now, days=days, kind=self.kind
        )
        files = Files(self.home / f"{role}.crt", self.home / f"{role}.key")
        files.certificate.write_bytes(pem)
        files.key.write_bytes(key)
        return files

    def identity(self, files: Files, board: str = "pi-7") -> Identity:
        """Return the identity of a board, as its daemon has it."""
        return Identity(files.certificate, files.key, board=board, cas=[self.ca])


def shake_hands(server: Files, client: Files | None, ca: Path) -> tuple[str, str]:
    """Shake hands over TLS 1.3 with certificates on both sides.

    Returns:
        What the server and the client say about it; empty where they are content.
    """
    ours, theirs = socket.socketpair()
    said = ["", ""]
    answering = _context(ssl.PROTOCOL_TLS_SERVER, server, ca)
    answering.verify_mode = ssl.CERT_REQUIRED
    asking = _context(ssl.PROTOCOL_TLS_CLIENT, client, ca)

    def serve() -> None:
        """Answer one byte."""
        try:
            with answering.wrap_socket(theirs, server_side=True) as wrapped:
                wrapped.sendall(wrapped.recv(1))
        except OSError as err:
            said[0] = str(err)
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with asking.wrap_socket(ours, server_hostname="localhost") as wrapped:
            wrapped.sendall(b"x")
            if wrapped.recv(1) != b"x":
                said[1] = "the server hung up"
    except OSError as err:
        said[1] = str(err)
        ours.close()
    thread.join(20)
    return said[0], said[1]


def _context(protocol: int, files: Files | None, ca: Path) -> ssl.SSLContext:
    """Return one side's context, as strict as the strictest Python is."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if files:
        context.load_cert_chain(files.certificate, files.key)
    return context
