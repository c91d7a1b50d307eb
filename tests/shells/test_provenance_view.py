"""What ``tinyward provenance`` says: whose word a line is, and who has checked it."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.cli.provenance_view import Shown, of_bundle, show_lines, shown_running
from agent.core.dsse import Envelope, Signature, encode_signed, envelope_json
from agent.core.provenance import (
    PAYLOAD_TYPE,
    Running,
    read_origin,
    render_statement,
    state_running,
)
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from agent.trust.bundle import open_bundle
from agent.trust.statements import raw_ed25519, sign_by_text
from tests.fakes.bundles import MAX_BYTES, good_bundle, manifest
from tests.shells.test_origin import STATEMENT, signed

BOARD, OWNER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
GARBAGE = Envelope(STATEMENT, PAYLOAD_TYPE, (Signature(b"none at all", "QA dept"),))


def public(key: Ed25519PrivateKey) -> bytes:
    """Return the public half of a key."""
    return key.public_key().public_bytes_raw()


def told(
    origin: bytes,
    *,
    packed: str = "",
    trouble: str = "",
    origin_key: Ed25519PrivateKey | None = None,
) -> Shown:
    """Return what the owner's side takes of a board's statement, verified."""
    said = Running(
        *("pi-7", "door", "kws", 7, "int8"),
        packed=packed or manifest().variants[0].sha256,
        executor="litert",
        bundle="3" * 64,
        copy="",
        verified_at=1.0,
        said_at=2.0,
        nonce="once",
        origin=read_origin(origin),
        origin_trouble=trouble,
    )
    payload = render_statement(state_running("4" * 64, said))
    envelope = sign_by_text(BOARD.sign, public(BOARD), PAYLOAD_TYPE, payload)
    whose = None if origin_key is None else raw_ed25519(public(origin_key))
    key = raw_ed25519(public(BOARD))
    return shown_running("door", envelope_json(envelope), "once", key, whose)


def lines(shown: Shown) -> list[str]:
    """Return the rows about signatures and the origin, without the blanks."""
    rows = [" ".join(it.split()) for it in show_lines([shown], verified=True)]
    return [it for it in rows if it.startswith(("signed", "origin"))]


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (
            envelope_json(GARBAGE),
            "by QA dept, NOT checked: name the key with --origin-",
        ),
        (
            json.loads(signed(OWNER)),
            "by an unnamed key, NOT checked: name the key with",
        ),
        (json.loads(STATEMENT), "no"),
    ],
)
def test_a_boards_word_vouches_for_no_one_elses(origin: object, said: str) -> None:
    """What the bundle says is not verified because the board has signed its own."""
    board, bundle = lines(told(json.dumps(origin).encode()))
    assert board == "signed the board's statement: yes, verified"
    assert bundle.startswith(f"signed what the bundle says: {said}")


def test_an_origin_is_verified_by_its_own_key() -> None:
    """By nobody else's, and not where nobody has signed it."""
    shown = told(signed(OWNER), origin_key=OWNER)
    assert lines(shown)[1] == "signed what the bundle says: yes, verified"
    for origin in (signed(BOARD), STATEMENT, json.dumps(envelope_json(GARBAGE)), b""):
        raw = origin.encode() if isinstance(origin, str) else origin
        with pytest.raises(BundleRefusedError) as caught:
            told(raw, origin_key=OWNER)
        assert caught.value.reason == Reason.SIGNATURE


def test_what_makes_no_sense_is_not_called_silence() -> None:
    """The board has left it out, and says why."""
    assert lines(told(b"", trouble="provenance"))[1:] == [
        "origin what the bundle says makes no sense [provenance]"
    ]
    assert lines(told(b""))[1:] == ["origin the bundle does not say"]


def test_what_runs_is_compared_with_a_bundle() -> None:
    """By what was packed: names do not count, and nothing of it is an error."""
    bundle = open_bundle(good_bundle(), max_bytes=MAX_BYTES)
    mine, other = told(b""), told(b"", packed="5" * 64)
    assert of_bundle([other, mine], bundle, "kws.bundle") == [mine]
    with pytest.raises(BundleRefusedError) as caught:
        of_bundle([other], bundle, "kws.bundle")
    assert caught.value.reason == Reason.MISMATCH


def test_the_encoding_that_is_signed_is_not_the_json() -> None:
    """An envelope whose signature is over the payload alone is not believed."""
    bare = Envelope(STATEMENT, PAYLOAD_TYPE, (Signature(OWNER.sign(STATEMENT)),))
    right = OWNER.sign(encode_signed(PAYLOAD_TYPE, STATEMENT))
    good = Envelope(STATEMENT, PAYLOAD_TYPE, (Signature(right),))
    assert told(json.dumps(envelope_json(good)).encode(), origin_key=OWNER).origin
    with pytest.raises(BundleRefusedError):
        told(json.dumps(envelope_json(bare)).encode(), origin_key=OWNER)
