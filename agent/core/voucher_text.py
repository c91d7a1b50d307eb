"""A voucher as text: lines that a person can type, each with a check of its own.

17 bytes make a line: 28 characters of base32, of which 4 bits and two characters more
are the check, 30 in all, written as six groups of five. A voucher has eight lines. The
alphabet is Crockford's: without I, L, O and U, and whoever types them is understood.

The rules this module keeps:
 * One wrong character in a line, two neighbours that changed places, a line left out or
   two that changed places are found always (the check is a CRC over the line, begun
   with its number), other mistakes but for one in 16,384; and the line is named. The
   signature finds the rest.
 * Case, blanks, hyphens and remarks (from ``#`` to the end of a line) mean nothing.

>>> parse_texts(render_text(bytes(range(136)))) == [bytes(range(136))]
True
"""

from agent.core.reasons import Reason
from agent.core.voucher import MAGIC, VOUCHER_BYTES
from agent.errors import RequestRefusedError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LINES = 8
LINE_BYTES = VOUCHER_BYTES // LINES  # 17
LINE_CHARS = 30
GROUP_CHARS = 5
BITS = 5  # of a character
CHECK_BITS = LINE_CHARS * BITS - LINE_BYTES * 8  # 14
# CRC-14/DARC: it finds all bursts up to 14 bits, which two neighbours are, and any
# two single bits in 150.
POLYNOMIAL = 0x0805
TEXT_CHARS = LINES * LINE_CHARS
MAX_VOUCHERS = 1000  # in one file; 300 kB
MAX_TEXT_CHARS = MAX_VOUCHERS * 512  # with remarks
_READ = {char: index for index, char in enumerate(ALPHABET)}
_READ |= {char.lower(): index for char, index in _READ.items()}
_READ |= dict.fromkeys("oO", 0) | dict.fromkeys("iIlL", 1)
_BLANK = frozenset(" \t\r\n\v\f-\ufeff\xa0")


def render_text(raw: bytes) -> str:
    """Return a voucher as eight lines of six groups.

    Law: ``parse_texts(render_text(raw)) == [raw]``, for any bytes of that length.
    """
    lines = (_line(raw, number) for number in range(LINES))
    return "".join(
        " ".join(
            line[at : at + GROUP_CHARS] for at in range(0, LINE_CHARS, GROUP_CHARS)
        )
        + "\n"
        for line in lines
    )


def render_compact(raw: bytes) -> str:
    """Return the same characters without blanks: what a QR code holds, 240 of them."""
    return "".join(_line(raw, number) for number in range(LINES))


def parse_texts(text: str) -> list[bytes]:
    """Return the vouchers that stand in a text, one after another.

    Raises:
        RequestRefusedError: ``malformed``: the message names the line.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise _mistyped(f"more than {MAX_VOUCHERS} vouchers at once")
    chars = "".join(
        char
        for line in text.splitlines()
        for char in line.partition("#")[0]
        if char not in _BLANK
    )
    if not chars:
        raise _mistyped("there is no voucher in it")
    strange = next((char for char in chars if char not in _READ), "")
    if strange:
        raise _mistyped(f"{strange!a} is in no voucher")
    whole, rest = divmod(len(chars), TEXT_CHARS)
    # The lines that are there are checked first: a character that was left out shows
    # in its own line.
    found = [_parse_line(chars, at) for at in range(len(chars) // LINE_CHARS)]
    if rest:
        raise _mistyped(f"{TEXT_CHARS - rest} characters are missing at its end")
    return [
        b"".join(found[first * LINES : (first + 1) * LINES]) for first in range(whole)
    ]


def parse_file(content: bytes) -> list[bytes]:
    """Return the vouchers in a file: as text, or their bare bytes.

    Raises:
        RequestRefusedError: ``malformed``.
    """
    if content[: len(MAGIC)] == MAGIC:
        count, rest = divmod(len(content), VOUCHER_BYTES)
        if rest or count > MAX_VOUCHERS:
            raise _mistyped("it is cut off, or not only vouchers")
        starts = range(0, len(content), VOUCHER_BYTES)
        return [content[at : at + VOUCHER_BYTES] for at in starts]
    try:
        return parse_texts(content.decode("utf-8"))
    except UnicodeDecodeError as err:
        raise _mistyped("it is no text") from err


def _line(raw: bytes, number: int) -> str:
    """Return one line's 30 characters."""
    part = raw[number * LINE_BYTES : (number + 1) * LINE_BYTES]
    value = int.from_bytes(part, "big") << CHECK_BITS | _check(part, number)
    shifts = range((LINE_CHARS - 1) * BITS, -1, -BITS)
    return "".join(ALPHABET[value >> shift & 31] for shift in shifts)


def _parse_line(chars: str, at: int) -> bytes:
    """Return the bytes of the line of this index."""
    value = 0
    for char in chars[at * LINE_CHARS : (at + 1) * LINE_CHARS]:
        value = value << BITS | _READ[char]
    part = (value >> CHECK_BITS).to_bytes(LINE_BYTES, "big")
    if value & ((1 << CHECK_BITS) - 1) != _check(part, at % LINES):
        which = f" of voucher {at // LINES + 1}" if len(chars) > TEXT_CHARS else ""
        raise _mistyped(f"line {at % LINES + 1}{which} has a mistake in it")
    return part


def _check(part: bytes, number: int) -> int:
    """Return the check of a line: a CRC that begins with the line's number."""
    top, mask = 1 << (CHECK_BITS - 1), (1 << CHECK_BITS) - 1
    state = number + 1  # not 0: a line of zeros shall have a check, too
    for byte in part:
        for bit in range(7, -1, -1):
            carry = bool(state & top) ^ bool(byte >> bit & 1)
            state = (state << 1 & mask) ^ (POLYNOMIAL if carry else 0)
    return state


def _mistyped(what: str) -> RequestRefusedError:
    """Return the error for a text that is no voucher; nothing of it is repeated."""
    return RequestRefusedError(
        f"the voucher's text: {what}",
        reason=Reason.MALFORMED,
        todo="Compare that line with the paper, or use the file or the QR code.",
    )
