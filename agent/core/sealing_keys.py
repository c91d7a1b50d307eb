"""Public keys for sealed models, as one line of text: what an owner seals to.

A line is ``tinyward-x25519 BASE64 BOARD`` or ``tinyward-mlkem768-x25519 BASE64 BOARD``,
with `` aes`` behind it where the board's CPU computes AES itself; nothing in it is
secret. Whether its bytes are a point that can be used is for the library to say that
uses them.
"""

import base64
import binascii
from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import Struct

from agent.core.reasons import Reason
from agent.core.sealing import Suite
from agent.core.targets import BoardId
from agent.errors import SettingsError

MAX_LINE_BYTES = 4096  # the hybrid one takes 1.7 kB
# Bytes of a public key: X25519's 32, after ML-KEM-768's 1184 in the hybrid one.
PUBLIC_BYTES: Mapping[Suite, int] = MappingProxyType(
    {"x25519": 32, "mlkem768-x25519": 1184 + 32}
)
# Bytes of what a KEM adds to an envelope.
KEM_BYTES: Mapping[Suite, int] = MappingProxyType(
    {"x25519": 32, "mlkem768-x25519": 1088 + 32}
)
_PREFIX, _AES = "tinyward-", "aes"


class PublicKey(Struct, frozen=True):
    """A board's public key for sealed models.

    Attributes:
        suite: How content keys are wrapped for it.
        raw: Its bytes; ML-KEM's before X25519's.
        board: Whose it is.
        aes: It decrypts Cobblestone-256 faster than ChaCha20-Poly1305.
    """

    suite: Suite
    raw: bytes
    board: str
    aes: bool = False


def parse_public_key(text: str) -> PublicKey:
    """Parse the line of a .pub file.

    Law: ``parse_public_key(render_public_key(key)) == key``.

    Raises:
        SettingsError: It is no such line.
    """
    words = text.strip().split(" ") if len(text) <= MAX_LINE_BYTES else []
    if len(words) not in (3, 4) or words[3:] not in ([], [_AES]):
        raise _no_key("it has not the words KIND BASE64 BOARD")
    kind, encoded, board = words[:3]
    try:
        suite = msgspec.convert(kind.removeprefix(_PREFIX), Suite)
        raw = base64.b64decode(encoded, validate=True)
        msgspec.convert(board, BoardId)
    except (ValueError, binascii.Error) as err:  # msgspec's errors are ValueErrors
        raise _no_key(str(err)) from err
    if not kind.startswith(_PREFIX) or len(raw) != PUBLIC_BYTES[suite]:
        raise _no_key(f"{kind!r} with a key of {len(raw)} bytes")
    return PublicKey(suite, raw, board, aes=words[3:] == [_AES])


def render_public_key(key: PublicKey) -> str:
    """Return the line of a .pub file, without its end.

    >>> render_public_key(PublicKey("x25519", bytes(32), "pi-1"))
    'tinyward-x25519 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= pi-1'
    """
    encoded = base64.b64encode(key.raw).decode()
    return " ".join([f"{_PREFIX}{key.suite}", encoded, key.board, *[_AES] * key.aes])


def _no_key(what: str) -> SettingsError:
    """Return the error for a text that is no public key."""
    return SettingsError(
        f"not a public key for sealed models: {what}",
        reason=Reason.SETTINGS,
        todo="`tinyward identity seal` prints the line on the board.",
    )
