"""Signed notes: the specification's example, what opens, and what never does."""

from base64 import b64decode
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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

# The example of the reference implementation (golang.org/x/mod/sumdb/note), whose key
# signs byte for byte alike everywhere.
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SEED = "KEY+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz".partition("+")[2]
TEXT = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.
"""
SIGNATURE = (
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6K"
    "E6RyyBwJnAM="
)
NAMES = st.text(
    st.characters(exclude_characters="+", exclude_categories=("C", "Z")), min_size=1
)
LINES = st.text(st.characters(exclude_categories=("Cc", "Cs"))).map(
    lambda it: f"{it}\n"
)


def test_the_reference_note_opens_and_is_signed_alike() -> None:
    """Text, key id and signature of the reference implementation, both ways."""
    key = parse_key(VKEY)
    assert render_key(key) == VKEY
    note = f"{TEXT}\n— PeterNeumann {SIGNATURE}\n"
    assert open_note(note.encode(), key, verify_ed25519) == TEXT
    private = Ed25519PrivateKey.from_private_bytes(b64decode(SEED)[1:])
    assert note == sign_note(TEXT, key, private.sign)
    with pytest.raises(BundleRefusedError):
        open_note(note.replace("crypto", "Crypto").encode(), key, verify_ed25519)


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
