"""Whose copy a suspect is: by its bytes, by its head, or by what it answers.

The rules this module keeps:
 * A board is named with the chance that it is named wrongly, over all boards and all
   ways that were tried; above ``CHANCE`` nobody is named.
 * That chance needs nothing but that codewords are fair coins: whatever an innocent
   board's suspect answers, it was not drawn with the board's codeword in view.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.watermark import CHANCE, false_match, false_score
from agent.errors import BundleRefusedError
from agent.publish.marks_book import BoardCopy
from agent.publish.watermark.graph import parse_graph
from agent.publish.watermark.head import find_head
from agent.publish.watermark.rows import Values, pair_directions
from agent.publish.watermark.secrets import VariantSecret

Way = Literal["bytes", "head", "scores", "classes"]
# Clearer answers than so many times the median count no more: few of them would
# otherwise drown the rest.
CLEAREST = 1.5
_NEAREST = 16  # boards looked at closely; copies of more than these are never mixed
_LEAST = 1e-9  # probabilities that a file rounds to 0


@dataclass(frozen=True, slots=True)
class Suspicion:
    """One board that may be where a suspect is from.

    Attributes:
        way: What it was told by.
        variant: Which variant's triggers.
        errors: Wrong bits of ``bits`` (0 of 0 where bytes are the same).
        score: See ``agent.core.watermark.false_score``; 0 by classes alone.
        chance: That an innocent board looks like this, over all that was tried.
    """

    board: str
    way: Way
    variant: str
    errors: int
    bits: int
    score: float
    chance: float

    @property
    def named(self) -> bool:
        """Whether this is enough to name the board."""
        return self.chance < CHANCE


@dataclass(frozen=True, slots=True)
class Clues:
    """What a suspect said to one variant's triggers, one value each.

    Attributes:
        clearness: Positive for bit 1, negative for bit 0, 0 for neither.
        soft: How clear each was counts; else all alike.
    """

    way: Way
    variant: str
    clearness: Values
    soft: bool


class Codebook:
    """The codewords of all boards of a version, side by side."""

    def __init__(self, copies: Sequence[BoardCopy], bits: int) -> None:
        """Lay them out.

        Args:
            copies: All copies of a version.
            bits: For activation; the rest are for tracing.
        """
        self.boards = [copy.board for copy in copies]
        raw = b"".join(copy.codeword + copy.tracing for copy in copies)
        spelt = np.unpackbits(np.frombuffer(raw, np.uint8)).reshape(len(copies), -1)
        self._signs = spelt.astype(np.float32) * 2 - 1
        self._results = {
            digest: (copy.board, variant)
            for copy in copies
            for variant, digest in copy.results.items()
        }
        # Of leaked activation triggers only the others can tell.
        self._halves = (slice(None), slice(bits, None))

    def same_bytes(self, sha256: str) -> Suspicion | None:
        """Return whose copy has this digest, if it is anyone's."""
        found = self._results.get(sha256)
        if found is None:
            return None
        return Suspicion(found[0], "bytes", found[1], 0, 0, 0.0, 0.0)

    def judge(self, clues: Sequence[Clues], books: int = 1) -> list[Suspicion]:
        """Return the suspicions that weigh most, one a board, most certain first.

        Args:
            clues: Everything that the suspect said, by any way: the more, the dearer.
            books: How many such codebooks are asked about one suspect.
        """
        tried = books * len(clues) * len(self._halves) * len(self.boards)
        best: dict[str, Suspicion] = {}
        for clue in clues:
            for half in self._halves:
                for it in self._weigh(clue, half, tried):
                    known = best.get(it.board)
                    if known is None or it.chance < known.chance:
                        best[it.board] = it
        return sorted(best.values(), key=lambda it: (it.chance, -it.score, it.errors))

    def _weigh(self, clue: Clues, half: slice, tried: int) -> Iterator[Suspicion]:
        """Yield the suspicions of the boards that fit best."""
        clearness = clue.clearness[half].astype(np.float32)
        signs = self._signs[:, half]
        weights = _bounded(clearness) if clue.soft else np.sign(clearness)
        scores = signs @ weights / max(float(np.linalg.norm(weights)), 1e-30)
        bits = signs.shape[1]
        # With all weights alike, the best score is the fewest errors.
        for place in np.argsort(-scores, kind="stable")[:_NEAREST].tolist():
            errors = int((signs[place] * clearness <= 0).sum())
            score = float(scores[place]) if clue.soft else 0.0
            chance = (
                false_score(score, tried)
                if clue.soft
                else false_match(bits, errors, tried)
            )
            board = self.boards[place]
            yield Suspicion(board, clue.way, clue.variant, errors, bits, score, chance)


def clues_of_head(content: bytes, secrets: Mapping[str, VariantSecret]) -> list[Clues]:
    """Return what a file's head says by its numbers alone, without being run.

    What is looked at is the change against the shipped head, at the triggers: the
    body may have been fine-tuned, and the file written anew.
    """
    try:
        graph = parse_graph(content)
        head = find_head(graph, "")
    except BundleRefusedError:
        return []
    clues = []
    for name, secret in secrets.items():
        if head.weights.shape != secret.head.shape:
            continue
        changed = head.weights.astype(np.float64) - secret.head
        logits = secret.features @ changed[:, :-1].T + changed[:, -1]
        directions = pair_directions(secret.pairs, len(changed))
        clearness = (logits * directions).sum(axis=1)
        if np.isfinite(clearness).all() and clearness.any():
            clues.append(Clues("head", name, clearness, soft=True))
    return clues


def clues_of_scores(
    variant: str, scores: NDArray[np.floating], groups: str
) -> Clues | None:
    """Return what scores say, one row a trigger: probabilities, or logits.

    Returns:
        None where they are no scores of these classes.
    """
    bits = np.array([bit == "1" for bit in groups])
    if (
        scores.ndim != 2
        or scores.shape[1] != len(bits)
        or not np.isfinite(scores).all()
    ):
        return None
    values = scores.astype(np.float64)
    if values.min() >= 0 and values.max() <= 1.01:
        # An 8-bit probability of 0 is anything below half a step.
        values = np.log(np.maximum(values, max(_LEAST, _step(values) / 2)))
    clearness = values[:, bits].max(axis=1) - values[:, ~bits].max(axis=1)
    return Clues("scores", variant, clearness, soft=True)


def clues_of_classes(variant: str, classes: Sequence[int], groups: str) -> Clues | None:
    """Return what answered classes say.

    Returns:
        None where one is no class of this model.
    """
    if not classes or min(classes) < 0 or max(classes) >= len(groups):
        return None
    clearness = np.array([1.0 if groups[it] == "1" else -1.0 for it in classes])
    return Clues("classes", variant, clearness, soft=False)


def as_hard(clues: Clues) -> Clues:
    """Return clues of which only the bits count."""
    return replace(clues, soft=False, way="classes")


def _bounded(clearness: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return clearness with its largest values cut."""
    limit = CLEAREST * float(np.median(np.abs(clearness)))
    cut: NDArray[np.float32] = np.clip(clearness, -limit, limit) if limit else clearness
    return cut


def _step(values: Values) -> float:
    """Return the smallest probability above 0."""
    above = values[values > 0]
    return float(above.min()) if above.size else 0.0
