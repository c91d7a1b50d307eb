"""HTTP to the one DDI server that the settings name."""

import ssl
from collections.abc import Callable, Mapping

from agent.update.ddi_needs import Answer


class HttpWire:
    """Speaks HTTP with the server; implements ``Wire``."""

    def __init__(
        self,
        url: str,
        context: Callable[[], ssl.SSLContext | None],
        credentials: Callable[[], str],
    ) -> None:
        """Take the origin, and where its TLS context and our credentials come from.

        Args:
            url: ``fleet.ddi.url``.
            context: Returns the TLS context, the same one as long as nothing changed;
                None for plain HTTP to loopback. May raise ``DeviceError``.
            credentials: Returns the value of the header ``Authorization``
                (``TargetToken ...`` or ``GatewayToken ...``), or an empty string where
                a certificate is all there is. Asked for each request.
        """
        self._url = url
        self._context = context
        self._credentials = credentials

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
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of the connection."""
