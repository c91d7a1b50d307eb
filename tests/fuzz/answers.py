"""What a server may send instead of HTTP: the fetcher, over a real connection.

Heads and bodies are damaged byte by byte and field by field. Whatever comes, the
fetcher returns a file within its limit or raises what TUF's client expects.
"""

import random
from collections.abc import Callable

from tuf.api.exceptions import DownloadError, DownloadHTTPError

from agent.trust.fetcher import Seen, TransportError
from agent.trust.http_fetcher import HttpFetcher
from agent.trust.transport import Transport
from tests.fakes import toxic_server as toxic
from tests.fakes.mutants import mutated

PATH = "metadata/timestamp.json"
BODY = b'{"signed": {"version": 1}, "signatures": []}'
LIMIT_BYTES = 200
QUICK = Transport(window_s=0.5, connect_s=5.0, pause_s=0.001)
LINES = (
    *(
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 206 Partial Content",
        b"HTTP/1.1 304 Not Modified",
    ),
    *(b"HTTP/1.1 302 Found", b"HTTP/1.0 200", b"HTTP/1.1 999 ?", b"HTTP/2 200", b"ICY"),
    *(b"HTTP/1.1 416 No", b"HTTP/1.1 503 Later", b"HTTP/1.1 204 No", b"HTTP/1.1 -1 x"),
    *(b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching", b"HTTP/1.1 \xff\xfe", b""),
)
FIELDS = (
    *(b"Content-Length: 44", b"Content-Length: 5", b"Content-Length: 9999999999999999"),
    *(b"Content-Length: -1", b"Content-Length: 44, 44", b"Content-Length: 4x"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked"),
    *(b"Content-Encoding: gzip", b"Content-Encoding: identity", b"Content-Encoding: x"),
    *(
        b"Content-Range: bytes 3-43/44",
        b"Content-Range: bytes 0-0/0",
        b"Content-Range: x",
    ),
    *(
        b'ETag: "abc"',
        b'ETag: W/"abc"',
        b"ETag: \xff",
        b'ETag: "' + b"a" * 70_000 + b'"',
    ),
    *(b"Location: /x", b"Location: http://[::1/", b"Location: \x00", b"Location: //b/"),
    *(
        b"Retry-After: 99999999999999999999",
        b"Retry-After: \xc2\xb2",
        b"Retry-After: Mon",
    ),
    *(b"Date: 0", b"Last-Modified: Sun, 06 Nov 99999 08:49:37 GMT", b"X" * 70_000),
    *(b"Set-Cookie: a=b", b"Connection: close", b"Connection: \x01", b": no name"),
    *(b"Content-Type: text/html", b" folded", b"no colon", b"X: " + b"y" * 70_000),
)
CHUNKS = (
    b"2c\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\nx",
    b"-5\r\n",
    b"zz\r\n",
)


class Line:
    """One fetcher and its server."""

    def __init__(self, server: toxic.ToxicServer) -> None:
        self._server = server
        self._fetcher = HttpFetcher(server.url, QUICK)

    def ask(self, answer: bytes, *, ranged: bool) -> str:
        """Ask once, and say in a word what came of the answer.

        Raises:
            ValueError: More was taken than was asked for.
        """
        self._server.script(PATH, toxic.raw(answer))
        ask: Callable[[], bytes] = self._rest if ranged else self._whole
        try:
            content = ask()
        except DownloadHTTPError as err:
            return f"http {err.status_code // 100}xx"
        except TransportError as err:
            return str(err.reason)
        except DownloadError:
            return "too_large"
        if len(content) > max(LIMIT_BYTES, len(answer)):
            raise ValueError(f"{len(content)} bytes were taken")
        if not 0 <= self._fetcher.retry_after_s <= 86_400:
            raise ValueError(f"asked to wait {self._fetcher.retry_after_s} s")
        return "bytes"

    def _whole(self) -> bytes:
        """Ask for the whole file."""
        return self._fetcher.look(PATH, Seen(b"x", '"abc"'), LIMIT_BYTES).content

    def _rest(self) -> bytes:
        """Ask for the rest of a file."""
        with self._fetcher.open_part(PATH, 3, '"abc"') as part:
            return b"".join(part.chunks)


def damaged_answer(chance: random.Random) -> bytes:
    """Return what a server might send."""
    line = b"HTTP/1.1 200 OK" if chance.random() < 0.5 else chance.choice(LINES)
    fields = [chance.choice(FIELDS) for _ in range(chance.randrange(4))]
    body = chance.choice((BODY, BODY, b"", b"<html>", BODY * 9, *CHUNKS))
    if body in CHUNKS and chance.random() < 0.7:
        fields.append(b"Transfer-Encoding: chunked")
    elif chance.random() < 0.5:
        fields.append(b"Content-Length: %d" % len(body))
    end = chance.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"))
    raw = end.join([line, *fields, b"", body])
    return mutated(raw, chance) if raw and chance.random() < 0.4 else raw
