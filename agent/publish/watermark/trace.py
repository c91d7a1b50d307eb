"""Whose copy a suspect is: by its bytes, by its head, or by what it answers.

The rules this module keeps:
 * A board is named with the chance that it is named wrongly, over all boards and all
   ways that were tried; above ``CHANCE`` nobody is named.
 * That chance needs nothing but that codewords are fair coins: whatever an innocent
   board's suspect answers, it was not drawn with the board's codeword in view. A board
   keeps one of at most ``DRAWS`` codewords, whichever first gave a good copy, and that
   choice is not fair; so all that may have been drawn count as tried.
 * Law: what a suspect answers, times any number above 0, gives the same verdict.
 * What is not finite, and what is as much one bit as the other, says nothing: it is
   neither a right bit nor a wrong one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.watermark import CHANCE, false_match, false_score
from agent.errors import BundleRefusedError
from agent.publish.marks_book import BoardCopy
from agent.publish.watermark.copies import DRAWS
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
        errors: Wrong bits of ``bits``, which are those that were answered at all (0 of
            0 where bytes are the same).
        score: See ``agent.core.watermark.false_score``; 0 by classes alone.
        chance: That an innocent board looks like this, over all that was tried: an
            upper bound.
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
        self._bits = bits

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
        looks = [(clue, half) for clue in clues for half in self._halves(clue)]
        tried = books * len(looks) * len(self.boards) * DRAWS
        best: dict[str, Suspicion] = {}
        for clue, half in looks:
            for it in self._weigh(clue, half, tried):
                known = best.get(it.board)
                if known is None or it.chance < known.chance:
                    best[it.board] = it
        return sorted(best.values(), key=lambda it: (it.chance, -it.score, it.errors))

    def _halves(self, clue: Clues) -> list[slice]:
        """Return which answers are looked at: all, and those for tracing alone.

        Of leaked activation triggers only the others can tell. A suspect may have been
        shown the first of the triggers only.
        """
        count = len(clue.clearness)
        if count > self._signs.shape[1]:
            return []  # answers to something else
        halves = [slice(0, count)]
        if count > self._bits:
            halves.append(slice(self._bits, count))
        return halves

    def _weigh(self, clue: Clues, half: slice, tried: int) -> Iterator[Suspicion]:
        """Yield the suspicions of the boards that fit best."""
        clearness = clue.clearness[half]
        told = np.sign(clearness)
        weights = _weights(clearness) if clue.soft else told
        bits = int(np.count_nonzero(told))
        if not bits or weights is None:
            return
        signs = self._signs[:, half]
        # The largest weight is 1: the norm is at least that, and float32 ranks as well.
        ranks = np.argsort(-(signs @ weights.astype(np.float32)), kind="stable")
        norm = float(np.linalg.norm(weights))
        # With all weights alike, the best score is the fewest errors.
        for place in ranks[:_NEAREST].tolist():
            own = signs[place].astype(np.float64)
            errors = int((own * told < 0).sum())
            score = float(own @ weights) / norm if clue.soft else 0.0
            chance = (
                false_score(score, tried, bits)
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
        clearness[~np.isfinite(clearness)] = 0.0
        if clearness.any():
            clues.append(Clues("head", name, clearness, soft=True))
    return clues


def clues_of_scores(
    variant: str, scores: NDArray[np.floating], groups: str
) -> Clues | None:
    """Return what scores say, one row a trigger: shares of 1 or of 255, or logits.

    Scores of which none is negative are shares, of whatever whole.

    Returns:
        None where they are no scores of these classes, or say nothing at all.
    """
    bits = np.array([bit == "1" for bit in groups])
    if scores.ndim != 2 or scores.shape[1] != len(bits):
        return None
    values = scores.astype(np.float64)
    finite = np.isfinite(values).all(axis=1)
    values[~finite] = 0.0
    peak = float(np.abs(values).max(initial=0.0))
    if not peak:
        return None
    values /= peak  # from here on no difference overflows
    if values.min() >= 0:
        # An 8-bit probability of 0 is anything below half a step.
        values = np.log(np.maximum(values, max(_LEAST, _step(values) / 2)))
    clearness = values[:, bits].max(axis=1) - values[:, ~bits].max(axis=1)
    return Clues("scores", variant, clearness, soft=True) if clearness.any() else None


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


def _weights(clearness: Values) -> Values | None:
    """Return how much each answer counts, -1 to 1; None where they say nothing.

    Only what answers are to each other matters, so the largest is made 1 before
    anything is squared: scores of 1e-25 have squares that float32 takes for 0, and
    those of 1e200 squares that no float holds.
    """
    peak = float(np.abs(clearness).max(initial=0.0))
    if not peak or not np.isfinite(peak):
        return None
    weights = clearness / peak
    limit = CLEAREST * float(np.median(np.abs(weights)))
    if limit:
        # Once more, in case that all but a few were next to nothing.
        cut = np.clip(weights, -limit, limit)
        weights = cut / float(np.abs(cut).max())
    return weights


def _step(values: Values) -> float:
    """Return the smallest probability above 0."""
    above = values[values > 0]
    return float(above.min()) if above.size else 0.0
