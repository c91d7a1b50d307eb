"""Sealing against published answers, other tools and an implementation by hand."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.sealing import content_context
from agent.core.sealing_keys import PublicKey
from agent.errors import SettingsError
from agent.publish.encrypting import encrypt, wrap
from agent.trust.decrypting import BUFFER_BYTES, Decryption, Stream, decrypt
from agent.trust.seal_key import SealKey
from tests.fakes.by_hand import open_hpke, stream

# RFC 9180, appendix A.2.1: base mode, sequence number 0.
SK_R = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
PK_R = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
ENC = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
CONTENT = bytes.fromhex(
    "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db"
    "21993c62ce81883d2dd1b51a28"
)
# What age 1.1.1 made of 70,000 bytes that count to 250 and begin anew.
AGE_KEY = bytes.fromhex("b830337010f3c34691143d5a1d175459")
AGE_SALT = bytes.fromhex("0bbe53fd663268b22667446030dc2c76")
AGE_SHA256 = "d425124f0995cfa749a04846f558b5b81d3027cf3978b344c99bf356e9c183cb"
AGE_PLAIN = bytes(at % 251 for at in range(70_000))
# Made by cryptography 50.0.2: boards have to open it for as long as they live.
COBBLESTONE = bytes.fromhex(
    "88d121b85d2d0ded60b2f75ea415e7885490521691c6ad7cf25278fa1f41c86a564c85cc3fc7"
    "246c62f3b8e78bdf048e253f9710c16071f67f649fcedd2b815dfd802f3a8c83a8ec428d2929"
    "7147"
)


def plain_of(decryption: Decryption) -> bytes:
    """Return everything that comes out of a decryption."""
    with memoryview(bytearray(BUFFER_BYTES)) as view:
        return b"".join(bytes(view[:size]) for _, size in decryption.into(view))


def test_hpke_by_hand_agrees_with_the_rfc() -> None:
    """The implementation that ours is compared with opens the published vector."""
    opened = open_hpke(ENC + CONTENT, SK_R, INFO, b"Count-0")
    assert opened == b"Beauty is truth, truth beauty"
    assert SealKey("x25519", SK_R).public("pi").raw == PK_R


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100), st.binary())
def test_envelopes_are_hpke_as_the_rfc_says(
    private: bytes, info: bytes, held: bytes
) -> None:
    """What the publisher wraps, the implementation by hand opens; and so do boards."""
    key = SealKey("x25519", private)
    envelope = wrap(held, key.public("pi"), info)
    assert held == open_hpke(envelope, private, info)
    assert held == key.unwrap(envelope, info)
    assert len(held) + 32 + 16 == len(envelope)


def test_the_stream_is_the_payload_of_age() -> None:
    """Bytes that age itself made open; by hand they come out as age made them."""
    sealed = stream(AGE_PLAIN, AGE_KEY, AGE_SALT, b"payload")
    assert sha256(sealed).hexdigest() == AGE_SHA256
    opened = plain_of(Stream(memoryview(sealed), AGE_KEY, b"payload"))
    assert opened == AGE_PLAIN


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_000])
def test_both_ends_spell_the_stream_as_by_hand(size: int) -> None:
    """The publisher's bytes, by hand from its salt; the same content at the board."""
    plain, key, context = AGE_PLAIN * 3, bytes(range(32)), b"context"
    plain = plain[:size]
    sealed = b"".join(encrypt("chacha20-poly1305", memoryview(plain), key, context))
    assert sealed == stream(plain, key, sealed[:16], context)
    decryption = decrypt("chacha20-poly1305", memoryview(sealed), key, context)
    assert plain_of(decryption) == plain


def test_what_was_sealed_once_opens_for_ever() -> None:
    """A frozen ciphertext of Cobblestone-256, bound to its target."""
    key, context = bytes(range(32)), content_context("models/kws/8.bundle", 8)
    opened = decrypt("cobblestone-256", memoryview(COBBLESTONE), key, context)
    assert plain_of(opened) == b"beauty"


def test_a_key_of_small_order_is_refused() -> None:
    """Its secret would be known to all: no envelope is made for it."""
    with pytest.raises(SettingsError, match="cannot be used"):
        wrap(bytes(32), PublicKey("x25519", bytes(32), "pi"), b"")
