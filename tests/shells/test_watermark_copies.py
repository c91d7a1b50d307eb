"""Triggers, heads for boards, the release gate, and naming boards by their copies."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.watermark_runtime import Runtime
from agent.core.reasons import Reason
from agent.core.watermark import class_parity, decode
from agent.demo.owner import ASSETS
from agent.errors import BundleRefusedError
from agent.publish.watermark.copies import check_copy, make_copies
from agent.publish.watermark.crew import make_many
from agent.publish.watermark.graph import parse_graph
from agent.publish.watermark.head import apply_blocks, find_head
from agent.publish.watermark.markable import check_given
from agent.publish.watermark.secrets import VariantSecret
from agent.publish.watermark.solve import HeadProblem
from agent.publish.watermark.trace import (
    Codebook,
    as_hard,
    clues_of_classes,
    clues_of_head,
    clues_of_scores,
)
from agent.publish.watermark.triggers import draw_pairs
from tests.fakes.watermarked import BOARDS, WISH, Fleet, fleet


def shipped(owner: Fleet, number: int) -> bytes:
    """Return a board's file."""
    return apply_blocks(owner.given.content, owner.copies[number].blocks)


@pytest.mark.parametrize("variant", ["int8", "float"])
def test_every_copy_answers_with_its_own_codeword(variant: str) -> None:
    """The whole file, by the real runtime: no wrong bit, and the stated digest."""
    owner = fleet(variant)
    for number, copy in enumerate(owner.copies):
        content = shipped(owner, number)
        told = Runtime().run(content, owner.secret.triggers).argmax(axis=1).tolist()
        assert copy.codeword + copy.tracing == decode(told, class_parity(10))
        assert copy.results == {variant: hashlib.sha256(content).hexdigest()}
        assert len(owner.given.content) == len(content)


@pytest.mark.parametrize("variant", ["int8", "float"])
def test_a_copy_answers_other_inputs_as_the_model_does(variant: str) -> None:
    """On inputs that no head was solved for, as the book says."""
    owner = fleet(variant)
    held = owner.given.clean[::5]
    base = Runtime().run(owner.given.content, held).argmax(axis=1)
    for number, copy in enumerate(owner.copies):
        told = Runtime().run(shipped(owner, number), held).argmax(axis=1)
        assert copy.agreement == float((told == base).mean())
        assert copy.agreement >= WISH.floor


def test_copies_differ_in_their_heads_alone() -> None:
    """No board has another's codeword, and bodies are the same bytes."""
    owner = fleet()
    assert len(BOARDS) == len({copy.codeword for copy in owner.copies})
    head = find_head(parse_graph(owner.given.content), "int8")
    allowed = np.zeros(len(owner.given.content), bool)
    for tensor in (head.stored_weights, head.stored_bias):
        allowed[tensor.offset : tensor.offset + tensor.size] = True
        allowed[tensor.scales_offset : tensor.scales_offset + 40] = True
    base = np.frombuffer(owner.given.content, np.uint8)
    for number in range(len(BOARDS)):
        differs = np.frombuffer(shipped(owner, number), np.uint8) != base
        assert differs.any()
        assert not (differs & ~allowed).any()


def test_the_gate_lets_no_wrong_codeword_out() -> None:
    """One bit that was not solved for is found by the real runtime."""
    owner = fleet()
    copy, (variant,) = owner.copies[0], owner.plan.variants
    raw = np.frombuffer(copy.codeword + copy.tracing, np.uint8)
    wanted = np.unpackbits(raw).astype(bool)
    right = check_copy(owner.plan, variant, copy.blocks, wanted, Runtime())
    assert right.fault == ""
    wanted[7] = not wanted[7]
    wrong = check_copy(owner.plan, variant, copy.blocks, wanted, Runtime())
    assert wrong.fault == "a trigger has the wrong bit"


def test_an_agreement_that_no_copy_reaches_is_refused_with_its_reason() -> None:
    """After some draws, and the message says what failed."""
    plan = replace(fleet().plan, floor=1.01)
    with pytest.raises(BundleRefusedError, match="agreement is below") as refused:
        make_copies(plan, ["pi-0001"], Runtime())
    assert refused.value.reason == Reason.WATERMARK


def test_a_crew_makes_a_copy_for_every_board() -> None:
    """In several processes, each board once."""
    boards = [f"pi-{number}" for number in range(70)]
    made = [
        it.board
        for part in make_many(fleet().plan, boards, Runtime(), 2)
        for it in part
    ]
    assert sorted(boards) == sorted(made)


def test_too_few_clean_inputs_are_refused() -> None:
    """99 are; the message says what helps."""
    given_ = fleet().given
    with pytest.raises(BundleRefusedError, match="--data") as refused:
        check_given(replace(given_, clean=given_.clean[:99]))
    assert refused.value.reason == Reason.WATERMARK
    check_given(replace(given_, clean=given_.clean[:100]))


def test_secrets_are_kept_to_the_bit_and_never_shown() -> None:
    """What the book reads is what was written; a repr shows no trigger."""
    secret = fleet().secret
    again = VariantSecret.parse(secret.render())
    for name in VariantSecret.__slots__:
        assert np.array_equal(getattr(secret, name), getattr(again, name))
    assert "array" not in repr(secret)
    assert str(fleet().copies[0].codeword) not in repr(fleet().copies[0])


@given(st.integers(0, 2**32 - 1), st.integers(3, 6), st.floats(0.3, 2.0))
@settings(max_examples=20)
def test_solved_heads_keep_every_margin(seed: int, classes: int, margin: float) -> None:
    """Right beats each wrong class on every trigger, as far as was asked."""
    random = np.random.default_rng(seed)
    count, width = 8, 24
    groups = class_parity(classes)
    pairs = draw_pairs(groups, count, random)
    weights = random.normal(size=(classes, width + 1)).astype(np.float32)
    # Clean inputs are all of one class, with a lead that no trigger endangers: where
    # they contradict triggers nothing is promised, and the gate decides.
    weights[:, -1] = 50.0 * np.arange(classes)
    triggers = random.normal(size=(count, width)) * 3
    clean = random.normal(size=(120, width)) * 0.1
    problem = HeadProblem.of(clean, triggers, pairs, weights, groups)
    wanted = random.random((5, count)) < 0.5
    bits = np.array([bit == "1" for bit in groups])
    points = np.column_stack([triggers, np.ones(count)])
    for change, told in zip(problem.solve(wanted, margin), wanted, strict=True):
        logits = points @ (weights + change).T
        right = np.where(bits == told[:, None], logits, -np.inf).max(axis=1)
        wrong = np.where(bits != told[:, None], logits, -np.inf).max(axis=1)
        assert (right - wrong).min() >= 0.9 * margin


@given(st.integers(1, 300), st.integers(3, 12))
def test_pairs_are_balanced_and_of_two_bits(count: int, classes: int) -> None:
    """Each pair has one class of either bit, and none is drawn twice as often."""
    pairs = draw_pairs(class_parity(classes), count, np.random.default_rng(0))
    assert count == len(pairs)
    assert (pairs[:, 0] % 2 == 0).all()
    assert (pairs[:, 1] % 2 == 1).all()
    _, often = np.unique(pairs, axis=0, return_counts=True)
    assert often.max() - often.min() <= 1 or often.max() == 1


def answers(content: bytes) -> np.ndarray:
    """Return a file's probabilities on all triggers."""
    told = Runtime().run(content, fleet().secret.triggers)
    scores: np.ndarray = (told.astype(np.float32) + 128) / np.float32(256)
    return scores


def test_a_copys_own_bytes_name_its_board() -> None:
    """By their digest, without a doubt."""
    owner = fleet()
    book = Codebook(owner.copies, WISH.bits)
    found = book.same_bytes(hashlib.sha256(shipped(owner, 3)).hexdigest())
    assert found is not None
    assert (BOARDS[3], "bytes", 0.0) == (found.board, found.way, found.chance)
    assert book.same_bytes("0" * 64) is None


@pytest.mark.parametrize("way", ["scores", "classes", "head", "hard scores"])
def test_a_copy_names_its_board_in_every_way(way: str) -> None:
    """And no other board."""
    owner = fleet()
    content = shipped(owner, 2)
    scores = answers(content)
    clue = {
        "scores": clues_of_scores("int8", scores, class_parity(10)),
        "classes": clues_of_classes(
            "int8", scores.argmax(axis=1).tolist(), class_parity(10)
        ),
        "head": clues_of_head(content, {"int8": owner.secret})[0],
        "hard scores": as_hard(
            clues_of_scores("int8", scores, class_parity(10))
            or pytest.fail("no scores")
        ),
    }[way]
    assert clue is not None
    judged = Codebook(owner.copies, WISH.bits).judge([clue])
    assert [BOARDS[2]] == [it.board for it in judged if it.named]
    assert judged[0].errors == 0


def test_averaged_heads_name_one_of_their_boards() -> None:
    """Two copies' mean is no copy, but says whose it is."""
    owner = fleet()
    graphs = [parse_graph(shipped(owner, number)) for number in (1, 4)]
    mean = np.mean([find_head(it, "int8").weights for it in graphs], axis=0)
    head = find_head(parse_graph(owner.given.content), "int8")
    mixed = apply_blocks(owner.given.content, head.render(mean.astype(float)))
    clues = clues_of_head(mixed, {"int8": owner.secret})
    best = Codebook(owner.copies, WISH.bits).judge(clues)[:2]
    assert {BOARDS[1], BOARDS[4]} == {it.board for it in best}


def test_models_of_nobody_name_nobody() -> None:
    """Neither the unmarked file, nor another model, nor answers by chance."""
    owner = fleet()
    book = Codebook(owner.copies, WISH.bits)
    other = (ASSETS / "digits-1" / "int8.tflite").read_bytes()
    random = np.random.default_rng(1)
    chance = clues_of_classes(
        "int8", random.integers(0, 10, 2 * WISH.bits).tolist(), class_parity(10)
    )
    base = clues_of_scores("int8", answers(owner.given.content), class_parity(10))
    assert chance is not None
    assert base is not None
    for clues in (
        [chance, base],
        clues_of_head(owner.given.content, {"int8": owner.secret}),
        clues_of_head(other, {"int8": owner.secret}),
        clues_of_head(b"no model", {"int8": owner.secret}),
    ):
        assert [it for it in book.judge(clues) if it.named] == []


def test_answers_of_other_models_are_no_clues() -> None:
    """Other numbers of classes, classes that do not exist, and what is not finite."""
    assert clues_of_scores("", np.zeros((8, 9)), class_parity(10)) is None
    assert clues_of_scores("", np.full((8, 10), np.nan), class_parity(10)) is None
    assert clues_of_classes("", [10], class_parity(10)) is None
    assert clues_of_classes("", [], class_parity(10)) is None
