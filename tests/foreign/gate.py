"""A gate between a board and its server: writes down what passes, and can be closed.

Everything passes as it came, ``Host`` included: servers spell their links with it, and
boards follow links to the origin of their settings only.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.foreign.calls import ANSWER_S

# Of the way, not of the message: a gate that hands on whole bodies spells its own.
_OF_THE_WAY = {"connection", "keep-alive", "transfer-encoding", "content-length"}
NOT_MODIFIED = 304  # has no body, whatever its length would be


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that reached the server, and its answer.

    Attributes:
        sent: The request's JSON, None where it is none.
        status: 0 where the gate was closed.
    """

    method: str
    path: str
    sent: Any
    status: int
    body: bytes


Refuse = Callable[[str, str, Any], bool]  # (method, path, JSON) -> shut


def closes(method: str, path: str, sent: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether a request tells how an action ended."""
    return (
        method == "POST"
        and path.endswith("/feedback")
        and isinstance(sent, dict)
        and sent.get("status", {}).get("execution") == "closed"
    )


def everything(method: str, path: str, sent: Any) -> bool:  # noqa: ANN401, ARG001
    """Whether a request is one: nothing passes."""
    return True


class Gate:
    """A reverse proxy on loopback.

    Attributes:
        port: Where boards knock; the server listens on ``upstream``.
        passed: What came, in this order; closed requests among them.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.passed: list[Passed] = []
        self._refuse: Refuse | None = None
        door = type("Door", (_Door,), {"gate": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), door)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where boards find the server."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def closed(self, refuse: Refuse) -> Iterator[None]:
        """Cut connections with requests that are to be refused, unanswered."""
        self._refuse = refuse
        try:
            yield
        finally:
            self._refuse = None

    def executions(self, action: str = "", *, since: int = 0) -> list[str]:
        """Return the states that the server took, each run of equal ones once.

        Args:
            action: Of this action only.
            since: Leave out so many requests of the beginning.
        """
        told: list[str] = []
        for it in self.passed[since:]:
            of = it.path.split("/")[-2:-1]
            if it.path.endswith("/feedback") and it.status and of == [action or of[0]]:
                said = it.sent.get("status", {}).get("execution", "")
                told += [said] if said and told[-1:] != [said] else []
        return told

    def shuts(self, method: str, path: str, sent: Any) -> bool:  # noqa: ANN401 - any JSON
        """Whether a request does not pass now."""
        return self._refuse is not None and self._refuse(method, path, sent)


class _Door(BaseHTTPRequestHandler):
    """Hands requests on; ``gate`` is set by the subclass of each gate."""

    protocol_version = "HTTP/1.1"
    gate: Gate

    def pass_on(self) -> None:
        """Hand a request on, or cut it, and write it down."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        sent = _value(body)
        status, content = 0, b""
        if not self.gate.shuts(self.command, self.path, sent):
            with suppress(OSError, HTTPException):  # the server is away: status 0
                status, content = self._forward(body)
        self.close_connection |= not status
        told = Passed(self.command, self.path, sent, status, content)
        self.gate.passed.append(told)
        if status:
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815 - their names

    def _forward(self, body: bytes) -> tuple[int, bytes]:
        """Ask the server, answer its head, return its status and body."""
        upstream = HTTPConnection("127.0.0.1", self.gate.upstream, timeout=ANSWER_S)
        try:
            upstream.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in _OF_THE_WAY:
                    upstream.putheader(name, value)
            if body:
                upstream.putheader("Content-Length", str(len(body)))
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_THE_WAY:
                self.send_header(name, value)
        if answer.status != NOT_MODIFIED:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return answer.status, content

    def log_message(self, *_: object) -> None:
        """Say nothing: ``passed`` is the log."""


def _value(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return a body's JSON, None where it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None
