"""urllib3's connections, with our sockets in them; and what their errors mean.

urllib3 is used for what it is good at (keep-alive, proxies, HTTP/1.1); it neither
retries nor redirects nor decodes here.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from urllib3 import connection, connectionpool
from urllib3 import exceptions as errors

from agent.core.reasons import Reason
from agent.trust.fetcher import TransportError
from agent.trust.pace import Pace
from agent.trust.tls import ServerContext, tls_error
from agent.trust.transport import Transport


def open_pools(
    transport: Transport, context: ServerContext | None, pace: Pace
) -> urllib3.PoolManager:
    """Return one kept-alive connection to whatever is asked for, judged by ``pace``.

    urllib3 itself, unlike requests, does not read the environment's proxy variables.
    """

    class PlainConnection(connection.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock = pace.over(self.sock)

    class TlsConnection(connection.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.sock = pace.over(self.sock)

    class PlainPool(connectionpool.HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class TlsPool(connectionpool.HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    # The read timeout only bounds what pace does not see: the rest of a TLS record.
    timeout = urllib3.Timeout(connect=transport.connect_s, read=transport.window_s)
    if transport.proxy:
        pools: urllib3.PoolManager = urllib3.ProxyManager(
            transport.proxy, maxsize=1, timeout=timeout, ssl_context=context
        )
    else:
        pools = urllib3.PoolManager(maxsize=1, timeout=timeout, ssl_context=context)
    pools.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}
    return pools


@contextmanager
def transport_errors(path: str) -> Iterator[None]:
    """Turn what urllib3 raises into ``TransportError`` with a reason.

    Raises:
        TransportError: ``tls``, ``too_slow`` or ``unreachable``.
    """
    try:
        yield
    except errors.HTTPError as err:
        found = _transport_error(err)
        raise TransportError(f"{path}: {found}", found.reason) from err
    except (OSError, ValueError) as err:
        # What urllib3 does not wrap: an address that is none, a line that is too long.
        raise TransportError(f"{path}: {err}") from err


def _transport_error(error: errors.HTTPError) -> TransportError:
    """Return the error that names what failed: TLS, time, or the connection."""
    if isinstance(error, errors.ProxyError):
        return TransportError(f"update.proxy: {error.original_error}")
    if isinstance(error, errors.SSLError):
        inner = error.args[0] if error.args else error
        return tls_error(inner if isinstance(inner, ssl.SSLError) else error)
    if isinstance(error, errors.NewConnectionError):  # a kind of timeout to urllib3
        return TransportError(str(error))
    if isinstance(error, errors.TimeoutError):
        return TransportError(str(error), Reason.TOO_SLOW)
    return TransportError(str(error))
