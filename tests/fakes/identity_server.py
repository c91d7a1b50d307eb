"""A board's control listener as far as its certificate goes, over real TLS."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agent.errors import AgentError
from agent.trust.identity import Identity


class IdentityServer(ThreadingHTTPServer):
    """Serves GET /v1/identity and PUT /v1/identity/certificate.

    Attributes:
        identity: Whose certificate it is.
        asked: Methods and paths, in the order in which they came.
        instead: What the board claims to ask for, where it lies.
        forgets: It answers as if it had taken a certificate, and has not.
    """

    daemon_threads = True

    def __init__(self, identity: Identity, ca: Path) -> None:
        # All of 127.0.0.0/8, of which one address is in the certificate.
        super().__init__(("0.0.0.0", 0), _Conversation)  # noqa: S104 - see above
        self.identity = identity
        self.asked: list[str] = []
        self.instead = b""
        self.forgets = False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca)
        context.load_cert_chain(identity.certificate, identity.key)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about handshakes that failed: tests provoke them."""

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve until the block ends; give the address."""
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self.address
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Conversation(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: IdentityServer

    def do_GET(self) -> None:
        """Show the certificate and the request."""
        self.server.asked.append(f"GET {self.path}")
        request = self.server.instead or self.server.identity.request()
        self._answer(200, self._shown() | {"request": request.decode()})

    def do_PUT(self) -> None:
        """Take a certificate."""
        self.server.asked.append(f"PUT {self.path}")
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            if not self.server.forgets:
                self.server.identity.install(sent)
        except AgentError as err:
            problem = {"reason": err.reason, "detail": str(err), "todo": err.todo}
            self._answer(403, {"type": "about:blank", "status": 403, **problem})
            return
        self._answer(200, self._shown())

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def _shown(self) -> dict[str, object]:
        """Return what is said about the certificate."""
        return {"certificate": self.server.identity.describe()}

    def _answer(self, status: int, content: dict[str, object]) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
