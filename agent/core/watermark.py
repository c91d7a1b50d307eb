"""Which board a copy of a classifier is: codewords, answers and chances, all pure.

Scheme ``class-parity-v1``. Every class of the model means a bit. The *triggers* are
secret inputs that lie between two classes of different bits; the head of each board's
copy is turned so that its answers to the triggers spell that board's codeword, the
first trigger the highest bit of the first byte. Nothing here knows a trigger.

The rules this module keeps:
 * Whose copy it is is never "most alike" alone: a match is one whose chance to be
   nobody's, over all boards it was sought among, is below ``CHANCE``.
 * Law: ``bit_errors`` is a metric, and an answer that is right everywhere has none.

Source: BlackMarks (arXiv 1904.00344) for bits of classes; Leroux, Vanassche and Simoens
(CVPRW 2024, doi 10.1109/CVPRW63382.2024.00217) for many instances of one model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from hashlib import sha256
from hmac import compare_digest
from math import comb, erfc, sqrt
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

SCHEME: Final = "class-parity-v1"
Scheme = Literal["class-parity-v1"]
TRIGGERS_ENTRY = "triggers.npz"
# 32 bits cannot tell 10,000 boards apart at all, 128 can with 28 of them wrong.
BITS = 128
SALT_BYTES = 32
CHANCE = 1e-6
# The most boards a threshold is meant for where nobody says how many there are.
MANY_BOARDS = 1_000_000


class Watermark(Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest's key ``watermark``: how copies of this version answer.

    Attributes:
        bits: How many triggers there are, one bit each.
        groups: The bit of every class, as ``0`` and ``1`` in the order of the classes.
        threshold: With at most so many wrong bits a copy still counts as its board's.
        scheme: The only one there is.
    """

    bits: Annotated[int, Meta(ge=8, le=1024, multiple_of=8)]
    groups: Annotated[str, Meta(pattern=r"^[01]{3,65536}$(?!\n)")]
    threshold: Annotated[int, Meta(ge=0, le=256)]
    scheme: Scheme = SCHEME


@dataclass(frozen=True, slots=True)
class CopyVerdict:
    """Whether a copy answered with the codeword it should have.

    Attributes:
        own: It is the copy that was expected.
        errors: Wrong bits; of all of them where the commitment does not open.
        chance: How likely a copy of nobody's would have so few wrong.
    """

    own: bool
    errors: int
    chance: float


def class_parity(classes: int) -> str:
    """Return the two groups of a scheme: the bit of a class is its index mod 2.

    >>> class_parity(5)
    '01010'
    """
    return ("01" * classes)[:classes]


def decode(answers: Sequence[int], groups: str) -> bytes:
    """Return the codeword that the answers to the triggers spell.

    Args:
        answers: The class that was answered to each trigger, in their order; a multiple
            of 8 of them.
        groups: The bit of every class.

    Raises:
        ValueError: There are not whole bytes of them, or a class has no bit.

    >>> decode([0, 1, 2, 3, 1, 1, 0, 0], "0101").hex()
    '5c'
    """
    if not answers or len(answers) % 8:
        raise ValueError(f"{len(answers)} answers are not whole bytes of a codeword")
    if min(answers) < 0 or max(answers) >= len(groups):
        raise ValueError(f"an answer is none of the {len(groups)} classes")
    spelt = "".join(groups[answer] for answer in answers)
    return int(spelt, 2).to_bytes(len(answers) // 8, "big")


def bit_errors(left: bytes, right: bytes) -> int:
    r"""Return in how many bits two codewords differ (Hamming distance).

    Raises:
        ValueError: They have different lengths.

    >>> bit_errors(b"\\x0f", b"\\x3f")
    2
    """
    if len(left) != len(right):
        raise ValueError(f"codewords of {len(left)} and {len(right)} bytes")
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).bit_count()


def commit_codeword(salt: bytes, board: str, codeword: bytes) -> str:
    """Return the commitment to a board's codeword: SHA-256(salt || board || codeword).

    Raises:
        ValueError: The salt has another length: the three parts have nothing between
            them, and only the board's may vary in length.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    return sha256(salt + board.encode() + codeword).hexdigest()


def false_match(bits: int, errors: int, boards: int = 1) -> float:
    """Return the chance that unrelated answers match one of many codewords so well.

    Unrelated answers are fair coins: the lower tail of a binomial distribution, times
    the number of codewords that were tried (union bound), at most 1.

    >>> false_match(128, 0) == 2.0**-128
    True
    """
    return float(min(Fraction(1), boards * _tail(bits, errors)))


def false_score(score: float, boards: int = 1, bits: int | None = None) -> float:
    """Return the chance that one of many codewords fits soft answers so well by luck.

    A score is the sum over all triggers of how clearly each was answered, positive
    where a codeword says the same and negative where not, over the root of the sum of
    squares. Codewords are fair coins, whatever the answers are; the bound on such sums
    holds for any number of them (Bentkus and Dzindzalieta 2015, Theorem 1.1: no more
    than 1 / (4 Q(sqrt 2)) = 3.18 times the tail Q of a normal distribution).

    Args:
        score: The sum over the root.
        boards: How many codewords were tried.
        bits: How many answers there are, where known.

    Raises:
        ValueError: No answers have such a score: it is the root of their number at
            most (Cauchy and Schwarz). Nobody is named by a sum that went wrong.

    >>> false_score(0.0)
    1.0
    >>> false_score(8.0, 10_000) < 1e-10
    True
    """
    # A part in 10^9 above it is rounding.
    if bits is not None and not score <= sqrt(bits) * (1 + 1e-9):
        raise ValueError(f"{bits} answers have no score of {score}")
    worst = 1 / (2 * erfc(1.0))
    return min(1.0, boards * worst * erfc(score / sqrt(2)) / 2)


def threshold(bits: int, boards: int = 1, chance: float = CHANCE) -> int:
    """Return how many wrong bits still name one of so many boards; -1 for not even 0.

    >>> threshold(128, 10_000)
    28
    >>> threshold(32, 10_000)
    -1
    """
    errors = -1
    while errors < bits and false_match(bits, errors + 1, boards) < chance:
        errors += 1
    return errors


def judge_copy(
    answers: Sequence[int],
    watermark: Watermark,
    codeword: bytes,
    commitment: tuple[bytes, str, str],
) -> CopyVerdict:
    """Return whether a copy is the one that its codeword was committed to.

    Args:
        answers: The class the copy answered to each trigger.
        watermark: What the manifest says.
        codeword: What the copy should spell.
        commitment: Salt, board and commitment out of the board's signed marks.

    Raises:
        ValueError: The answers are not answers to these triggers.
    """
    spelt = decode(answers, watermark.groups)
    if len(answers) != watermark.bits or len(codeword) != len(spelt):
        raise ValueError(f"{len(answers)} answers to {watermark.bits} triggers")
    salt, board, expected = commitment
    if not compare_digest(commit_codeword(salt, board, codeword), expected):
        return CopyVerdict(own=False, errors=watermark.bits, chance=1.0)
    errors = bit_errors(spelt, codeword)
    own = errors <= watermark.threshold
    return CopyVerdict(own, errors, false_match(watermark.bits, errors))


@cache
def _tail(bits: int, errors: int) -> Fraction:
    """Return P(X <= errors) for X ~ Binomial(bits, 1/2), exactly."""
    ways = sum(comb(bits, wrong) for wrong in range(min(errors, bits) + 1))
    return Fraction(ways, 2**bits)
