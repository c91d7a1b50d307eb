"""Signed notes: the specification's example, what opens, and what never does."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.audit.key import verify_ed25519
from agent.core.note import (
    NoteKey,
    decode_base64,
    open_note,
    parse_key,
    render_key,
    sign_note,
    split_note,
)
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from tests.fakes.audit_logs import SOME_KEY, key_from, refusal

# A note and its key as sum.golang.org publishes them: signed by nobody here.
GO_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_NOTE = """go.sum database tree
1638581
L5tPdWLyLVSNPuD6CDtwjTcNoNoRUHvDMJBPdGeA8yI=

— sum.golang.org """ + (
    "Az3grpjVhYJD3YjM6uxjqJSrKjTCQDtOXDsUoPpgRkkiGTAaFHdHmc4DUVzdx2K9RfBmWMKRWfKQKoED"
    "Urcl3MuNOQ4=\n"
)
NAMES = st.text(
    st.characters(exclude_characters="+", exclude_categories=("C", "Z")), min_size=1
)
LINES = st.text(st.characters(exclude_categories=("Cc", "Cs"))).map(
    lambda it: f"{it}\n"
)


def test_the_key_of_a_public_log_has_its_id() -> None:
    """The id in sum.golang.org's verifier key is the one that is computed here."""
    key = parse_key(GO_KEY)
    assert (key.name, key.id.hex()) == ("sum.golang.org", "033de0ae")
    assert render_key(key) == GO_KEY


def test_a_public_logs_note_is_of_this_form() -> None:
    """Text and signature of a note that nobody here wrote come apart."""
    text, signatures = split_note(GO_NOTE.encode())
    assert text.split("\n")[0] == "go.sum database tree"
    assert [(name, raw[:4].hex()) for name, raw in signatures] == [
        ("sum.golang.org", "033de0ae")
    ]


@given(NAMES, LINES)
def test_what_was_signed_opens(name: str, text: str) -> None:
    """Law: open_note(sign_note(t)) == t, whatever the text and the name."""
    key = NoteKey(name, SOME_KEY.public)
    note = sign_note(text, key, SOME_KEY.sign)
    assert text == open_note(note.encode(), key, verify_ed25519)
    assert parse_key(render_key(key)) == key


@given(st.data())
def test_one_flipped_bit_and_it_does_not(data: st.DataObject) -> None:
    """Wherever a bit of a note is turned, it opens no more, or says the same."""
    key = SOME_KEY.named("tinyward/pi/00000000")
    note = sign_note("tinyward/pi/00000000\n7\n", key, SOME_KEY.sign).encode()
    at = data.draw(st.integers(0, len(note) - 1))
    spoilt = bytearray(note)
    spoilt[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BundleRefusedError) as caught:
        open_note(bytes(spoilt), key, verify_ed25519)
    assert caught.value.reason in (Reason.SIGNATURE, Reason.MALFORMED)


def test_signatures_of_strangers_are_passed_over() -> None:
    """A witness may sign below; its signature alone opens nothing."""
    ours, theirs = SOME_KEY, key_from(2)
    key, witness = ours.named("log"), theirs.named("witness")
    note = sign_note("a\n", key, ours.sign)
    line = sign_note("a\n", witness, theirs.sign).split("\n\n")[1]
    both = note + line
    assert open_note(both.encode(), key, verify_ed25519) == "a\n"
    assert open_note(both.encode(), witness, verify_ed25519) == "a\n"
    with pytest.raises(BundleRefusedError) as caught:
        open_note(note.encode(), witness, verify_ed25519)
    assert caught.value.reason == Reason.SIGNATURE


def test_a_bad_signature_of_a_known_key_condemns_the_note() -> None:
    """One that verifies beside one that does not is no excuse."""
    key = SOME_KEY.named("log")
    note = sign_note("a\n", key, SOME_KEY.sign)
    other = sign_note("b\n", key, SOME_KEY.sign).split("\n\n")[1]
    with pytest.raises(BundleRefusedError):
        open_note((note + other).encode(), key, verify_ed25519)


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_strange_bytes_are_malformed(raw: bytes) -> None:
    """Fuzz: notes, keys and base64 of strangers raise one error and no other."""
    for parse in (split_note, lambda it: parse_key(it.decode("latin-1"))):
        assert refusal(partial(parse, raw)) in ("", Reason.MALFORMED)


@pytest.mark.parametrize("text", ["a", "a\r\n", "a\x00\n", ""])
def test_what_no_note_can_say_is_not_signed(text: str) -> None:
    """Control characters, and texts that do not end with a newline."""
    with pytest.raises(ValueError, match="no text"):
        sign_note(text, SOME_KEY.named("log"), SOME_KEY.sign)


@pytest.mark.parametrize("text", ["YQ", "YR==", "YQ==\n", "Y Q==", "é"])
def test_base64_has_one_spelling(text: str) -> None:
    """Otherwise one signature would have several notes."""
    with pytest.raises(BundleRefusedError):
        decode_base64(text)
