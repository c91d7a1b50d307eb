"""Codewords, answers and chances of ``class-parity-v1``."""

from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.watermark import (
    CopyVerdict,
    Watermark,
    bit_errors,
    class_parity,
    commit_codeword,
    decode,
    false_match,
    false_score,
    judge_copy,
    threshold,
)

SALT = bytes(range(32))
WORDS = st.binary(min_size=1, max_size=32)


def spell(codeword: bytes, classes: int = 10) -> list[int]:
    """Return answers that spell a codeword, of several classes for each bit."""
    bits = [(byte >> (7 - place)) & 1 for byte in codeword for place in range(8)]
    return [bit + 2 * (index % (classes // 2)) for index, bit in enumerate(bits)]


@given(WORDS, st.integers(3, 40))
def test_answers_spell_the_codeword_that_they_were_made_for(
    codeword: bytes, classes: int
) -> None:
    """Decoding the answers that spell a codeword gives it back."""
    assert codeword == decode(spell(codeword, classes), class_parity(classes))


@given(
    st.integers(1, 16).flatmap(
        lambda size: st.tuples(*3 * [st.binary(min_size=size, max_size=size)])
    )
)
def test_bit_errors_are_a_metric(words: tuple[bytes, bytes, bytes]) -> None:
    """Distances are symmetric, 0 for the same and never longer by a detour."""
    left, middle, right = words
    assert bit_errors(left, right) == bit_errors(right, left)
    assert (left == right) == (bit_errors(left, right) == 0)
    assert bit_errors(left, right) <= bit_errors(left, middle) + bit_errors(
        middle, right
    )


@pytest.mark.parametrize(
    ("bits", "boards", "expected"),
    [
        (64, 1, 13),
        (64, 10_000, 7),
        (64, 1_000_000, 5),
        (128, 1, 36),
        (128, 10_000, 28),
        (128, 1_000_000, 25),
        (256, 1_000_000, 72),
        (32, 10_000, -1),
    ],
)
def test_thresholds_are_those_that_were_computed_before(
    bits: int, boards: int, expected: int
) -> None:
    """Known values of the scheme's description, for a chance below 1e-6."""
    assert expected == threshold(bits, boards)


def test_chances_are_exact_where_they_can_be_counted_by_hand() -> None:
    """Of 8 coins 1 + 8 of 256 outcomes have at most one wrong."""
    assert false_match(8, 1) == 9 / 256
    assert false_match(8, 1, boards=10) == 90 / 256
    assert false_match(8, 1, boards=1000) == 1.0
    assert false_match(8, 8) == 1.0


@given(st.integers(8, 256), st.integers(1, 10**7))
def test_more_errors_and_more_boards_are_never_less_likely_by_chance(
    bits: int, boards: int
) -> None:
    """The chance grows with the errors allowed and with the boards that were tried."""
    chances = [false_match(bits, errors, boards) for errors in range(0, bits, 4)]
    assert all(low <= high for low, high in pairwise(chances))
    assert false_match(bits, 3, boards) <= false_match(bits, 3, boards + 1)


@given(st.floats(-5, 30), st.integers(1, 10**7))
def test_better_scores_are_never_likelier_by_chance(score: float, boards: int) -> None:
    """The bound falls with the score and grows with the boards, from 1 to 0."""
    assert 0 <= false_score(score + 0.1, boards) <= false_score(score, boards) <= 1
    assert false_score(score, boards) <= false_score(score, boards + 1)


def test_the_bound_on_scores_holds_where_all_outcomes_can_be_counted() -> None:
    """Of 2^12 codewords no larger share scores as high as the bound says."""
    weights = [1.0, 0.5, 2.0, 1.5, 1.0, 0.1, 0.7, 1.2, 1.9, 0.3, 1.1, 0.8]
    norm = sum(weight**2 for weight in weights) ** 0.5
    sums = [
        sum(w if bits >> i & 1 else -w for i, w in enumerate(weights)) / norm
        for bits in range(2**12)
    ]
    for score in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0):
        share = sum(it >= score for it in sums) / len(sums)
        assert share <= false_score(score)


def test_a_commitment_is_the_hash_of_its_three_parts() -> None:
    """SHA-256 over salt, board and codeword, one after the other."""
    expected = sha256(SALT + b"pi-0042" + b"\x01\x02").hexdigest()
    assert expected == commit_codeword(SALT, "pi-0042", b"\x01\x02")


@given(st.binary(min_size=16, max_size=16), st.integers(0, 127))
def test_only_the_committed_codeword_makes_a_copy_ones_own(
    codeword: bytes, flips: int
) -> None:
    """Few wrong answers are forgiven; another codeword, board or salt is not."""
    mark = Watermark(bits=128, groups=class_parity(10), threshold=25)
    promise = (SALT, "pi-0042", commit_codeword(SALT, "pi-0042", codeword))
    answers = spell(codeword)
    wrong = [answer ^ (index < flips) for index, answer in enumerate(answers)]
    verdict = judge_copy(wrong, mark, codeword, promise)
    assert CopyVerdict(flips <= 25, flips, false_match(128, flips)) == verdict
    for other in (
        (bytes(32), *promise[1:]),
        (SALT, "pi-0043", promise[2]),
        (*promise[:2], "0" * 64),
    ):
        assert CopyVerdict(False, 128, 1.0) == judge_copy(
            answers, mark, codeword, other
        )


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([], "whole bytes"),
        ([0] * 7, "whole bytes"),
        ([0] * 7 + [4], "none of the 4"),
        ([-1] + [0] * 7, "none of the 4"),
    ],
)
def test_what_is_no_answer_is_refused(answers: list[int], said: str) -> None:
    """Half a byte, or a class that the model does not have, spells nothing."""
    with pytest.raises(ValueError, match=said):
        decode(answers, "0101")


def test_codewords_of_other_lengths_are_not_compared() -> None:
    """Neither distances nor verdicts are given across lengths."""
    mark = Watermark(bits=128, groups="0101", threshold=25)
    with pytest.raises(ValueError, match="1 and 2 bytes"):
        bit_errors(b"a", b"bb")
    with pytest.raises(ValueError, match="8 answers to 128"):
        judge_copy([0] * 8, mark, b"\x00", (SALT, "b", ""))
    with pytest.raises(ValueError, match="32 bytes"):
        commit_codeword(b"short", "b", b"")


def test_a_score_that_no_answers_can_have_names_nobody() -> None:
    """Above the root of their number something went wrong, and where it is NaN."""
    assert false_score(16.0, 1, 256) < 1e-50
    for score in (16.1, 1e30, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="256 answers have no score"):
            false_score(score, 1, 256)
