"""The board's own certificate over HTTP: shown, signed again, installed."""

import asyncio

from agent.endpoint.asks import Ask
from agent.endpoint.bodies import read_body
from agent.endpoint.needs import Identity
from agent.endpoint.problems import absent
from agent.endpoint.services import Services
from agent.endpoint.shapes import Certificate, CertificateAndRequest


class Certificates:
    """Answers the requests about the board's identity."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self, ask: Ask) -> CertificateAndRequest:
        """Show the certificate, and a request to have its successor signed."""
        del ask
        identity = self._identity()
        certificate = await asyncio.to_thread(identity.describe)
        pem = await asyncio.to_thread(identity.request)
        return CertificateAndRequest(certificate, pem.decode("ascii"))

    async def install(self, ask: Ask) -> Certificate:
        """Replace the certificate; the next handshake shows the new one."""
        identity = self._identity()
        await asyncio.to_thread(identity.install, await read_body(ask.request))
        return Certificate(await asyncio.to_thread(identity.describe))

    def _identity(self) -> Identity:
        """Return the board's identity.

        Raises:
            AbsentError: It has none.
        """
        if self._services.identity is None:
            raise absent(
                "this board has no identity", "Run `tinyward identity init` on it."
            )
        return self._services.identity
