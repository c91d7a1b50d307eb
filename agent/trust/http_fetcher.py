"""Reading a repository over the network.

The rules this module keeps:
 * One connection, kept alive, of one thread at a time; TLS sessions are resumed.
 * Nothing is asked of anybody but the named server: no other host, no proxy of the
   environment, no cookies. ``identity`` is asked for, and nothing else is taken.
 * Whatever goes wrong leaves as python-tuf's ``DownloadError`` (or ``DeviceError``:
   our own certificate files), also from within the iteration.
 * Not more than the caller's limit is kept, not longer than ``Transport`` says is
   waited, and at most ``MAX_REDIRECTS`` are followed.

The server is not believed: all of this only keeps it from wasting our time. What its
bytes are worth, TUF decides.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress

import urllib3
from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError
from tuf.ngclient import FetcherInterface
from urllib3.response import BaseHTTPResponse

from agent.core.reasons import Reason
from agent.trust import answers
from agent.trust.fetcher import Part, Seen, TransportError, nobody_stops
from agent.trust.pace import Pace
from agent.trust.pools import open_pools, transport_errors
from agent.trust.tls import ServerContext, files_of, server_context
from agent.trust.transport import Transport

CHUNK_BYTES = 64 * 1024  # what is judged, hashed and written at once
MAX_REDIRECTS = 3  # a moved folder and a trailing slash; more is a loop
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ASKED_TO_WAIT = frozenset({429, 503})
_HEADERS = {"User-Agent": "tinyward", "Accept-Encoding": "identity"}


class HttpFetcher(FetcherInterface):
    """Serves python-tuf the files below one address; URLs are relative paths.

    Attributes:
        retry_after_s: For how long the last answer asked to be left alone.
    """

    def __init__(self, address: str, transport: Transport) -> None:
        self.retry_after_s = 0.0
        self._address = address
        self._transport = transport
        self._pace = Pace(transport)
        self._context: ServerContext | None = None
        self._pools: urllib3.PoolManager | None = None
        self._files: object = None
        self._times = (0.0, 0.0, 0.0)

    def judge_by(
        self, now_s: float, floor_s: float, certificate_floor_s: float = 0.0
    ) -> None:
        """Learn what the system clock says, and before what it cannot be."""
        self._times = (now_s, floor_s, certificate_floor_s)
        if self._context is not None:
            self._context.judge_by(*self._times)

    def open_part(
        self,
        path: str,
        start: int = 0,
        tag: str = "",
        pulse: Callable[[], None] = nobody_stops,
    ) -> Part:
        """Ask for a file, or for its rest while ``tag`` still names the same bytes.

        Raises:
            DownloadError: It cannot be read, or is absent (404).
            DeviceError: ``certificate``: our own files cannot be used.
        """
        ranged = bool(start and tag)
        headers = {"Range": f"bytes={start}-", "If-Range": tag} if ranged else {}
        response = self._ask(path, headers, pulse)
        if response.status == 200:
            return self._part(response, path, 0)
        if response.status == 206 and ranged and _continues(response, start, tag):
            return self._part(response, path, start)
        _let_go(response)
        if ranged and response.status in {206, 416}:
            # Another range than was asked for, or none: the whole file then.
            return self.open_part(path, pulse=pulse)
        raise _refused(path, response)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return a whole file from memory.

        Raises:
            DownloadError: It cannot be read, is absent (404) or too long.
            DeviceError: ``certificate``: our own files cannot be used.
        """
        return self.look(url, Seen(), max_length).content

    def look(self, url: str, seen: Seen, max_length: int) -> Seen:
        """Return a file as it is now; if it has not changed, it does not travel.

        A connection that broke is tried once more: it may have been a kept one that
        the server closed at the same moment.

        Raises:
            DownloadError: As from ``download_bytes``.
            DeviceError: Likewise.
        """
        try:
            return self._whole(url, seen, max_length)
        except TransportError as err:
            if err.reason != Reason.UNREACHABLE:
                raise
        return self._whole(url, seen, max_length)

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Serve python-tuf."""
        with self.open_part(url) as part:
            yield from part.chunks

    def _whole(self, url: str, seen: Seen, max_length: int) -> Seen:
        """Return a file with its ETag, or what was seen if it is the same."""
        headers = {"If-None-Match": seen.tag} if seen.tag else {}
        response = self._ask(url, headers, nobody_stops)
        if response.status != 200:
            _let_go(response)
            if response.status == 304 and headers:
                return seen
            raise _refused(url, response)
        content = bytearray()
        with self._part(response, url, 0) as part, closing(part.chunks) as chunks:
            for chunk in chunks:
                content += chunk
                if len(content) > max_length:
                    raise DownloadLengthMismatchError(
                        f"{url} has more than {max_length} bytes"
                    )
        tag = answers.any_tag(_header(response, "ETag"))
        settled = answers.is_settled(
            _header(response, "Last-Modified"), _header(response, "Date")
        )
        return Seen(bytes(content), tag if settled else "")

    def _part(self, response: BaseHTTPResponse, path: str, start: int) -> Part:
        """Return the body of an answer, which begins at ``start`` of the file."""
        encoding = _header(response, "Content-Encoding").lower()
        if encoding not in {"", "identity"}:
            response.close()
            raise TransportError(
                f"{path}: the server sent {encoding[:40]!r} where identity was asked"
            )
        length = answers.parse_length(_header(response, "Content-Length"))
        found = answers.parse_content_range(_header(response, "Content-Range"))
        whole = found[1] + 1 if start and found else length
        tag = answers.strong_tag(_header(response, "ETag"))
        return Part(start, whole, tag, _chunks(response, path), response.close)

    def _ask(
        self, path: str, headers: Mapping[str, str], pulse: Callable[[], None]
    ) -> BaseHTTPResponse:
        """Send a request, follow redirects, and return an answer of another status."""
        url = answers.join_url(self._address, path)
        if url is None:
            raise TransportError(f"{path!r} leads out of the repository")
        for _ in range(MAX_REDIRECTS + 1):
            response = self._exchange(url, path, headers, pulse)
            if response.status not in _REDIRECTS:
                return response
            _let_go(response)
            location = _header(response, "Location")
            onward = answers.redirect_url(url, location)
            if onward is None:
                raise TransportError(
                    f"{path}: redirected to {location[:200]!r}", Reason.REDIRECT
                )
            url = onward
        raise TransportError(f"{path}: redirected in a circle", Reason.REDIRECT)

    def _exchange(
        self,
        url: str,
        path: str,
        headers: Mapping[str, str],
        pulse: Callable[[], None],
    ) -> BaseHTTPResponse:
        """Send one request and return the answer, its body unread."""
        pools = self._connected()
        self._pace.begin(pulse)
        with transport_errors(path):
            response = pools.urlopen(
                "GET",
                url,
                headers={**_HEADERS, **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
        if self._context is not None:
            self._context.remember_session()
        asked = _header(response, "Retry-After")
        now_s = max(self._times)
        waits = response.status in _ASKED_TO_WAIT
        self.retry_after_s = answers.parse_retry_after(asked, now_s) if waits else 0.0
        return response

    def _connected(self) -> urllib3.PoolManager:
        """Return the connections, made anew where our certificate files changed."""
        files = files_of(self._transport)
        if self._pools is None or files != self._files:
            if self._pools is not None:
                self._pools.clear()
            if self._address.startswith("https:"):
                self._context = server_context(self._transport)
                self._context.judge_by(*self._times)
            self._pools = open_pools(self._transport, self._context, self._pace)
            self._files = files
        return self._pools


def _let_go(response: BaseHTTPResponse) -> None:
    """Leave an answer that nobody wants; a short one is read, to keep the connection.

    Each refresh ends the chain of roots with a 404, whose page has to be read or it
    would cost a TLS handshake.
    """
    # Typed as private to HTTPResponse; of a 304 it is 0 where no header says so.
    left = getattr(response, "length_remaining", None)
    if left is not None and left <= CHUNK_BYTES:
        # urllib3 forgives all but this: a chunk that says its size is negative.
        with suppress(ValueError):
            response.drain_conn()
    response.close()


def _chunks(response: BaseHTTPResponse, path: str) -> Generator[bytes, None, None]:
    """Yield the body of an answer as it arrives."""
    kind, first = _header(response, "Content-Type"), True
    while True:
        with transport_errors(path):
            # read1: what is there, without waiting for a full block.
            chunk = response.read1(CHUNK_BYTES)
        if not chunk:
            return
        if first and answers.is_web_page(kind, chunk):
            raise TransportError(f"{path}: a web page came instead: a captive portal?")
        first = False
        yield chunk


def _continues(response: BaseHTTPResponse, start: int, tag: str) -> bool:
    """Tell whether a partial answer is the rest of the same bytes, all of it."""
    found = answers.parse_content_range(_header(response, "Content-Range"))
    if found is None or _header(response, "ETag") not in {tag, ""}:
        return False
    first, last, whole = found
    length = answers.parse_length(_header(response, "Content-Length"))
    fits = whole in {None, last + 1} and length in {None, last + 1 - start}
    return first == start and fits


def _refused(path: str, response: BaseHTTPResponse) -> Exception:
    """Return the error for an answer that is no file."""
    status = response.status
    text = f"{path}: the server answered {status} {(response.reason or '')[:80]}"
    if status in {400, 401}:
        text += "; does it ask for a client certificate (update.certificate)?"
    return DownloadHTTPError(text.rstrip(), status)


def _header(response: BaseHTTPResponse, name: str) -> str:
    """Return a header's value, empty if there is none."""
    return response.headers.get(name, "").strip()
