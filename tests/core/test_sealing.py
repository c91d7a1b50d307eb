"""Names and lengths of sealed bundles, and the line of a public key."""

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.sealing import hpke_context, stream_nonce
from agent.core.sealing_keys import (
    PUBLIC_BYTES,
    PublicKey,
    parse_public_key,
    render_public_key,
)
from agent.errors import SettingsError

BOARDS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


@st.composite
def public_keys(draw: st.DrawFn) -> PublicKey:
    """Draw a key of any suite."""
    suite = draw(st.sampled_from(sorted(PUBLIC_BYTES)))
    size = PUBLIC_BYTES[suite]
    raw = draw(st.binary(min_size=size, max_size=size))
    return PublicKey(suite, raw, draw(BOARDS), aes=draw(st.booleans()))


@given(public_keys())
def test_a_public_line_says_all_of_a_key(key: PublicKey) -> None:
    """``parse_public_key(render_public_key(key)) == key``, however its line ends."""
    line = render_public_key(key)
    assert parse_public_key(line) == key
    assert parse_public_key(f"{line}\r\n") == key
    assert "\n" not in line


@given(
    st.text(max_size=3000) | st.binary(max_size=3000).map(lambda it: it.decode("latin"))
)
def test_any_text_is_a_key_or_refused(text: str) -> None:
    """Nothing but ``SettingsError`` leaves the parser."""
    with suppress(SettingsError):
        parse_public_key(text)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "tinyward-x25519",
        f"tinyward-x25519 {base64.b64encode(bytes(31)).decode()} pi-1",
        f"tinyward-x25519 {base64.b64encode(bytes(32)).decode()}",
        f"tinyward-x25519 {base64.b64encode(bytes(32)).decode()} ../pi",
        f"tinyward-x25519 {base64.b64encode(bytes(32)).decode()} pi-1 fast",
        f"tinyward-x25519 {base64.b64encode(bytes(32)).decode()} pi-1 aes aes",
        f"tinyward-mlkem768-x25519 {base64.b64encode(bytes(32)).decode()} pi-1",
        f"x25519 {base64.b64encode(bytes(32)).decode()} pi-1",
        f"tinyward-x25519 {base64.b64encode(bytes(32)).decode()[:-2]}!= pi-1",
        f"tinyward-secret-x25519 {base64.b64encode(bytes(32)).decode()} pi-1",
    ],
)
def test_other_lines_are_no_keys(line: str) -> None:
    """Half a line, a key of another length, an id that is a path, a private key."""
    with pytest.raises(SettingsError, match="not a public key"):
        parse_public_key(line)


@given(BOARDS, st.integers(1, 2**31 - 1), BOARDS, st.integers(1, 2**31 - 1))
def test_an_envelope_is_bound_to_one_board_and_version(
    board: str, version: int, other: str, higher: int
) -> None:
    """Two boards or two versions never share a context: no name holds a separator."""
    target, their_target = f"models/kws/{version}.bundle", f"models/kws/{higher}.bundle"
    same = (board, version) == (other, higher)
    ours = hpke_context(board, target, version)
    assert (ours == hpke_context(other, their_target, higher)) == same


CHUNKS = st.tuples(st.integers(0, 2**40), st.booleans())


@given(CHUNKS, CHUNKS)
def test_no_two_chunks_share_a_nonce(
    one: tuple[int, bool], other: tuple[int, bool]
) -> None:
    """A nonce tells a chunk's number, and whether it is the last."""
    nonces = [stream_nonce(number, last=last) for number, last in (one, other)]
    assert (one == other) == (nonces[0] == nonces[1])
