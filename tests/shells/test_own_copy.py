"""Whose copy it is: asked in a real locked child, judged by the daemon's side."""

import dataclasses
import logging

import numpy as np
import pytest

from agent.core.reasons import Reason
from agent.core.sealing import Marks, Sealed, Sealing
from agent.core.watermark import decode
from agent.errors import AgentError, BundleRefusedError, TrialFailedError
from agent.publish.watermark.secrets import render_arrays
from agent.supervise.asking import Asked, ask_model
from agent.supervise.own_copy import check_own_copy, describe_copy, refuse_unmarked
from agent.supervise.trials import PipelineTrials
from agent.trust.bundle import Bundle, open_bundle
from tests.fakes.digits import executor, in_loop, place, placed, running
from tests.fakes.fleet import bundle
from tests.fakes.marked import (
    BITS,
    THRESHOLD,
    make_marks,
    marked_bytes,
    secret,
    turned,
)

BOARD = "pi-7"


def copy_for(board: str, codeword: bytes | None = None) -> Bundle:
    """Return version 1 as a board opens it: marked for it."""
    known = secret(1)
    marks = make_marks(board, known.content, codeword or known.codeword)
    return marked(marks)


def marked(marks: Marks | None) -> Bundle:
    """Return version 1 with marks in place."""
    known = secret(1)
    opened = open_bundle(known.content, max_bytes=2**26)
    if marks is None:
        return opened
    turned_ = {
        it.file: memoryview(marked_bytes(known.content, marks, it.name))
        for it in opened.manifest.variants
    }
    return dataclasses.replace(opened, variants=turned_, marks=marks)


def asked(bundle: Bundle, variant: str = "int8") -> Asked:
    """Return who is asked."""
    return Asked(bundle, variant, executor())


def outcome(bundle: Bundle, board: str = BOARD, variant: str = "int8") -> str:
    """Return the reason that a board refuses a copy for, or nothing."""
    found: list[str] = []

    @in_loop
    async def case() -> None:
        try:
            await check_own_copy(asked(bundle, variant), board)
        except AgentError as err:
            found.append(err.reason)

    case()
    return found[0] if found else ""


def test_a_child_answers_what_the_codeword_was_made_of() -> None:
    """The classes come back in the order of the inputs, and spell the codeword."""

    @in_loop
    async def case() -> None:
        bundle = copy_for(BOARD)
        classes = await ask_model(asked(bundle), bundle.triggers)
        mark = bundle.manifest.watermark
        assert mark is not None
        assert decode(classes, mark.groups) == secret(1).codeword

    case()


@pytest.mark.parametrize(
    ("wrong", "reason"), [(0, ""), (THRESHOLD, ""), (THRESHOLD + 1, "watermark")]
)
def test_as_many_bits_may_be_wrong_as_the_manifest_says(
    wrong: int, reason: str
) -> None:
    """One more, and it is another board's copy."""
    codeword = turned(secret(1).codeword, wrong)
    assert outcome(copy_for(BOARD, codeword)) == reason


def test_a_copy_of_another_board_is_refused() -> None:
    """Its codeword is another one; or its marks say outright whose they are."""
    other = turned(secret(1).codeword, BITS // 2)
    assert outcome(copy_for(BOARD, other)) == "watermark"
    assert outcome(copy_for("pi-8")) == "watermark"


def test_a_commitment_that_does_not_open_is_refused() -> None:
    """A codeword that fits the answers is not enough: the owner committed to one."""
    marks = make_marks(BOARD, secret(1).content, secret(1).codeword)
    changes = {"commitment": "0" * 64}
    changed = Marks(
        **{it: getattr(marks, it) for it in marks.__struct_fields__} | changes
    )
    assert outcome(marked(changed)) == "watermark"


def test_a_variant_without_marks_is_nobodys_copy() -> None:
    """Preflight may choose any variant; the one it chose has to be marked."""
    marks = make_marks(BOARD, secret(1).content, secret(1).codeword)
    results = {"float": marks.results["float"]}
    changed = Marks(
        **{it: getattr(marks, it) for it in marks.__struct_fields__}
        | {"results": results}
    )
    assert outcome(marked(changed)) == "watermark"
    assert describe_copy(marked(changed), "int8", asked=True) == ""


def test_what_is_known_of_a_copy() -> None:
    """Nothing, that it is marked, or that it answered as it should."""
    bundle = copy_for(BOARD)
    assert describe_copy(marked(None), "int8", asked=True) == ""
    assert describe_copy(bundle, "float", asked=False) == "marked"
    assert describe_copy(bundle, "int8", asked=True) == "own"


def test_a_copy_that_should_be_marked_has_to_be() -> None:
    """The signed field `sealed.marks` says so, or that it brings triggers."""
    of_all = Sealed("digits", 1, Sealing("chacha20-poly1305"), "0" * 64, 9)
    of_one = Sealed("digits", 1, Sealing("chacha20-poly1305", "a" * 64), "0" * 64, 9)
    plain = open_bundle(bundle(1), max_bytes=2**26)
    refuse_unmarked(plain, None)
    refuse_unmarked(plain, of_all)
    refuse_unmarked(copy_for(BOARD), of_one)
    for what, sealed in ((marked(None), None), (marked(None), of_all), (plain, of_one)):
        with pytest.raises(BundleRefusedError) as caught:
            refuse_unmarked(what, sealed)
        assert caught.value.reason == Reason.WATERMARK


def test_bytes_that_are_not_those_of_the_marks_are_not_run() -> None:
    """The child hashes what it is given against the marked digest."""
    marks = make_marks(BOARD, secret(1).content, secret(1).codeword)
    unmarked = open_bundle(secret(1).content, max_bytes=2**26)
    lying = dataclasses.replace(unmarked, marks=marks)
    assert outcome(lying) == "digest"


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (b"", "truncated"),
        (b"PK", "truncated"),
        (render_arrays({"float": np.zeros((2, 1, 8, 8, 1), np.float32)}), "contract"),
        (render_arrays({"int8": np.zeros((2, 1, 8, 8, 1), np.float32)}), "contract"),
        (render_arrays({"int8": np.zeros((2, 65), np.int8)}), "contract"),
        (render_arrays({"int8": np.zeros((0, 64), np.int8)}), "contract"),
        (render_arrays({"int8": np.zeros((99, 64), np.int8)}), "contract"),
    ],
    ids=["nothing", "cut", "variant", "dtype", "shape", "none", "too_many"],
)
def test_inputs_that_are_not_the_models(inputs: bytes, reason: str) -> None:
    """Each is refused by the child, with its reason."""

    @in_loop
    async def case() -> None:
        with pytest.raises(TrialFailedError) as caught:
            await ask_model(asked(copy_for(BOARD)), inputs, most=64)
        assert caught.value.reason == reason

    case()


def test_a_trial_asks_once_and_a_foreign_copy_never_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Inference goes on, nothing is counted, and no secret is logged."""
    caplog.set_level(logging.DEBUG)

    @in_loop
    async def case() -> None:
        async with running(placed(1)) as bench:
            await bench.ready()
            trials = PipelineTrials({"digits": bench.pipeline}, (), board_id=BOARD)
            chosen = await trials.examine("digits", copy_for(BOARD))
            assert chosen.variant in ("int8", "float")
            other = turned(secret(1).codeword, BITS // 2)
            with pytest.raises(BundleRefusedError) as caught:
                await trials.examine("digits", copy_for(BOARD, other))
            assert caught.value.reason == Reason.WATERMARK
            with pytest.raises(BundleRefusedError, match="not marked"):
                await trials.examine("digits", marked(None))
            own = place(copy_for(BOARD))
            await trials.swap_in("digits", own.bundle, own.installed)
            await bench.answers(1)
            assert bench.now.copy == "own"
            assert {it.version for it in bench.now.counts} == {1}

    case()
    codewords = {secret(1).codeword.hex(), turned(secret(1).codeword, 32).hex()}
    said = " ".join(str(vars(it)) for it in caplog.records)
    assert [word for word in codewords if word in said] == []
