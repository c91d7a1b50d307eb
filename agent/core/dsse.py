"""DSSE: an envelope that says what was signed, of which type, and by which keys.

The rules this module keeps:
 * ``parse_envelope`` raises ``BundleRefusedError`` only, for any bytes, and believes no
   signature: who verifies does so over ``encode_signed``, never over the JSON.
 * Law: ``parse_envelope(render_envelope(e)) == e``.

Source: DSSE 1.0.2 (github.com/secure-systems-lab/dsse), protocol.md and envelope.md.
"""

import json
from base64 import b64decode, b64encode
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from agent.core.manifest import no_constants, unique_keys
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

MAX_SIGNATURES = 16
# What base64 adds, and room for the rest.
GROWTH, REST_BYTES = 4 / 3, 16 * 1024
# "Either standard or URL-safe encoding is allowed" (envelope.md).
_STANDARD = str.maketrans("-_", "+/")
Type = Annotated[str, Meta(min_length=1, max_length=200)]
KeyId = Annotated[str, Meta(max_length=200)]


class Signature(Struct, frozen=True):
    """One signature; ``keyid`` is a hint and proves nothing."""

    sig: bytes
    keyid: KeyId = ""


class Envelope(Struct, frozen=True):
    """A payload of a type, and who signed it."""

    payload: bytes
    payload_type: Type
    signatures: tuple[Signature, ...]


class _WireSignature(Struct, frozen=True):
    """A signature as it is spelt; members we do not know are ignored."""

    sig: Annotated[str, Meta(max_length=2048)]
    keyid: KeyId = ""


class _Wire(Struct, frozen=True, rename="camel"):
    """An envelope as it is spelt; members we do not know are ignored."""

    payload: str
    payload_type: Type
    signatures: Annotated[
        tuple[_WireSignature, ...], Meta(min_length=1, max_length=MAX_SIGNATURES)
    ]


def encode_signed(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: the pre-authentication encoding (PAE).

    >>> encode_signed("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def render_envelope(envelope: Envelope) -> bytes:
    """Return an envelope as JSON."""
    return msgspec.json.encode(envelope_json(envelope))


def envelope_json(envelope: Envelope) -> dict[str, object]:
    """Return an envelope as JSON's own values, to stand inside of other JSON."""
    return {
        "payload": b64encode(envelope.payload).decode(),
        "payloadType": envelope.payload_type,
        "signatures": [
            {"keyid": it.keyid, "sig": b64encode(it.sig).decode()}
            for it in envelope.signatures
        ],
    }


def parse_envelope(
    raw: bytes, max_payload_bytes: int, refuse: Reason = Reason.MALFORMED
) -> Envelope:
    """Parse an envelope.

    Args:
        raw: Its JSON.
        max_payload_bytes: What its payload may have.
        refuse: The reason where it makes no sense.

    Raises:
        BundleRefusedError: ``too_large``, or what ``refuse`` says.
    """
    if len(raw) > max_payload_bytes * GROWTH + REST_BYTES:
        what = f"an envelope of {len(raw)} bytes"
        raise BundleRefusedError(what, reason=Reason.TOO_LARGE)
    try:
        wire = msgspec.json.decode(raw, type=_Wire)
        return Envelope(
            _decode(wire.payload),
            wire.payload_type,
            tuple(Signature(_decode(it.sig), it.keyid) for it in wire.signatures),
        )
    except (ValueError, msgspec.MsgspecError, RecursionError) as err:
        raise BundleRefusedError(f"no DSSE envelope: {err}", reason=refuse) from err


def parse_strictly(raw: bytes) -> object:
    """Return JSON's values; a key that stands twice, NaN and infinity are refused.

    Raises:
        ValueError: It is no such JSON.
    """
    try:
        return json.loads(
            raw.decode(), object_pairs_hook=unique_keys, parse_constant=no_constants
        )
    except RecursionError as err:
        raise ValueError("nested too deeply") from err


def _decode(text: str) -> bytes:
    """Return the bytes of base64 in either alphabet.

    Raises:
        ValueError: It is none.
    """
    return b64decode(text.translate(_STANDARD), validate=True)
