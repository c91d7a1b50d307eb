"""DSSE envelopes: the specification's example, and any bytes."""

import base64
import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as OracleEnvelope

from agent.core.dsse import (
    Envelope,
    Signature,
    encode_signed,
    envelope_json,
    parse_envelope,
    render_envelope,
)
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from tests.fakes.refusals import outcome

MAX = 4096
ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
types = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
envelopes = st.builds(
    Envelope,
    payload=st.binary(max_size=200),
    payload_type=types,
    signatures=st.lists(
        st.builds(Signature, sig=st.binary(max_size=80), keyid=ids),
        min_size=1,
        max_size=3,
        unique_by=lambda it: it.keyid,
    ).map(tuple),
)
GOOD = Envelope(b"hello world", "text/plain", (Signature(b"s" * 64, "k"),))


@given(envelopes)
def test_round_trip(envelope: Envelope) -> None:
    """``parse_envelope(render_envelope(e)) == e``."""
    assert parse_envelope(render_envelope(envelope), MAX) == envelope


@given(envelopes)
def test_another_library_reads_the_same(envelope: Envelope) -> None:
    """securesystemslib opens what we write, and signs the same bytes."""
    found = OracleEnvelope.from_dict(json.loads(json.dumps(envelope_json(envelope))))
    assert found.payload == envelope.payload
    assert found.pae() == encode_signed(envelope.payload_type, envelope.payload)
    assert {
        it.keyid: bytes.fromhex(it.signature) for it in found.signatures.values()
    } == {it.keyid: it.sig for it in envelope.signatures}


@given(types, types, st.binary(max_size=50), st.binary(max_size=50))
def test_no_two_payloads_are_signed_alike(
    kind: str, other: str, payload: bytes, another: bytes
) -> None:
    """What is signed says where the type ends and the payload begins."""
    same = encode_signed(kind, payload) == encode_signed(other, another)
    assert same == ((kind, payload) == (other, another))


@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_refused(raw: bytes) -> None:
    """There is one kind of error, whatever comes."""
    assert outcome(partial(parse_envelope, max_payload_bytes=MAX), raw) in {
        "",
        Reason.MALFORMED,
    }


def test_both_alphabets_of_base64_are_read() -> None:
    """Producers may use either, consumers have to accept both (envelope.md)."""
    payload = bytes(range(248, 256)) * 3
    tree = envelope_json(Envelope(payload, "x", GOOD.signatures))
    tree["payload"] = base64.urlsafe_b64encode(payload).decode()
    assert parse_envelope(json.dumps(tree).encode(), MAX).payload == payload


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": "a"},
        {"payload": "a b="},
        {"payload": 1},
        {"payloadType": ""},
        {"signatures": []},
        {"signatures": [{"sig": "%%"}]},
        {"signatures": [{"keyid": "k"}]},
        {"signatures": [{"sig": "AAAA"}] * 17},
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    """With the reason that the caller names."""
    raw = json.dumps({**envelope_json(GOOD), **changes}).encode()
    with pytest.raises(BundleRefusedError) as caught:
        parse_envelope(raw, MAX, Reason.PROVENANCE)
    assert caught.value.reason == Reason.PROVENANCE


def test_too_large() -> None:
    """A length is looked at before anything is decoded."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_envelope(b" " * 30_000, MAX)
    assert caught.value.reason == Reason.TOO_LARGE
