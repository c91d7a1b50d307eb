"""Signed notes: a text, and lines that say who signed it.

The rules this module keeps:
 * It knows no cryptography but hashes: who signs, and who verifies, is passed in.
 * Signatures of unknown keys are passed over; one of a known key that does not verify
   condemns the whole note.
 * Nothing of a note is returned before a signature was verified.

Law: a note that was signed opens with its key, and with no other text.

Source: C2SP signed-note v1.0.0.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

ED25519 = b"\x01"  # the type of signature that the specification gives this byte
KEY_BYTES, SIGNATURE_BYTES, ID_BYTES = 32, 64, 4
MAX_NOTE_BYTES = 16_384
MAX_SIGNATURES = 16
DASH = "— "

Sign = Callable[[bytes], bytes]
Verify = Callable[[bytes, bytes, bytes], bool]  # public key, signature, text


@dataclass(frozen=True, slots=True)
class NoteKey:
    """Whose signature a note bears.

    Attributes:
        name: Of the signer; of a log its origin.
        public: Raw Ed25519 public key.
    """

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that stand before a signature."""
        return sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[
            :ID_BYTES
        ]


def render_key(key: NoteKey) -> str:
    """Return a verifier key: ``name+id+key``, as tools for transparency logs take it.

    Law: ``parse_key(render_key(key)) == key``.
    """
    encoded = b64encode(ED25519 + key.public).decode()
    return f"{key.name}+{key.id.hex()}+{encoded}"


def parse_key(text: str) -> NoteKey:
    """Parse a verifier key.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    name, _, rest = text.strip().partition("+")
    told, _, encoded = rest.partition("+")
    raw = decode_base64(encoded)
    key = NoteKey(name, raw[1:])
    good = raw[:1] == ED25519 and len(key.public) == KEY_BYTES and is_name(name)
    if not good or told != key.id.hex():
        raise malformed("not a verifier key (name+id+key)")
    return key


def sign_note(text: str, key: NoteKey, sign: Sign) -> str:
    """Return a text with a signature.

    Raises:
        ValueError: The text does not end with a newline, or holds control characters.
    """
    if not text.endswith("\n") or _has_controls(text):
        raise ValueError("no text for a note")
    signature = b64encode(key.id + sign(text.encode())).decode()
    return f"{text}\n{DASH}{key.name} {signature}\n"


def split_note(raw: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Return a note's text and its signatures (name, id and signature), unverified.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    try:
        note = raw.decode("utf-8")
    except UnicodeDecodeError as err:
        raise malformed("a note that is no UTF-8") from err
    text, blank, tail = note.rpartition("\n\n")
    if len(raw) > MAX_NOTE_BYTES or _has_controls(note) or not blank:
        raise malformed("no signed note")
    lines = tail.split("\n")
    if lines.pop() != "" or not 0 < len(lines) <= MAX_SIGNATURES:
        raise malformed("a note without whole lines of signatures")
    return text + "\n", [_parse_signature(line) for line in lines]


def open_note(raw: bytes, key: NoteKey, verify: Verify) -> str:
    """Return the text of a note that ``key`` signed.

    Raises:
        BundleRefusedError: ``malformed``; ``signature``.
    """
    text, signatures = split_note(raw)
    ours = [
        it for name, it in signatures if (name, it[:ID_BYTES]) == (key.name, key.id)
    ]
    if not ours:
        raise unsigned(f"no signature of {key.name}")
    for signature in ours:
        if not verify(key.public, signature[ID_BYTES:], text.encode()):
            raise unsigned(f"the signature of {key.name} does not verify")
    return text


def is_name(name: str) -> bool:
    """Whether a key may be called so."""
    return bool(name) and "+" not in name and not any(it.isspace() for it in name)


def decode_base64(text: str) -> bytes:
    """Decode strict base64.

    Raises:
        BundleRefusedError: ``malformed``: it is none, or not the one way to write it.
    """
    try:
        raw = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise malformed("no base64") from err
    # Left-over bits that are not zero would give one signature many spellings.
    if b64encode(raw).decode() != text:
        raise malformed("base64 that is not canonical")
    return raw


def malformed(what: str) -> BundleRefusedError:
    """Return the error for bytes that are not of their format."""
    return BundleRefusedError(what, reason=Reason.MALFORMED)


def unsigned(what: str) -> BundleRefusedError:
    """Return the error for what nobody we know has signed."""
    return BundleRefusedError(
        what,
        reason=Reason.SIGNATURE,
        todo="Name the verifier key of this very board, as `tinyward audit key` there "
        "prints it; if it was that one, this is not what the board signed.",
    )


def _parse_signature(line: str) -> tuple[str, bytes]:
    """Parse one line of a signature."""
    if not line.startswith(DASH):
        raise malformed("a line of a signature begins with an em dash")
    name, _, encoded = line.removeprefix(DASH).partition(" ")
    signature = decode_base64(encoded)
    if not is_name(name) or len(signature) <= ID_BYTES:
        raise malformed("a line of a signature has a name and base64")
    return name, signature


def _has_controls(text: str) -> bool:
    """Whether there are ASCII control characters other than newlines."""
    return any(it < " " and it != "\n" for it in text)
