"""Challenges: the owner of marks asks a board which copy it runs, from afar.

A challenge is a DSSE envelope, signed by the key that the bundle's signed field
``sealed.marks`` names: whoever sends triggers without that key is refused before
anything is answered. Its payload is a container of ``challenge.json`` and
``inputs.npy``, inputs as the model stores them. The answer is a DSSE envelope, too,
signed by the board.

The rules this module keeps:
 * Parsing raises ``BundleRefusedError`` only, for any bytes, and looks at no input.
 * A challenge is for one board, one version and one session of that board: to another,
   or after it, it says nothing. No clock is needed for that.
 * Law: ``parse_challenge(render_challenge(c)) == c``.
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from agent.core.container import parse_container, render_container
from agent.core.dsse import parse_strictly
from agent.core.manifest import Digest, ModelName, ModelVersion, Name
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

CHALLENGE_TYPE = "application/vnd.tinyward.challenge"
ANSWERS_TYPE = "application/vnd.tinyward.answers+json"
MAX_INPUTS = 256  # both halves of a mark: 128 activation bits and 128 of the owner's
# 128 colour images of 96 x 96 take 3.5 MB; of larger ones several challenges are sent.
MAX_CHALLENGE_BYTES = 6 * 1024 * 1024
ORDER_ENTRY, INPUTS_ENTRY = "challenge.json", "inputs.npy"
MAX_ORDER_BYTES = 4096

Nonce = Annotated[str, Meta(pattern=r"^[0-9a-f]{32,128}$(?!\n)")]


class ChallengeOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """What a challenge asks, beside its inputs.

    Attributes:
        board: Whom; ``pipeline`` what runs there.
        model: What is expected to run; ``version`` and ``variant`` likewise: the inputs
            are its.
        nonce: Random, and never used again.
        session: The board's own, as its statement of what runs says it; empty is none.
    """

    board: Annotated[str, Meta(max_length=128)]
    pipeline: Name
    model: ModelName
    version: ModelVersion
    variant: Name
    nonce: Nonce
    session: Annotated[str, Meta(max_length=64)]


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge.

    Attributes:
        inputs: An .npy of (n, *shape of the input), as the model stores them.
    """

    order: ChallengeOrder
    inputs: bytes


class ChallengeAnswers(Struct, frozen=True, forbid_unknown_fields=True):
    """What a board answers, signed.

    Attributes:
        board: Who answers, with what its ``pipeline`` runs.
        nonce: Of the challenge.
        variant: Which variant of the model; ``sha256`` the digest of its bytes.
        executor: What computed; the one that answers live samples.
        inputs_sha256: Digest of the inputs that were answered.
        classes: The most likely class of each input, in their order.
    """

    board: str
    pipeline: str
    nonce: Nonce
    model: ModelName
    version: ModelVersion
    variant: Name
    sha256: Digest
    executor: str
    inputs_sha256: Digest
    classes: Annotated[tuple[int, ...], Meta(max_length=MAX_INPUTS)]


def render_challenge(challenge: Challenge) -> bytes:
    """Return the payload of a challenge."""
    order = msgspec.json.encode(challenge.order)
    return render_container({ORDER_ENTRY: order, INPUTS_ENTRY: challenge.inputs})


def parse_challenge(payload: bytes) -> Challenge:
    """Parse the payload of a challenge; who sent it has to be verified yet.

    Raises:
        BundleRefusedError: ``malformed``, ``truncated``, ``too_large`` or ``request``.
    """
    entries = parse_container(memoryview(payload))
    if entries.keys() != {ORDER_ENTRY, INPUTS_ENTRY}:
        raise _unclear("it holds other entries than a challenge does")
    raw = bytes(entries[ORDER_ENTRY][: MAX_ORDER_BYTES + 1])
    if len(raw) > MAX_ORDER_BYTES:
        raise _unclear(f"{ORDER_ENTRY} has more than {MAX_ORDER_BYTES} bytes")
    try:
        order = msgspec.convert(parse_strictly(raw), ChallengeOrder)
    except (ValueError, msgspec.ValidationError) as err:
        raise _unclear(str(err)) from err
    return Challenge(order, bytes(entries[INPUTS_ENTRY]))


def name_inputs(variant: str, inputs: bytes) -> bytes:
    """Return inputs as an asked child reads them: an .npz, by the variant's name."""
    return render_container({f"{variant}.npy": inputs})


def parse_answers(payload: bytes) -> ChallengeAnswers:
    """Parse the payload of a board's answer, whose signature was verified.

    Raises:
        BundleRefusedError: ``request``.
    """
    try:
        return msgspec.convert(parse_strictly(payload), ChallengeAnswers)
    except (ValueError, msgspec.ValidationError) as err:
        raise _unclear(str(err)) from err


def _unclear(what: str) -> BundleRefusedError:
    """Return the error for a challenge, or an answer, that makes no sense."""
    return BundleRefusedError(f"challenge: {what}", reason=Reason.REQUEST)
