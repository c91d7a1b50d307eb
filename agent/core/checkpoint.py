"""Checkpoints of a board's log: its size and root, and what else a board says of it.

The first three lines are those of any transparency log; what follows them are ours,
``word value`` each, which generic readers pass over.

Law: ``parse_checkpoint(render_checkpoint(c)) == c``.

Source: C2SP tlog-checkpoint.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.merkle import EMPTY_ROOT, HASH_BYTES
from agent.core.note import decode_base64, is_name, malformed

MAX_SIZE = 2**63
MAX_LINES = 32
NO_HEAD = bytes(HASH_BYTES)  # the chain before the first record
SCHEME = "tinyward"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a board says about its log at one moment.

    Attributes:
        origin: Which log of which board; see ``origin_of``.
        size: Records in it.
        root: RFC 6962 root over them.
        head: SHA-256 chain over them: head' = SHA-256(head || record).
        inferences: Records that are no events.
        lost: Records that were made and are not in the log, by all that is known.
        starts: How often the log was opened.
        boot: The kernel's boot id.
        monotonic_ns: CLOCK_MONOTONIC of this boot when it was signed.
        time_s: Unix seconds by the board's clock, which may be wrong.
        runtime: What answers: engines and their versions, hashed.
        gaps: Starts before which answers may have been given that have no receipt and
            that nobody can count: a loss of power. Said where there are any.
    """

    origin: str
    size: int
    root: bytes
    head: bytes
    inferences: int = 0
    lost: int = 0
    starts: int = 0
    boot: str = "-"
    monotonic_ns: int = 0
    time_s: int = 0
    runtime: str = "-"
    gaps: int = 0


def origin_of(board: str, log: str) -> str:
    """Return what a log is called: of whom, and which; a new one is another.

    >>> origin_of("pi-0042", "5d3a9c01")
    'tinyward/pi-0042/5d3a9c01'
    """
    return f"{SCHEME}/{board}/{log}"


def board_of(origin: str) -> str:
    """Return whose log it is; empty for logs of others."""
    parts = origin.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == SCHEME else ""


def say_starts(checkpoint: Checkpoint) -> str:
    """Say how often a log was opened, and after which of these nobody can know.

    >>> say_starts(Checkpoint("log", 0, EMPTY_ROOT, NO_HEAD, starts=3, gaps=1))
    '3, 1 of them after a loss of power: the last moments before may be missing'
    """
    if not checkpoint.gaps:
        return str(checkpoint.starts)
    said = f"{checkpoint.starts}, {checkpoint.gaps} of them after a loss of power"
    return f"{said}: the last moments before may be missing"


def render_checkpoint(checkpoint: Checkpoint) -> str:
    """Return the text that is signed."""
    lines = [
        checkpoint.origin,
        str(checkpoint.size),
        b64encode(checkpoint.root).decode(),
        f"head {b64encode(checkpoint.head).decode()}",
        f"inferences {checkpoint.inferences}",
        f"lost {checkpoint.lost}",
        f"starts {checkpoint.starts}",
        f"boot {checkpoint.boot}",
        f"monotonic {checkpoint.monotonic_ns}",
        f"time {checkpoint.time_s}",
        f"runtime {checkpoint.runtime}",
    ]
    if checkpoint.gaps:
        lines.append(f"gaps {checkpoint.gaps}")
    return "".join(f"{line}\n" for line in lines)


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the text of a checkpoint; lines of unknown words are passed over.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    lines = text.split("\n")
    if lines.pop() != "" or not 3 <= len(lines) <= MAX_LINES or "" in lines:
        raise malformed("a checkpoint has three lines at least, none of them empty")
    said = _parse_words(lines[3:])
    size = parse_decimal(lines[1])
    checkpoint = Checkpoint(
        origin=lines[0],
        size=size,
        root=_digest(lines[2]),
        head=_digest(said["head"]) if "head" in said else NO_HEAD,
        inferences=parse_decimal(said.get("inferences", "0")),
        lost=parse_decimal(said.get("lost", "0")),
        starts=parse_decimal(said.get("starts", "0")),
        boot=said.get("boot", "-"),
        monotonic_ns=parse_decimal(said.get("monotonic", "0")),
        time_s=parse_decimal(said.get("time", "0")),
        runtime=said.get("runtime", "-"),
        gaps=parse_decimal(said.get("gaps", "0")),
    )
    if not is_name(checkpoint.origin) or (size == 0 and checkpoint.root != EMPTY_ROOT):
        raise malformed("a checkpoint of no log that can be")
    return checkpoint


def parse_decimal(text: str) -> int:
    """Parse a number as these formats write it: ASCII, without leading zeroes.

    Raises:
        BundleRefusedError: ``malformed``.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise malformed("not a number")
    number = int(text)
    if str(number) != text or number >= MAX_SIZE:
        raise malformed("not a number as a checkpoint writes it")
    return number


def _parse_words(lines: Sequence[str]) -> dict[str, str]:
    """Return the extension lines by their word; each may be there once."""
    said: dict[str, str] = {}
    for line in lines:
        word, _, value = line.partition(" ")
        if word in said:
            raise malformed("a checkpoint says one thing twice")
        said[word] = value
    return said


def _digest(text: str) -> bytes:
    """Parse a SHA-256."""
    digest = decode_base64(text)
    if len(digest) != HASH_BYTES:
        raise malformed("a hash has 32 bytes")
    return digest
