"""A board's HTTP interface for the command line's tests: small, scripted, real sockets.

It follows the interface in what a client can see of it; what happens after a doorbell
is a script, of which every ``GET /v1/state`` takes one step.
"""

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import BaseServer, ThreadingTCPServer, ThreadingUnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NOW = 1_795_000_000.0  # 2026-11-18 11:06:40 UTC
DIGEST_8, DIGEST_9 = "8" * 64, "9" * 64
Json = dict[str, Any]


@dataclass
class Told:
    """An answer that is given instead of the usual one; status 0 hangs up."""

    status: int
    body: Json
    headers: dict[str, str] = field(default_factory=dict)


def problem(status: int, reason: str, detail: str, **more: str) -> Told:
    """Return a problem as a board spells it."""
    body = {"type": "about:blank", "title": "x", "status": status}
    return Told(status, body | {"reason": reason, "detail": detail, "todo": ""} | more)


def decision(pipeline: str, state: str, version: int = 8, **more: object) -> Json:
    """Return a decision about ``kws``."""
    return {
        "pipeline": pipeline,
        "state": state,
        "desired": {"model": "kws", "version": version},
        "source": "fleet/groups/all",
        "generation": 12,
        "reason": "",
        "detail": "",
        "until": 0.0,
    } | more


def report(number: int, result: str, version: int = 8, **more: object) -> Json:
    """Return a report about ``kws`` in ``door``."""
    return {
        "id": number,
        "pipeline": "door",
        "model": "kws",
        "version": version,
        "sha256": DIGEST_8,
        "source": "fleet/groups/all",
        "generation": 12,
        "result": result,
        "reason": "",
        "detail": "",
        "began_at": NOW - 7210,
        "ended_at": NOW - 7200,
    } | more


def progress(phase: str, done: int = 0, total: int = 0) -> Json:
    """Return what is under way for ``kws`` 8 in ``door``."""
    return {
        "id": 9,
        "pipeline": "door",
        "model": "kws",
        "version": 8,
        "sha256": DIGEST_8,
        "phase": phase,
        "done_bytes": done,
        "total_bytes": total,
        "began_at": NOW - 12,
    }


def running(version: int, *, model: str = "kws") -> Json:
    """Return a pipeline that runs a version."""
    active = {
        "model": model,
        "version": version,
        "variant": "int8",
        "executor": "litert 2.3.0 / xnnpack / 1",
        "sha256": str(version) * 64,
        "size": 1000,
        "verified_at": NOW,
    }
    return {
        "model": model,
        "state": "active",
        "ready": True,
        "reason": "",
        "active": active,
    }


class FakeBoard:
    """What the board is, what it was told, and what it will do.

    Attributes:
        state: ``GET /v1/state``; ``updates`` and ``desired`` likewise.
        script: Steps after a doorbell or an order; one for each look at the state.
        told: (method, beginning of a path) -> answers given once each, in turn.
        asked: Every request, ``GET /v1/state``.
        uploads: SHA-256 -> bytes; ``places`` path -> SHA-256 of what is whole.
        cut_after: Lets go of the connection after so many bytes of uploads, once each.
    """

    def __init__(self) -> None:
        self.state: Json = blank_state()
        self.updates: Json = {"progress": None, "reports": [], "quarantine": []}
        self.desired: Json | None = None
        self.script: list[Callable[[], None]] = []
        self.told: dict[tuple[str, str], list[Told]] = {}
        self.asked: list[str] = []
        self.uploads: dict[str, bytearray] = {}
        self.places: dict[str, str] = {}
        self.cut_after: list[int] = []
        self.received = 0
        self.rung = False
        self.lock = threading.Lock()

    def phases(self, *phases: str) -> list[Callable[[], None]]:
        """Return the steps of an update through some phases."""

        def enter(phase: str) -> Callable[[], None]:
            def step() -> None:
                self.state["update"] |= {"phase": phase, "next_look": 0.0}
                total = 1_200_000
                done = 400_000 if phase == "FETCHING" else total
                self.updates["progress"] = progress(phase, done, total)

            return step

        return [enter(phase) for phase in phases]

    def end(self, result: str = "committed", **more: object) -> Callable[[], None]:
        """Return the step that ends an update."""

        def step() -> None:
            self.look_ended()
            self.updates["progress"] = None
            self.updates["reports"].insert(0, report(9, result) | more)
            if result == "committed":
                self.state["pipelines"]["door"] = running(8)
                self.decide(decision("door", "runs"))

        return step

    def look_ended(self) -> None:
        """Say that a look ended just now."""
        update = self.state["update"]
        later = (update["next_look"] or NOW) + 300
        update |= {"phase": "IDLE", "last_look": NOW, "next_look": later}

    def decide(self, *decisions: Json) -> None:
        """Set what the plan says."""
        self.state["update"]["decisions"] = list(decisions)

    def take_step(self) -> None:
        """Go one step further in the script, once somebody rang."""
        if not self.rung:
            return
        if self.script:
            self.script.pop(0)()
        elif self.state["update"]["phase"] == "IDLE":
            self.rung = False
            self.look_ended()

    def answer(self, method: str, target: str, body: bytes, span: str) -> Told:
        """Return the answer to a request."""
        path = urlsplit(target).path
        for (wanted, beginning), answers in self.told.items():
            if wanted == method and path.startswith(beginning) and answers:
                return answers.pop(0)
        if path.startswith("/v1/uploads/"):
            query = parse_qs(urlsplit(target).query)
            return self._upload(method, path[12:], query, body, span)
        return self._answer(method, path, body)

    def _answer(self, method: str, path: str, body: bytes) -> Told:
        """Everything but uploads."""
        asked = f"{method} {path}"
        if asked in {"PUT /v1/desired", "POST /v1/updates", "POST /v1/rollback"}:
            self.rung = True
            return self._take_order(asked, body)
        if method == "DELETE" and path.startswith("/v1/quarantine/"):
            digest = path.rpartition("/")[2]
            kept = [e for e in self.updates["quarantine"] if e["sha256"] != digest]
            self.updates["quarantine"] = kept
            return Told(204, {})
        return self._show(asked)

    def _take_order(self, asked: str, body: bytes) -> Told:
        """An order that starts the script."""
        if asked == "POST /v1/updates":
            return Told(202, {"phase": self.state["update"]["phase"]})
        wanted = json.loads(body)
        if asked == "POST /v1/rollback":
            return Told(202, {"pipeline": wanted["pipeline"] or "door"})
        self.desired = wanted
        return Told(200, {"generation": wanted["generation"]})

    def _show(self, asked: str) -> Told:
        """What can be read."""
        if asked == "GET /v1/state":
            self.take_step()
            return Told(200, self.state)
        if asked == "GET /v1/updates":
            return Told(200, self.updates)
        if asked == "GET /v1/desired":
            if self.desired is None:
                return problem(404, "request", "no desired state was pushed")
            return Told(200, self.desired)
        return Told(404, {"error": "not found"})

    def _upload(
        self, method: str, digest: str, query: Json, body: bytes, span: str
    ) -> Told:
        """Offset of an upload, or one more piece of it."""
        here = self.uploads.setdefault(digest, bytearray())
        if method == "GET":
            return Told(200, {"offset": len(here)})
        first, total = 0, len(body)
        if found := re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", span):
            first, total = int(found[1]), int(found[3])
        here += body[len(here) - first :]
        if len(here) < total:
            return Told(200, {"offset": len(here), "complete": False})
        if sha256(here).hexdigest() != digest:
            return problem(400, "digest", "not these bytes")
        self.places[query["path"][0]] = digest
        return Told(200, {"offset": len(here), "complete": True})

    def content(self, path: str) -> bytes:
        """Return what was placed at a path."""
        return bytes(self.uploads[self.places[path]])


def blank_state() -> Json:
    """Return a board whose one pipeline runs ``kws`` 7 as wanted."""
    return {
        "version": "0.3.0",
        "board": "board-7",
        "now": NOW,
        "engines": {"litert": "2.3.0"},
        "ready": True,
        "daemon_rss_bytes": 45_000_000,
        "update": {
            "phase": "IDLE",
            "orchestrator": "tuf",
            "decisions": [decision("door", "runs", 7)],
            "progress": None,
            "trouble": None,
            "last_refusal": None,
            "verify_failures": {},
            "results": [],
            "last_look": NOW - 90,
            "next_look": NOW + 210,
            "metadata_expires": {
                "root": NOW + 360 * 86_400,
                "timestamp": NOW + 6.5 * 86_400,
            },
            "metadata_issued": NOW - 7_500,
            "clock_floor": NOW - 7_500,
            "clock_floor_lag_s": 0.0,
            "certificate_expires": NOW + 60 * 86_400,
            "set_aside": 0,
            "revoked": 0,
        },
        "pipelines": {"door": running(7)},
    }


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP for the board of its server; connections stay open."""

    protocol_version = "HTTP/1.1"
    wbufsize = 64 * 1024  # an answer is one packet, as from a real board
    timeout = 10

    def do_GET(self) -> None:
        self._serve()

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *args: object) -> None:
        """Say nothing: tests read standard error."""

    def address_string(self) -> str:
        """Unix sockets have no address."""
        return "peer"

    def _serve(self) -> None:
        """Read one request whole, or as far as the board listens, and answer."""
        board: FakeBoard = self.server.board  # type: ignore[attr-defined]  # set below
        body = self._read_body(board)
        if body is None:
            return
        with board.lock:
            board.asked.append(f"{self.command} {self.path}")
            span = self.headers.get("Content-Range", "")
            told = board.answer(self.command, self.path, body, span)
        if told.status == 0:
            self.close_connection = True
            return
        raw = json.dumps(told.body).encode() if told.status != 204 else b""
        kind = "application/problem+json" if told.status > 399 else "application/json"
        self.send_response(told.status)
        for name, value in told.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _read_body(self, board: FakeBoard) -> bytes | None:
        """Return the body; None where the connection was let go in the middle."""
        length = int(self.headers.get("Content-Length", "0"))
        if self.command != "PUT" or not board.cut_after:
            return self.rfile.read(length)
        room = board.cut_after[0] - board.received
        body = self.rfile.read(min(length, max(0, room)))
        board.received += len(body)
        if len(body) == length:
            return body
        board.cut_after.pop(0)
        # What came is kept, as real boards do.
        here = board.uploads.setdefault(urlsplit(self.path).path[12:], bytearray())
        first = re.match(r"bytes (\d+)", self.headers.get("Content-Range", ""))
        here += body[len(here) - int(first[1] if first else 0) :]
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        return None


class _UnixServer(ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *args: object) -> None:
        """Clients that leave are no news."""


class _TcpServer(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    context: ssl.SSLContext

    def finish_request(self, request: object, client_address: object) -> None:
        """Shake hands in the connection's own thread."""
        assert isinstance(request, socket.socket)
        with suppress(OSError):
            request.settimeout(10)
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)

    def handle_error(self, *args: object) -> None:
        """Clients that leave are no news."""


@contextmanager
def on_socket(board: FakeBoard, path: Path) -> Iterator[Path]:
    """Serve a board on a unix socket."""
    with _UnixServer(str(path), Handler) as server, _running(server, board):
        yield path
    path.unlink()


@contextmanager
def over_tls(board: FakeBoard, context: ssl.SSLContext) -> Iterator[str]:
    """Serve a board over TLS; gives ``127.0.0.1:port``."""
    with _TcpServer(("127.0.0.1", 0), Handler) as server:
        server.context = context
        with _running(server, board):
            yield f"127.0.0.1:{server.server_address[1]}"


@contextmanager
def _running(server: BaseServer, board: FakeBoard) -> Iterator[None]:
    """Run a server in a thread."""
    server.board = board  # type: ignore[attr-defined]  # for the handler
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
