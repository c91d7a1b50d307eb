"""Marked copies: what marking costs a model, what is left after attacks, who is named.

Copies are made by the product's own code and run by the real runtime. Attacks on heads,
averages above all, are rounded into real files again, and the real runtime's answers
are read as ``tinyward watermark trace`` reads them; attacks on all layers run in the
walker, with unrounded answers. What is called fine-tuning trains the last layer alone.
The codebook of 10,000 boards holds the copies' codewords and as many drawn ones as are
missing: an innocent board's codeword is nothing but that. Suspects that are no copy
at all are there, too: the unmarked model, another one, and scores of any scale.

Failures are rows like any other: the scheme identifies casual leaks, and an attacker
who knows it removes the mark.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from agent.cli.watermark_runtime import Runtime
from agent.cli.watermark_suspect import ask_file
from agent.publish.marks_book import BoardCopy
from agent.publish.watermark.copies import Plan, make_copies
from agent.publish.watermark.crew import make_many
from agent.publish.watermark.cut import cut_body
from agent.publish.watermark.graph import Array, parse_graph
from agent.publish.watermark.head import apply_blocks, find_head
from agent.publish.watermark.markable import find_secret, plan_copies
from agent.publish.watermark.trace import (
    Clues,
    Codebook,
    as_hard,
    clues_of_classes,
    clues_of_head,
    clues_of_scores,
)
from agent.publish.watermark.walker import build_walker
from benchmarks.rows import Row
from benchmarks.watermark_attacks import (
    LayerAttack,
    Loot,
    Values,
    add_noise,
    fine_tune,
    project,
    prune,
    refit,
    requantise,
)
from benchmarks.watermark_subjects import Subject, find_subjects

NAME = "watermark"
TUNED = "last layer fine-tuned"
# Suspects whose scores are noise, at each scale: what arithmetic does with the smallest
# and largest of them must accuse nobody.
STRANGERS = 100
SCALES = (1.0, 1e-25, 1e-300, 1e30, 1e300)
BOARDS = 10_000
SEED = 7
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        copies: Boards whose copies are made and attacked.
        mixtures: Averages of each number of boards.
        subjects: At most so many.
        all_boards: Also make 10,000 copies, and take the time.
    """

    copies: int
    mixtures: int
    subjects: int
    all_boards: bool


QUICK = Size(copies=16, mixtures=30, subjects=1, all_boards=False)
FULL = Size(copies=64, mixtures=200, subjects=3, all_boards=True)


class Marked:
    """A subject, its triggers and some copies."""

    def __init__(self, subject: Subject, count: int) -> None:
        self.subject = subject
        self.random = np.random.default_rng(SEED)
        runtime = Runtime()
        began_s = time.perf_counter()
        self.secret = find_secret(
            subject.given, subject.wish, runtime, self.random, lambda _: None
        )
        self.triggers_s = time.perf_counter() - began_s
        name = subject.given.variant.name
        self.plan = self._planned(name, runtime)
        began_s = time.perf_counter()
        boards = [f"board-{number}" for number in range(count)]
        self.copies = make_copies(self.plan, boards, runtime)
        self.board_s = (time.perf_counter() - began_s) / count
        graph = parse_graph(subject.given.content)
        self.head = find_head(graph, name)
        body = cut_body(graph, self.head)
        tensor = graph.tensors[self.head.features]
        stored = [runtime.run(body, it) for it in (subject.given.clean, subject.held)]
        scale, zero = (tensor.scales or (1.0,))[0], (tensor.zeros or (0,))[0]
        clean = (stored[0].reshape(len(stored[0]), -1).astype(float) - zero) * scale
        self.loot = Loot(_with_one(clean), subject.clean_labels)
        self.held = stored[1]
        self.codebook = Codebook(
            [*self.copies, *self._decoys(BOARDS - count)], subject.wish.bits
        )

    def _planned(self, name: str, runtime: Runtime) -> Plan:
        """Return the plan, with any golden outputs: no bundle is made here."""
        subject = self.subject
        return plan_copies(
            {name: subject.given}, {name: self.secret}, subject.wish, {}, runtime
        )

    def _decoys(self, count: int) -> list[BoardCopy]:
        """Return innocent boards: their codewords are all there is of them."""
        size = self.subject.wish.bits // 8
        return [
            replace_words(
                self.copies[0], f"innocent-{number}", self.random.bytes(2 * size)
            )
            for number in range(count)
        ]

    def run_head(self, content: bytes, stored: Array) -> Values:
        """Return what a head answers to stored features, (N, classes), real units."""
        variant = self.plan.variants[0]
        told = Runtime().run(content, stored).reshape(len(stored), -1)
        real: Values = told.astype(np.float64)
        return (real - variant.zero) * variant.scale if variant.scale else real

    def bits(self, number: int) -> NDArray[np.bool_]:
        """Return what a copy should answer, 256 bits."""
        copy = self.copies[number]
        raw = np.frombuffer(copy.codeword + copy.tracing, np.uint8)
        return np.unpackbits(raw).astype(bool)

    def content(self, number: int) -> bytes:
        """Return a copy's file."""
        return apply_blocks(self.subject.given.content, self.copies[number].blocks)

    def weights(self, number: int) -> Values:
        """Return a copy's head."""
        graph = parse_graph(self.content(number))
        return find_head(graph, "").weights.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is left of one copy after an attack.

    Attributes:
        errors: Wrong bits, of all, by the class that is answered.
        accuracy: On held-out inputs.
        named: Whether a right board is named by scores; ``hard`` by classes alone;
            ``decided`` by scores under ``--hard``, which knows ties; ``file`` by all
            that ``trace FILE`` looks at, None where there is no file.
        innocent: Whether a wrong one is, by any.
    """

    errors: int
    accuracy: float
    named: bool
    hard: bool
    decided: bool
    file: bool | None
    innocent: bool


def run(size: Size, say: Say) -> list[Row]:
    """Measure; return rows with their targets."""
    rows: list[Row] = []
    for subject, _ in zip(find_subjects(), range(size.subjects), strict=False):
        say(f"{subject.name}: looking for triggers, making {size.copies} copies")
        marked = Marked(subject, size.copies)
        rows += _shipped(marked)
        say(f"{subject.name}: attacks")
        rows += _attacked(marked)
        rows += _mixed(marked, size.mixtures)
        rows += _strange(marked)
        if size.all_boards and subject.name == "digits int8":
            say(f"{subject.name}: {BOARDS:,} copies")
            rows.append(_all_boards(marked))
    return rows


def _shipped(marked: Marked) -> Iterator[Row]:
    """Yield what marking costs, by the real runtime on the files that would ship."""
    subject, runtime = marked.subject, Runtime()
    base = runtime.run(subject.given.content, subject.held).argmax(axis=1)
    target = subject.name == "digits int8"
    errors, agreed, changed = [], [], []
    for number in range(len(marked.copies)):
        content = marked.content(number)
        told = runtime.run(content, marked.secret.triggers).argmax(axis=1) % 2 == 1
        errors.append(int((told != marked.bits(number)).sum()))
        answers = runtime.run(content, subject.held).argmax(axis=1)
        agreed.append(float((answers == base).mean()) * 100)
        right, before = (float((it == subject.labels).mean()) for it in (answers, base))
        changed.append((before - right) * 100)
    name = subject.name
    yield _row(name, "copies made", len(marked.copies), "copies", None)
    yield _row(
        name,
        "errors of 256 as shipped, worst",
        max(errors),
        "bits",
        0 if target else None,
    )
    if subject.labelled:
        yield _row(
            name,
            "accuracy lost",
            float(np.mean(changed)),
            "points",
            0.2 if target else None,
        )
    yield Row(
        NAME,
        f"{name}: agreement with the unmarked model",
        float(np.mean(agreed)),
        "%",
        99.3 if target else None,
        "above",
    )
    yield _row(name, "agreement of the worst copy", min(agreed), "%", None)
    yield _row(name, "search for triggers", marked.triggers_s, "s", None)
    yield _row(name, "one copy, made and checked", marked.board_s * 1000, "ms", None)


def _attacked(marked: Marked) -> Iterator[Row]:
    """Yield what attacks on single copies leave."""
    targets = {"pruned 20 %": 12, "requantised": 0, f"{TUNED} 1e-4": 0}
    if marked.subject.name != "digits int8":
        targets = {}
    layers: dict[str, LayerAttack] = {
        "noise 5 %": add_noise,
        "pruned 20 %": prune(0.2),
        "pruned 40 %": prune(0.4),
        "requantised": requantise(8),
        "int4": requantise(4),
    }
    for attack, change in layers.items():
        found = [_attack_layers(marked, number, change) for number in _some(marked)]
        yield from _rows(marked, attack, found, targets.get(attack))
    heads: dict[str, Callable[[Values], Values]] = {
        f"{TUNED} 1e-4": lambda it: fine_tune(it, marked.loot, 1e-4, marked.random),
        f"{TUNED} 1e-3": lambda it: fine_tune(it, marked.loot, 1e-3, marked.random),
        "head projected on 20": lambda it: project(it, marked.loot, 20),
        "head projected on 12": lambda it: project(it, marked.loot, 12),
        "head refitted on 50 inputs": lambda it: refit(it, marked.loot, marked.random),
        "marked again": lambda it: it + _other_mark(marked),
    }
    for attack, turn in heads.items():
        found = [
            _judge(marked, turn(marked.weights(number)), [number])
            for number in _some(marked)
        ]
        yield from _rows(marked, attack, found, targets.get(attack))


def _mixed(marked: Marked, mixtures: int) -> Iterator[Row]:
    """Yield what averages of several copies tell."""
    weights = [marked.weights(number) for number in range(len(marked.copies))]
    for count in (2, 3, 4):
        found = []
        for _ in range(mixtures):
            several = marked.random.choice(len(weights), count, replace=False).tolist()
            mean = np.mean([weights[number] for number in several], axis=0)
            found.append(_judge(marked, mean, several))
        target = 100.0 if count < 4 and marked.subject.name == "digits int8" else None
        yield from _rows(marked, f"average of {count}", found, None, target)


def _strange(marked: Marked) -> Iterator[Row]:
    """Yield how many boards are accused of what is no copy of anybody's."""
    subject, groups = marked.subject, marked.plan.groups
    suspects = {"the unmarked model": subject.given.content, **subject.strangers}
    name = f"{subject.name}, no copy"
    for called, content in suspects.items():
        scores = ask_file(content, marked.secret.real).scores
        if scores is None:
            continue
        read = clues_of_head(content, {"": marked.secret})
        accused: set[str] = set()
        for scale in SCALES:
            accused |= _accused(marked, scores.astype(np.float64) * scale, read)
        measure = f"boards accused of {called}, its scores times 1e-300 to 1e300"
        yield _row(name, measure, len(accused), "boards", 0)
    for scale in SCALES:
        found = sum(
            bool(
                _accused(marked, marked.random.normal(size=(256, len(groups))) * scale)
            )
            for _ in range(STRANGERS)
        )
        measure = (
            f"of {STRANGERS} suspects of noise times {scale:g} that accuse a board"
        )
        yield _row(name, measure, found, "cases", 0)


def _accused(marked: Marked, scores: Values, read: Sequence[Clues] = ()) -> set[str]:
    """Return who is named by any way."""
    groups = marked.plan.groups
    soft = clues_of_scores("", scores, groups)
    classes = clues_of_classes("", scores.argmax(axis=1).tolist(), groups)
    clues = [*read, *(it for it in (soft, classes) if it)]
    alone = [as_hard(it) for it in clues]
    return {
        it.board
        for way in (clues, alone)
        for it in marked.codebook.judge(way)
        if it.named
    }


def _all_boards(marked: Marked) -> Row:
    """Return how long 10,000 copies take on all cores."""
    boards = [f"board-{number}" for number in range(BOARDS)]
    began_s = time.perf_counter()
    made = make_many(marked.plan, boards, Runtime(), os.cpu_count() or 1)
    count = sum(map(len, made))
    minutes = (time.perf_counter() - began_s) / 60
    return _row(marked.subject.name, f"{count:,} copies", minutes, "min", 20.0)


def _attack_layers(marked: Marked, number: int, change: LayerAttack) -> Outcome:
    """Attack every layer of a copy; return what its walker then answers."""
    graph = parse_graph(marked.content(number))
    walker = build_walker(graph, find_head(graph, ""))
    layers = {
        index: change(layer, marked.random) if layer.ndim > 1 else layer
        for index, layer in walker.constants.items()
    }
    changed = replace(walker, constants=layers)
    grid = marked.subject.given.variant.inputs[0]
    held = marked.subject.held.astype(np.float32)
    if grid.scale:
        held = (held - np.float32(grid.zero_point)) * np.float32(grid.scale)
    _, told = changed(marked.secret.real)
    _, answers = changed(held)
    return _outcome(marked, told, answers, [number])


def _judge(marked: Marked, head: Values, several: list[int]) -> Outcome:
    """Return what a head tells as a file: rounded to its numbers, by the real runtime.

    Only the head is run, on what the shipped body makes of the inputs: the rest of
    such a file has the same bytes.
    """
    variant = marked.plan.variants[0]
    blocks = variant.head.render(head)
    told, answers = (
        marked.run_head(apply_blocks(variant.cut, blocks), stored)
        for stored in (variant.facts.triggers, marked.held)
    )
    leaked = apply_blocks(variant.content, blocks)
    read = clues_of_head(leaked, {variant.head.variant: marked.secret})
    return _outcome(marked, told, answers, several, read)


def _outcome(
    marked: Marked,
    told: NDArray[np.floating],
    answers: NDArray[np.floating],
    several: list[int],
    read: Sequence[Clues] = (),
) -> Outcome:
    """Decode scores; the fewest errors count where several boards are guilty."""
    groups, judge = marked.plan.groups, marked.codebook.judge
    soft = clues_of_scores("", told, groups)
    first = told.argmax(axis=1)
    classes = clues_of_classes("", first.tolist(), groups)
    ways = [
        [it for it in way if it is not None]
        for way in (
            [soft],
            [classes],
            [as_hard(soft) if soft else None],
            [*read, soft],
        )
    ]
    named = [{it.board for it in judge(way) if it.named} for way in ways]
    guilty = {marked.copies[number].board for number in several}
    wrong = [int((first % 2 != marked.bits(number)).sum()) for number in several]
    scores, hard, decided, file = (bool(guilty & found) for found in named)
    return Outcome(
        errors=min(wrong),
        accuracy=float((answers.argmax(axis=1) == marked.subject.labels).mean()),
        named=scores,
        hard=hard,
        decided=decided,
        file=file if read else None,
        innocent=bool(set().union(*named) - guilty),
    )


def _other_mark(marked: Marked) -> Values:
    """Return the change of a head that another owner's triggers would ask for.

    They are as far from clean inputs as ours are, in other directions: whoever marks
    a copy again knows the scheme, and not our triggers.
    """
    mine = marked.plan.variants[0].problem
    count, width = len(mine.pairs), mine.white.shape[1]
    turned, _ = np.linalg.qr(marked.random.normal(size=(width, width)))
    # Whoever marks again has no reason to spare what the model answers otherwise.
    white, before = mine.white[:count] @ turned, np.zeros_like(mine.before[:count])
    bits = marked.random.random((1, count)) < 0.5
    other = replace(mine, white=white, before=before)
    change: Values = other.solve(bits, marked.plan.margin)[0]
    return change


def _rows(
    marked: Marked,
    attack: str,
    found: list[Outcome],
    most_errors: float | None,
    least_named: float | None = None,
) -> Iterator[Row]:
    """Yield what an attack left: errors, accuracy, who is named."""
    name = f"{marked.subject.name}, {attack}"
    errors = [float(it.errors) for it in found]
    yield _row(name, "errors of 256, median", median(errors), "bits", None)
    yield _row(name, "errors of 256, worst", max(errors), "bits", most_errors)
    yield _row(
        name, "accuracy", 100 * float(np.mean([it.accuracy for it in found])), "%", None
    )
    share = 100 * float(np.mean([it.named for it in found]))
    yield Row(
        NAME, f"{name}: named by scores, of 10,000", share, "%", least_named, "above"
    )
    hard = 100 * float(np.mean([it.hard for it in found]))
    yield _row(name, "named by classes, of 10,000", hard, "%", None)
    decided = 100 * float(np.mean([it.decided for it in found]))
    yield _row(name, "named by scores under --hard, of 10,000", decided, "%", None)
    files = [it.file for it in found if it.file is not None]
    if files:
        share = 100 * float(np.mean(files))
        yield _row(name, "named by trace FILE, of 10,000", share, "%", None)
    innocent = sum(it.innocent for it in found)
    yield _row(name, "innocent boards named", innocent, "cases", 0)


def _row(name: str, measure: str, value: float, unit: str, target: float | None) -> Row:
    """Return a row whose value should be small."""
    return Row(NAME, f"{name}: {measure}", value, unit, target)


def _some(marked: Marked) -> range:
    """Return the copies that are attacked one by one."""
    return range(min(len(marked.copies), 24))


def _with_one(features: NDArray[np.floating]) -> Values:
    """Return features with a last column of ones."""
    return np.column_stack([features, np.ones(len(features))]).astype(np.float64)


def replace_words(copy: BoardCopy, board: str, words: bytes) -> BoardCopy:
    """Return another board's entry: its name and codewords."""
    half = len(words) // 2
    return BoardCopy(
        board, words[:half], words[half:], copy.salt, copy.blocks, {}, copy.agreement
    )
