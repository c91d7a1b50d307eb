"""How the log of receipts lies on a disk: segments, frames of checkpoints, roots.

Below one folder: ``log.json`` says whose it is; ``roots`` has ``ROOT_BYTES`` for each
full segment; a segment has up to three files: its ``records``, one after the other, its
``notes`` (checkpoints in frames) and its ``events`` (one line each).

The rules this module keeps:
 * A segment is a full subtree of the Merkle tree, so its root says all that is needed
   of it once its records are gone.
 * What was cut short by a loss of power is told from what is whole, wherever it ends.

Laws: ``parse_frames`` of joined frames gives them back; of any beginning of them it
gives those that are whole.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import Literal
from zlib import crc32

from msgspec import Struct as Message

from agent.core.merkle import HASH_BYTES
from agent.core.note import MAX_NOTE_BYTES
from agent.core.receipts import RECORD_BYTES

SEGMENT_LEVEL = 11
SEGMENT_RECORDS = 1 << SEGMENT_LEVEL
SEGMENT_BYTES = (
    SEGMENT_RECORDS * RECORD_BYTES
)  # 256 KB: a quarter of the smallest quota
ROOT = Struct(f">{HASH_BYTES}s{HASH_BYTES}s")  # of the subtree, and the chain after it
ROOT_BYTES = ROOT.size
ROOTS = "roots"
IDENTITY = "log.json"
SEALED_KEYS = "ratchet.sealed"
Kind = Literal["records", "notes", "events"]
KINDS: tuple[Kind, ...] = ("records", "notes", "events")
MAX_EVENT_BYTES = 2048
# CRC-32 of what follows, length of the note, epoch and MAC of the ratchet. The CRC is
# for the MAC's sake, which the owner alone can verify.
_FRAME = Struct(f">IIQ{HASH_BYTES}s")
_CRC_BYTES = 4


class LogIdentity(Message, frozen=True, forbid_unknown_fields=True):
    """Which log this is.

    Attributes:
        origin: Its name in checkpoints.
    """

    origin: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A checkpoint as it lies on the disk.

    Attributes:
        note: The signed note.
        epoch: Number of the ratchet's key that ``mac`` was made with; 0 without one.
    """

    note: bytes
    epoch: int = 0
    mac: bytes = bytes(HASH_BYTES)


def segment_of(size: int) -> int:
    """Return the segment in which a log of ``size`` records ends.

    A segment that is just full is the one: its last checkpoint belongs to it.

    >>> segment_of(0), segment_of(2048), segment_of(2049)
    (0, 0, 1)
    """
    return max(0, size - 1) >> SEGMENT_LEVEL


def file_of(segment: int, kind: Kind) -> str:
    """Return the name of a segment's file.

    >>> file_of(12, "records")
    '0000000012.records'
    """
    return f"{segment:010d}.{kind}"


def parse_file_name(name: str) -> tuple[int, str] | None:
    """Return segment and kind of a file, None for all others."""
    number, _, kind = name.partition(".")
    whole = len(number) == 10 and number.isascii() and number.isdigit()
    return (int(number), kind) if whole and kind in KINDS else None


def pack_frame(frame: Frame) -> bytes:
    """Return a frame's bytes."""
    packed = _FRAME.pack(0, len(frame.note), frame.epoch, frame.mac) + frame.note
    return crc32(packed[_CRC_BYTES:]).to_bytes(_CRC_BYTES, "big") + packed[_CRC_BYTES:]


def parse_frames(raw: bytes) -> list[Frame]:
    """Return the whole frames that ``raw`` begins with; what follows is none."""
    frames = []
    place = 0
    while place + _FRAME.size <= len(raw):
        crc, length, epoch, mac = _FRAME.unpack_from(raw, place)
        end = place + _FRAME.size + length
        if not 0 < length <= MAX_NOTE_BYTES or end > len(raw):
            break
        if crc32(raw[place + _CRC_BYTES : end]) != crc:
            break
        frames.append(Frame(raw[place + _FRAME.size : end], epoch, mac))
        place = end
    return frames


def frames_bytes(frames: Sequence[Frame]) -> int:
    """Return how long frames are together."""
    return sum(_FRAME.size + len(frame.note) for frame in frames)


def pack_event_line(seq: int, event: bytes) -> bytes:
    """Return the line that says an event beside its record."""
    return b"%d %s\n" % (seq, event)


def parse_event_lines(raw: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield seq, event and where its line ends; up to the first that is not whole."""
    place = 0
    while (end := raw.find(b"\n", place)) >= 0:
        seq, space, event = raw[place:end].partition(b" ")
        if not space or not seq.isdigit() or len(seq) > 19:
            return
        place = end + 1
        yield int(seq), event, place


def pack_sealed_key(epoch: int, sealed: bytes) -> bytes:
    """Return the line of a ratchet's first key, sealed to the owner."""
    check = sha256(b"%d " % epoch + sealed).hexdigest()[:16]
    return b"%d %s %s\n" % (epoch, b64encode(sealed), check.encode())


def parse_sealed_keys(raw: bytes) -> dict[int, bytes]:
    """Return the sealed first keys by the epoch that each begins with.

    Raises:
        ValueError: A line is not what was written.
    """
    keys: dict[int, bytes] = {}
    for line in raw.splitlines(keepends=True):
        number, _, rest = line.partition(b" ")
        sealed = b64decode(rest.partition(b" ")[0], validate=True)
        keys[int(number)] = sealed
        if pack_sealed_key(int(number), sealed) != line:
            raise ValueError("a sealed key that is not what was written")
    return keys
