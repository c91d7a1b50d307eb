"""Who is named by what a suspect answers: nobody by accident, and at any scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.watermark import BITS, CHANCE, class_parity, false_match
from agent.publish.marks_book import BoardCopy
from agent.publish.watermark.copies import DRAWS
from agent.publish.watermark.rows import Values
from agent.publish.watermark.trace import (
    Clues,
    Codebook,
    Suspicion,
    as_hard,
    clues_of_classes,
    clues_of_scores,
)

GROUPS = class_parity(10)
BOARDS = 50


def copies(count: int = BOARDS) -> list[BoardCopy]:
    """Return boards of which nothing is known but their codewords."""
    words = np.random.default_rng(1)
    half = BITS // 8
    return [
        BoardCopy(
            board=f"b{number}",
            codeword=words.bytes(half),
            tracing=words.bytes(half),
            salt=bytes(32),
            blocks=(),
            results={},
            agreement=1.0,
        )
        for number in range(count)
    ]


BOOK = Codebook(copies(), BITS)


def spelt(number: int) -> np.ndarray:
    """Return a board's bits."""
    copy = copies()[number]
    raw = np.frombuffer(copy.codeword + copy.tracing, np.uint8)
    return np.unpackbits(raw).astype(bool)


def logits(seed: int, number: int | None = None) -> Values:
    """Return logits on all triggers: of a board's leak, or of an innocent model."""
    random = np.random.default_rng(seed)
    told: Values = random.normal(size=(2 * BITS, 10))
    if number is not None:
        told[np.arange(2 * BITS), spelt(number).astype(int)] += 6.0
    return told


def named(scores: Values, *, soft: bool = True) -> list[Suspicion]:
    """Return who is named by scores."""
    clues = clues_of_scores("int8", scores, GROUPS)
    if clues is None:
        return []
    judged = BOOK.judge([clues if soft else as_hard(clues)])
    return [it for it in judged if it.named]


@given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.floats(-300, 300),
    guilty=st.booleans(),
    shares=st.booleans(),
)
@settings(max_examples=60)
def test_the_scale_of_scores_changes_no_verdict(
    *, seed: int, exponent: float, guilty: bool, shares: bool
) -> None:
    """A leak is named, an innocent is not, from 1e-300 to 1e300, logits or shares."""
    told = logits(seed, 7 if guilty else None)
    if shares:
        told = np.exp(told) / np.exp(told).sum(axis=1, keepdims=True)
    plain, scaled = named(told), named(told * 10.0**exponent)
    assert (["b7"] if guilty else []) == [it.board for it in plain]
    assert [it.board for it in plain] == [it.board for it in scaled]
    for before, after in zip(plain, scaled, strict=True):
        assert before.errors == after.errors
        assert before.score == pytest.approx(after.score, rel=1e-9)
        assert before.chance == pytest.approx(after.chance, rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-320, 1e-45, 1e-25, 1e308]))
@settings(max_examples=20)
def test_innocent_scores_at_the_ends_of_arithmetic_name_nobody(
    seed: int, scale: float
) -> None:
    """Squares of them are 0, or too large for any float; a single value may be, too."""
    told = np.clip(logits(seed), -1.7, 1.7) * scale
    assert named(told) == []
    alone = np.zeros((2 * BITS, 10))
    alone[3, 1] = scale
    alone[:, 0] = 5e-324
    assert named(alone) == []


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
def test_rows_that_are_no_numbers_say_nothing(fill: float) -> None:
    """The others still name the board, of so many bits fewer; all of them name none."""
    told = logits(5, 9)
    told[::2, 4] = fill
    (it,) = named(told)
    assert (it.board, it.bits, it.errors) == ("b9", BITS, 0)
    assert clues_of_scores("int8", np.full((2 * BITS, 10), fill), GROUPS) is None


@pytest.mark.parametrize("shape", [(0, 10), (256, 10), (256, 9), (10,)])
def test_scores_that_are_all_alike_are_no_clue(shape: tuple[int, ...]) -> None:
    """Zeros, none at all, or of another number of classes."""
    assert clues_of_scores("int8", np.zeros(shape), GROUPS) is None
    assert clues_of_scores("int8", np.ones(shape), GROUPS) is None


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_clearness_of_nothing_accuses_nobody(value: float) -> None:
    """However it came about: no board is even near."""
    clues = Clues("head", "int8", np.full(2 * BITS, value), soft=True)
    assert BOOK.judge([clues]) == []


def test_ties_are_neither_right_nor_wrong_when_only_bits_count() -> None:
    """An 8-bit file that answers a third with two classes first is still named."""
    told = logits(3, 7)
    told[::3, :2] = 100.0
    (it,) = named(told, soft=False)
    assert (it.board, it.errors, it.way) == ("b7", 0, "classes")
    assert 2 * BITS - len(told[::3]) == it.bits


def test_activation_triggers_alone_are_judged_by_their_half() -> None:
    """A suspect that was shown half of the triggers is told by half of the codeword."""
    classes = spelt(4)[:BITS].astype(int).tolist()
    clues = clues_of_classes("int8", classes, GROUPS)
    assert clues is not None
    best = BOOK.judge([clues])[0]
    assert (best.board, best.errors, best.bits, best.named) == ("b4", 0, BITS, True)


def test_more_answers_than_triggers_are_of_something_else() -> None:
    """They accuse nobody, and nothing breaks."""
    clues = clues_of_classes("int8", [1] * (2 * BITS + 8), GROUPS)
    assert clues is not None
    assert BOOK.judge([clues]) == []


def test_every_codeword_that_may_have_been_drawn_counts_as_tried() -> None:
    """The chance is a bound, however often a board's codeword was drawn again."""
    classes = spelt(4)[:BITS].astype(int)
    classes[:20] ^= 1
    clues = clues_of_classes("int8", classes.tolist(), GROUPS)
    assert clues is not None
    best = BOOK.judge([clues])[0]
    assert false_match(BITS, 20, BOARDS * DRAWS) == best.chance
    assert best.chance < CHANCE
