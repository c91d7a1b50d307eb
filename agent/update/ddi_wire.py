"""HTTP to the one DDI server that the settings name.

The rules this module keeps:
 * Credentials are asked for with each request (a rotated token works at once), go to
   the settings' own origin and nowhere else, and are in no message.
 * Nothing of the environment counts, no redirect is followed, no cookie kept, nothing
   unpacked: the answer is what was sent, up to a limit of bytes and of time.
 * One connection, kept alive; a new TLS context begins a new one.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace

import aiohttp

from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.ddi_links import origin_of
from agent.update.ddi_needs import Answer

TOTAL_S = 60.0  # a request of some kB over a bad mobile network takes a few seconds
CONNECT_S = 15.0  # TCP and TLS, each address
# A server that drips is left when its first seconds were slower than this, and one
# that sends no head within them: endless ``100 Continue`` would cost a core till then.
PATIENCE_S, MIN_BYTES_PER_S = 10.0, 100.0
KEEP_ALIVE_S = 45.0  # longer than the least pause between two polls
_CHUNK = 16_384


class HttpWire:
    """Speaks HTTP with the server; implements ``Wire``."""

    def __init__(
        self,
        url: str,
        context: Callable[[], ssl.SSLContext | None],
        credentials: Callable[[], str],
        total_s: float = TOTAL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Take the origin, and where its TLS context and our credentials come from.

        Args:
            url: ``fleet.ddi.url``.
            context: Returns the TLS context, the same one as long as nothing changed;
                None for plain HTTP to loopback. May raise ``DeviceError``.
            credentials: Returns the value of the header ``Authorization``
                (``TargetToken ...`` or ``GatewayToken ...``), or an empty string where
                a certificate is all there is. Asked for each request.
            total_s: How long a request may take in all.
            patience_s: After so long the head must have come, and the least speed
                counts.
        """
        self._origin = origin_of(url)
        self._context = context
        self._credentials = credentials
        self._total_s = total_s
        self._patience_s = patience_s
        self._session: aiohttp.ClientSession | None = None
        self._used: ssl.SSLContext | None = None

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int = 65_536,
    ) -> Answer:
        """Send a request and return its answer; see ``Wire``."""
        self._check_origin(url)
        sent = {"Accept-Encoding": "identity"} | dict(headers or {})
        authorization = self._authorization()
        if authorization:
            sent["Authorization"] = authorization
        with _translated():
            session = await self._open()
            async with (
                asyncio.timeout(self._total_s),
                asyncio.timeout(None) as until_head,
                session.request(
                    method,
                    url,
                    headers=sent,
                    data=body,
                    allow_redirects=False,
                    trace_request_ctx=until_head,
                ) as response,
            ):
                until_head.reschedule(None)
                content = await _read(response, max_bytes, self._patience_s)
                names = {name.lower(): it for name, it in response.headers.items()}
                return Answer(response.status, names, content)

    async def close(self) -> None:
        """Let go of the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _check_origin(self, url: str) -> None:
        """Refuse to speak with anyone else.

        Raises:
            BundleRefusedError: ``foreign_url``.
        """
        try:
            same = origin_of(url) == self._origin
        except ValueError:
            same = False
        if not same:
            what = f"{url[:200]!r} is not on the server of fleet.ddi.url"
            raise BundleRefusedError(what, reason=Reason.FOREIGN_URL)

    def _authorization(self) -> str:
        """Return the header that says who we are.

        Raises:
            DeviceError: ``permission``: it cannot be read, or is none.
        """
        value = self._credentials()
        # The value itself must not get into any message.
        if not (value.isascii() and value.isprintable()):
            raise DeviceError(
                "the token of fleet.ddi holds characters that no token has",
                reason=Reason.PERMISSION,
                todo="Write the token as the server shows it, on one line.",
            )
        return value

    async def _open(self) -> aiohttp.ClientSession:
        """Return the session; a new one where the TLS context changed."""
        context = self._context()
        if self._session is not None and context is not self._used:
            await self.close()
        if self._session is None:
            self._used = context
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=True if context is None else context,
                    limit=1,
                    keepalive_timeout=KEEP_ALIVE_S,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                headers={"User-Agent": "tinyward"},
                trace_configs=[self._traced()],
                trust_env=False,
                auto_decompress=False,
            )
        return self._session

    def _traced(self) -> aiohttp.TraceConfig:
        """Return what starts the clock for an answer's head: the request was sent.

        To connect may take longer, and is limited for itself.
        """
        traced = aiohttp.TraceConfig()

        async def sent(
            _session: aiohttp.ClientSession,
            context: SimpleNamespace,
            _what: aiohttp.TraceRequestHeadersSentParams,
        ) -> None:
            until_head: asyncio.Timeout = context.trace_request_ctx
            loop = asyncio.get_running_loop()
            until_head.reschedule(loop.time() + self._patience_s)

        traced.on_request_headers_sent.append(sent)
        return traced


async def _read(
    response: aiohttp.ClientResponse, max_bytes: int, patience_s: float
) -> bytes:
    """Return the body, as long as it is short and comes fast enough.

    Raises:
        BundleRefusedError: ``too_large`` or ``too_slow``.
    """
    loop = asyncio.get_running_loop()
    began, content = loop.time(), bytearray()
    while chunk := await response.content.read(_CHUNK):
        content += chunk
        if len(content) > max_bytes:
            response.close()  # the rest is not waited for
            what = f"the fleet's server sends more than {max_bytes} bytes"
            raise BundleRefusedError(what, reason=Reason.TOO_LARGE)
        took_s = loop.time() - began
        if took_s > patience_s and len(content) < MIN_BYTES_PER_S * took_s:
            response.close()
            what = f"the fleet's server sent {len(content)} bytes in {took_s:.0f} s"
            raise BundleRefusedError(what, reason=Reason.TOO_SLOW)
    return bytes(content)


@contextmanager
def _translated() -> Iterator[None]:
    """Let what goes wrong on the way be errors of ours.

    Raises:
        BundleRefusedError: ``unreachable``, ``too_slow``, ``tls``.
    """
    try:
        yield
    except AgentError:
        raise
    except (aiohttp.ClientSSLError, ssl.SSLError) as err:
        raise _failed(f"no TLS connection: {_first_line(err)}", Reason.TLS) from err
    except aiohttp.ConnectionTimeoutError as err:
        raise _failed("does not answer", Reason.UNREACHABLE) from err
    except TimeoutError as err:
        raise _failed("did not answer in time", Reason.TOO_SLOW) from err
    except aiohttp.ClientConnectorError as err:
        raise _failed(_why_not(err.os_error), Reason.UNREACHABLE) from err
    except (aiohttp.ClientError, OSError) as err:
        raise _failed(_first_line(err), Reason.UNREACHABLE) from err


def _why_not(error: OSError) -> str:
    """Say why there is no connection, without the library's own words around it."""
    # Names that cannot be resolved have numbers of their own, below 0.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or _first_line(error)).lower()[:200]


def _first_line(error: BaseException) -> str:
    """Return the beginning of what an error says; headers may follow in others."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _failed(what: str, reason: Reason) -> BundleRefusedError:
    """Return the error for a server that could not be asked."""
    return BundleRefusedError(f"the fleet's server: {what}", reason=reason)
