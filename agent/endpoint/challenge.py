"""An owner's challenge over HTTP: triggers come in, signed classes go out.

Who may ask is decided twice: by the role of the certificate here, and by the key of
the model's marks behind ``Statements``. Nothing of what comes is logged or kept.
"""

from agent.core.challenge import MAX_CHALLENGE_BYTES
from agent.core.dsse import GROWTH, REST_BYTES
from agent.endpoint.asks import Ask
from agent.endpoint.bodies import read_body
from agent.endpoint.provenance import Provenance
from agent.endpoint.shapes import SignedAnswers

MAX_BODY_BYTES = int(MAX_CHALLENGE_BYTES * GROWTH) + REST_BYTES


class Challenges:
    """Answers challenges.

    Args:
        provenance: Knows what makes statements on this board.
    """

    def __init__(self, provenance: Provenance) -> None:
        self._provenance = provenance

    async def answer(self, ask: Ask) -> SignedAnswers:
        """Let a copy of what runs answer the inputs of the owner of its marks."""
        statements = self._provenance.statements()
        raw = await read_body(ask.request, MAX_BODY_BYTES)
        return SignedAnswers(await statements.challenge(raw, ask.operator))
