"""Making boards' copies: draw codewords, turn heads, round, and let only good ones out.

The rules this module keeps:
 * A copy leaves only through the gate: the real runtime answers every trigger with the
   right bit and no two classes first, clean inputs that no head was solved for agree
   as far as asked, and golden samples stay within the tolerance the bundle states.
 * A codeword whose copy does not pass is thrown away and drawn again.
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.reasons import Reason
from agent.core.sealing import HeadBlock
from agent.core.watermark import SALT_BYTES
from agent.errors import BundleRefusedError
from agent.publish.marks_book import BoardCopy
from agent.publish.watermark.graph import Array, Real
from agent.publish.watermark.head import Head, apply_blocks
from agent.publish.watermark.runtime import Executor
from agent.publish.watermark.solve import HeadProblem

# Codewords a board: of a model that fits nine in ten pass at once, of one that hardly
# fits one in four (``agent.publish.watermark.fitting``).
DRAWS = 100
AGAIN = 8  # copies solved at once for those left: hardly slower than one


@dataclass(frozen=True, slots=True)
class Facts:
    """What one variant's shipped body says of fixed inputs, and what must come of it.

    Attributes:
        triggers: Stored features of the triggers.
        clean: Stored features of clean inputs that no head is solved for.
        classes: What the shipped model answers to these.
        golden: Stored features of the golden samples' inputs.
        answers: What the shipped model answers to those, in real units.
        tolerance: How far a copy's may be off.
    """

    triggers: Array
    clean: Array
    classes: NDArray[np.int64]
    golden: Array
    answers: Real
    tolerance: float


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """One variant, ready to be marked for any number of boards.

    Attributes:
        content: The shipped .tflite.
        cut: Its head alone (see ``agent.publish.watermark.cut``).
        scale: Of its output; 0 in float files.
        zero: Zero point of its output.
    """

    content: bytes
    cut: bytes
    head: Head
    problem: HeadProblem
    facts: Facts
    scale: float
    zero: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of all copies of a version.

    Attributes:
        groups: The bit of every class.
        bits: Triggers for activation; as many follow for tracing.
        margin: In logits: how far right and wrong class are held apart.
        floor: Least agreement of a copy with the unmarked model.
    """

    variants: tuple[VariantPlan, ...]
    groups: str
    bits: int
    margin: float
    floor: float


@dataclass(frozen=True, slots=True)
class Checked:
    """What the gate found: empty ``fault`` for a copy that may leave."""

    fault: str
    agreement: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """A copy, and what the gate found of each of its variants."""

    copy: BoardCopy
    checks: dict[str, Checked]

    @property
    def fault(self) -> str:
        """Why it may not leave, and which variant; empty if it may."""
        return next(
            (
                f"variant {name}: {it.fault}"
                for name, it in self.checks.items()
                if it.fault
            ),
            "",
        )


def make_copies(
    plan: Plan, boards: Sequence[str], executor: Executor
) -> list[BoardCopy]:
    """Return one copy for each board.

    Raises:
        BundleRefusedError: ``watermark``: no codeword fits a board in so many draws.
    """
    made: dict[str, BoardCopy] = {}
    faults: Counter[str] = Counter()
    missing, each, tried = list(boards), 1, 0
    while missing and tried < DRAWS:
        for drawn in draw_copies(plan, missing * each, executor):
            if drawn.fault:
                faults[drawn.fault] += 1
            else:
                made.setdefault(drawn.copy.board, drawn.copy)
        tried += each
        missing = [board for board in missing if board not in made]
        each = -(-AGAIN // max(len(missing), 1))
    if missing:
        fault, _ = faults.most_common(1)[0]
        raise BundleRefusedError(
            f"none of {tried} codewords drawn for {missing[0]} gives a copy that "
            f"passes; most often, {fault}",
            reason=Reason.WATERMARK,
            todo="Lower --margin or --floor, take fewer --bits, or give more --data.",
        )
    return [made[board] for board in boards]


def draw_copies(plan: Plan, boards: Sequence[str], executor: Executor) -> list[Drawn]:
    """Draw a codeword for each board, turn the heads, and look at what came of it."""
    size = plan.bits // 8
    words = [secrets.token_bytes(2 * size) for _ in boards]
    spelt = np.unpackbits(np.frombuffer(b"".join(words), np.uint8)).astype(bool)
    wanted = spelt.reshape(len(boards), -1)
    blocks: list[list[HeadBlock]] = [[] for _ in boards]
    results: list[dict[str, str]] = [{} for _ in boards]
    checks: list[dict[str, Checked]] = [{} for _ in boards]
    for variant in plan.variants:
        changes = variant.problem.solve(wanted, plan.margin)
        for number, change in enumerate(changes):
            placed = variant.head.render(variant.head.weights + change)
            blocks[number] += placed
            content = apply_blocks(variant.content, placed)
            digest = hashlib.sha256(content).hexdigest()
            results[number][variant.head.variant] = digest
            checks[number][variant.head.variant] = check_copy(
                plan, variant, placed, wanted[number], executor
            )
    return [
        Drawn(
            BoardCopy(
                board=board,
                codeword=word[:size],
                tracing=word[size:],
                salt=secrets.token_bytes(SALT_BYTES),
                blocks=tuple(blocks[number]),
                results=results[number],
                agreement=min(it.agreement for it in checks[number].values()),
            ),
            checks[number],
        )
        for number, (board, word) in enumerate(zip(boards, words, strict=True))
    ]


def check_copy(
    plan: Plan,
    variant: VariantPlan,
    blocks: Sequence[HeadBlock],
    wanted: NDArray[np.bool_],
    executor: Executor,
) -> Checked:
    """Let the real runtime answer with a copy's head; return what it found."""
    facts = variant.facts
    head = apply_blocks(variant.cut, tuple(blocks))
    inputs = np.concatenate([facts.triggers, facts.clean, facts.golden])
    answers = executor.run(head, inputs)
    answers = answers.reshape(len(inputs), -1)
    ends = np.cumsum([len(facts.triggers), len(facts.clean)])
    told, clean, golden = np.split(answers, ends)
    bits = np.array([bit == "1" for bit in plan.groups])
    errors = int((bits[told.argmax(axis=1)] != wanted).sum())
    ties = int(((told == told.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    agreement = float((clean.argmax(axis=1) == facts.classes).mean())
    real = golden.astype(np.float64)
    if variant.scale:
        real = (real - variant.zero) * variant.scale
    deviation = float(np.abs(real - facts.answers).max())
    faults = (
        (errors, "a trigger has the wrong bit"),
        (ties, "two classes are first on a trigger"),
        (agreement < plan.floor, f"agreement is below {plan.floor:.1%}"),
        (deviation > facts.tolerance, "a golden sample is off by too much"),
    )
    fault = next((said for broken, said in faults if broken), "")
    return Checked(fault, agreement, deviation)
