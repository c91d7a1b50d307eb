"""What a board runs and where that came from over HTTP, signed by the board."""

import re

from agent.core.reasons import Reason
from agent.endpoint.asks import Ask
from agent.endpoint.needs import Statements
from agent.endpoint.problems import absent
from agent.endpoint.services import Services
from agent.endpoint.shapes import SignedStatements
from agent.errors import RequestRefusedError

_NONCE = re.compile(r"[A-Za-z0-9_.-]{0,128}", re.ASCII)


class Provenance:
    """Answers the requests about what runs."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def show(self, ask: Ask) -> SignedStatements:
        """Show a signed statement for every pipeline that runs something."""
        nonce = ask.request.query.get("nonce", "")
        if not _NONCE.fullmatch(nonce):
            raise RequestRefusedError(
                "`nonce` has to be 0 to 128 letters and digits", reason=Reason.REQUEST
            )
        return SignedStatements(await self.statements().provenance(nonce))

    def statements(self) -> Statements:
        """Return what makes statements.

        Raises:
            AbsentError: This board signs nothing.
        """
        if self._services.statements is None:
            raise absent(
                "this board has no key to sign statements with",
                "Run `tinyward identity init` on it, or set `audit.mode`.",
            )
        return self._services.statements
