"""Asking a board, from afar, which copy of a marked model it runs.

The rules this module keeps:
 * What the board answers is believed only where it is signed by its own key, for the
   nonce of this very challenge, about the inputs that were sent.
"""

import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from agent.cli.board_link import BoardLink
from agent.core.challenge import (
    ANSWERS_TYPE,
    CHALLENGE_TYPE,
    Challenge,
    ChallengeAnswers,
    ChallengeOrder,
    parse_answers,
    render_challenge,
)
from agent.core.dsse import (
    Envelope,
    Signature,
    encode_signed,
    parse_envelope,
    render_envelope,
)
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from agent.trust.statements import PublicKey

PATH = "/v1/watermark/challenge"
MAX_ANSWERS_BYTES = 64 * 1024
NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Addressee:
    """Who is asked.

    Attributes:
        board: Its id; ``pipeline`` what runs there.
        model: What is expected to run; ``version`` and ``variant`` likewise, as
            ``/v1/provenance`` says it.
        key: The board's own public key; None believes any, and proves nothing.
        session: Of the board, as ``/v1/provenance`` says it.
    """

    board: str
    pipeline: str
    model: str
    version: int
    variant: str
    key: "PublicKey | None" = None
    session: str = ""


def challenge_board(
    link: BoardLink,
    addressee: Addressee,
    inputs: bytes,
    marks_key: "Ed25519PrivateKey",
) -> ChallengeAnswers:
    """Return what a board's copy answers to triggers.

    Args:
        link: To the board.
        addressee: Who has to answer.
        inputs: An .npy of (n, *shape of the input), as the model stores them; 256 and
            6 MB at most.
        marks_key: The private key of the signed field ``sealed.marks``.

    Raises:
        AgentError: The board cannot be asked, or refuses: ``signature``, ``role``,
            ``other_board``, ``rate_limited``...
        BundleRefusedError: ``signature``, ``replayed`` or ``request``: what came back
            is no answer to this.
    """
    nonce = secrets.token_hex(NONCE_BYTES)
    order = ChallengeOrder(
        addressee.board,
        addressee.pipeline,
        addressee.model,
        addressee.version,
        addressee.variant,
        nonce,
        addressee.session,
    )
    payload = render_challenge(Challenge(order, inputs))
    signature = marks_key.sign(encode_signed(CHALLENGE_TYPE, payload))
    asked = Envelope(payload, CHALLENGE_TYPE, (Signature(signature),))
    found = link.post(PATH, render_envelope(asked))
    answers = _believe(found, addressee.key)
    expected = (addressee.board, nonce, sha256(inputs).hexdigest())
    if (answers.board, answers.nonce, answers.inputs_sha256) != expected:
        what = "the board answers another challenge than was sent"
        todo = "Ask again; if it stays so, what answers is not that board."
        raise BundleRefusedError(what, reason=Reason.REPLAYED, todo=todo)
    return answers


def _believe(found: object, key: "PublicKey | None") -> ChallengeAnswers:
    """Return answers out of their envelope.

    Raises:
        BundleRefusedError: ``signature`` or ``request``.
    """
    raw = found.get("answers") if isinstance(found, dict) else None
    envelope = parse_envelope(
        msgspec.json.encode(raw), MAX_ANSWERS_BYTES, Reason.REQUEST
    )
    if envelope.payload_type != ANSWERS_TYPE:
        raise BundleRefusedError("these are no answers", reason=Reason.REQUEST)
    if key is not None:
        from agent.trust.statements import require_signature

        require_signature(envelope, key, "the answer")
    return parse_answers(envelope.payload)
