"""A server that answers byte by byte as a test says: slow, short, wrong, or not at all.

Each request of a path takes the next answer from that path's list; the last one stays.
A path without a list serves the file below ``root``, honestly. An answer is a function
that gets the connection and the request and writes whatever it likes.
"""

import contextlib
import hashlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from tests.fakes.certificates import Pair

Answer = Callable[["Exchange"], None]
DRIP_S = 0.05  # pause between two bytes of a dripped answer
LONG_S = 30.0  # longer than any test waits: a stall


class Exchange:
    """One request, and the connection to answer it on.

    Attributes:
        path: What was asked for; ``headers`` in lower case.
        content: The honest content of the file, empty if there is none.
        closed: Set when the server stops: nobody stalls longer.
    """

    def __init__(
        self, sock: socket.socket, head: str, root: Path, closed: threading.Event
    ) -> None:
        first, *lines = head.split("\r\n")
        self.path = first.split(" ")[1]
        pairs = (line.partition(":") for line in lines if line)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        self.closed = closed
        self._sock = sock
        file = root / unquote(self.path).lstrip("/")
        self.found = file.is_file()
        self.content = file.read_bytes() if self.found else b""

    @property
    def tag(self) -> str:
        """Return a strong ETag of the honest content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:12]}"'

    def send(self, content: bytes) -> None:
        """Write bytes."""
        self._sock.sendall(content)

    def head(self, status: str, **headers: object) -> None:
        """Write a status line and headers."""
        lines = [f"HTTP/1.1 {status}"]
        lines += [f"{name.replace('_', '-')}: {v}" for name, v in headers.items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def close(self) -> None:
        """End the connection as servers do."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End the connection with RST."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        # Not through TLS, which would say goodbye first.
        socket.socket(fileno=self._sock.detach()).close()

    def wait(self, seconds: float) -> None:
        """Wait, unless the server stops."""
        self.closed.wait(seconds)


class ToxicServer:
    """Serves ``root`` on loopback, toxic where a script says so.

    Attributes:
        url: Where it is; ``asked`` what was asked for, in order, with its headers.
        scripts: Path -> answers.
        connections: How many connections were taken.
    """

    def __init__(self, root: Path, tls: Pair | None = None) -> None:
        self._root = root
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(tls.certificate, tls.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self.scripts: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.connections = 0
        self._closed = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]

    def script(self, path: str, *answers: Answer) -> None:
        """Let a path be answered so, request by request; the last answer stays."""
        self.scripts["/" + path.lstrip("/")] = list(answers)

    def paths(self) -> list[str]:
        """Return what was asked for."""
        return [path for path, _ in self.asked]

    def __enter__(self) -> Self:
        """Start."""
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop: nobody waits, nothing stays open."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)

    def _accept(self) -> None:
        """Take connections until the end."""
        while not self._closed.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            # Head and body are two writes; a delayed ACK between them takes 40 ms.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        """Answer the requests of one connection."""
        self._open.add(sock)
        with contextlib.suppress(OSError, ValueError):
            if self._context is not None:
                sock.settimeout(LONG_S)
                sock = self._context.wrap_socket(sock, server_side=True)
                self._open.add(sock)
            while head := _read_head(sock):
                exchange = Exchange(sock, head, self._root, self._closed)
                self.asked.append((exchange.path, exchange.headers))
                self._answer(exchange)
        with contextlib.suppress(OSError):
            sock.close()

    def _answer(self, exchange: Exchange) -> None:
        """Answer as the path's script says."""
        answers = self.scripts.get(exchange.path)
        if answers is None:
            honest(exchange)
        else:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            answer(exchange)


def _read_head(sock: socket.socket) -> str:
    """Return a request's head, empty at the end."""
    raw = b""
    while not raw.endswith(b"\r\n\r\n"):
        got = sock.recv(1)
        if not got:
            return ""
        raw += got
    return raw.decode("latin-1").removesuffix("\r\n\r\n")


def honest(exchange: Exchange) -> None:
    """Serve the file: ETag, ranges and conditions included."""
    content, tag = exchange.content, exchange.tag
    if not exchange.found:
        exchange.head("404 Not Found", Content_Length=0)
        return
    if exchange.headers.get("if-none-match") == tag:
        exchange.head("304 Not Modified", ETag=tag)
        return
    ranged = re.fullmatch(r"bytes=(\d+)-", exchange.headers.get("range", ""))
    if ranged and exchange.headers.get("if-range") == tag:
        rest(int(ranged[1]))(exchange)
        return
    exchange.head("200 OK", Content_Length=len(content), ETag=tag)
    exchange.send(content)


def rest(start: int, **headers: object) -> Answer:
    """Serve a range to the end, whatever was asked for."""

    def answer(exchange: Exchange) -> None:
        content = exchange.content
        said: dict[str, object] = {
            "Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
            "Content_Length": len(content) - start,
            "ETag": exchange.tag,
        }
        said |= headers
        exchange.head("206 Partial Content", **said)
        exchange.send(content[start:])

    return answer


def status(line: str, body: bytes = b"", **headers: object) -> Answer:
    """Answer with a status and a body."""

    def answer(exchange: Exchange) -> None:
        exchange.head(line, Content_Length=len(body), **headers)
        exchange.send(body)

    return answer


def raw(content: bytes) -> Answer:
    """Send exactly these bytes, and close."""

    def answer(exchange: Exchange) -> None:
        exchange.send(content)
        exchange.close()

    return answer


def cut(share: float, end: Callable[[Exchange], None] = Exchange.close) -> Answer:
    """Announce the whole file (or the range asked for), send a share of it, and end."""

    def answer(exchange: Exchange) -> None:
        content, start = exchange.content, 0
        ranged = re.fullmatch(r"bytes=(\d+)-", exchange.headers.get("range", ""))
        if ranged:
            start = int(ranged[1])
            exchange.head(
                "206 Partial Content",
                Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}",
                Content_Length=len(content) - start,
                ETag=exchange.tag,
            )
        else:
            exchange.head("200 OK", Content_Length=len(content), ETag=exchange.tag)
        left = content[start:]
        exchange.send(left[: int(len(left) * share)])
        end(exchange)

    return answer


def stall(exchange: Exchange) -> None:
    """Say nothing more, and keep the connection open."""
    exchange.wait(LONG_S)


def drip(content: bytes | None = None, *, skip: int = 0) -> Answer:
    """Send an answer (the honest file's if none is given) one byte after the other."""

    def answer(exchange: Exchange) -> None:
        said = content
        if said is None:
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(exchange.content)}\r\n\r\n"
            said = head.encode() + exchange.content
        exchange.send(said[:skip])
        for byte in said[skip:]:
            if exchange.closed.is_set():
                return
            exchange.send(bytes([byte]))
            time.sleep(DRIP_S)

    return answer
