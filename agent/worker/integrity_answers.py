"""Known answers: inputs that were asked when a model was loaded, asked again when idle.

The inputs are noise of a fixed seed, the answers are recorded from the same
interpreter right after its bytes were verified, and compared bit by bit: the same
kernels on the same machine give the same bits. It covers what no hash does: the
arithmetic itself, and what kernels read beside the weights.

The rules this module keeps:
 * Only the loop's thread asks, and only while no sample waits: one inference at a time,
   so that a sample that comes meanwhile waits for no more than that.
 * Asking is no sample: the engine is asked directly, past what counts, gives receipts,
   watches or carries state on.
 * A model that remembers inside itself is never asked: its memory is its user's.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.core.integrity import Evidence
from agent.core.manifest import TensorSpec, Variant
from agent.worker.engines import Engine
from agent.worker.engines.tensors import zeros
from agent.worker.golden import compare_outputs, real_outputs
from agent.worker.samples import Array, Arrays

# More find more, slowly: 16 find 55 to 72 % of single flips in weights, 64 63 to 82 %
# (measured on the MLPerf-Tiny models); the hashes find the others.
KNOWN = 16
SPREAD = 2.0**14  # of real inputs: -2 to 2, as of normalised ones
LEARN_S = 0.02  # what recording may take of a start; two inputs always fit
# One inference per so many times its duration: 0.5 % of the time of an idle loop.
APART = 200
# A board that has nothing to do should do nothing: all known answers in 4 s is enough.
LEAST_NS = 250_000_000
SHOWN = 16


@dataclass(frozen=True, slots=True)
class Known:
    """One input and its answer."""

    inputs: Arrays
    outputs: Arrays
    digest: str


class KnownAnswers:
    """What one loaded model answered right after it was verified.

    Args:
        engine: What answers.
        variant: Of which model.

    Attributes:
        known: Inputs and answers; empty where ``skipped`` says why.
        asked: How often one was asked again.
    """

    def __init__(self, engine: Engine, variant: Variant) -> None:
        self._engine = engine
        self._variant = variant
        self._next = 0
        self._due_ns = 0
        self.asked = 0
        self.skipped = ""
        self.known = self._record()

    def rest(self) -> Evidence | None:
        """Ask one, if it is time; called by the loop while no sample comes."""
        now_ns = time.perf_counter_ns()
        if not self.known or now_ns < self._due_ns:
            return None
        number = self._next
        self._next = (number + 1) % len(self.known)
        found = self.check(number)
        ended_ns = time.perf_counter_ns()
        self._due_ns = ended_ns + max(LEAST_NS, APART * (ended_ns - now_ns))
        return found

    def check(self, number: int) -> Evidence | None:
        """Ask one; return what differs."""
        known = self.known[number]
        outputs = self._engine.infer(known.inputs)
        self.asked += 1
        if _same(outputs, known.outputs):
            return None
        apart = compare_outputs(
            real_outputs(self._variant, known.outputs),
            real_outputs(self._variant, outputs),
        )
        apart = apart if np.isfinite(apart) else float(np.finfo(np.float32).max)
        found = answer_digest(outputs)
        return Evidence(
            "answers", number, "known input", known.digest, found, difference=apart
        )

    def _record(self) -> list[Known]:
        """Ask the first inputs, the first of them twice: does the model remember?"""
        until = time.perf_counter() + LEARN_S
        found: list[Known] = []
        for inputs in draw_inputs(self._variant.inputs):
            outputs = self._engine.infer(inputs)
            found.append(Known(inputs, outputs, answer_digest(outputs)))
            if len(found) > 1 and time.perf_counter() > until:
                break
        again = self._engine.infer(found[0].inputs)
        self._engine.reset()
        if not _same(again, found[0].outputs):
            self.skipped = "it remembers earlier samples inside"
            return []
        return found


def draw_inputs(specs: Sequence[TensorSpec]) -> list[Arrays]:
    """Return ``KNOWN`` inputs of a model, state included, always the same ones.

    A whole number that is not quantised may be an index into a table, and stays 0.
    """
    if not any(spec.scale or spec.dtype.startswith("float") for spec in specs):
        return [[zeros(spec) for spec in specs]]
    return [
        [_draw(spec, f"{number} {spec.name}") for spec in specs]
        for number in range(KNOWN)
    ]


def answer_digest(outputs: Arrays) -> str:
    """Return the beginning of the SHA-256 of an answer, for people."""
    joined = hashlib.sha256()
    for output in outputs:
        joined.update(np.ascontiguousarray(output).tobytes())
    return joined.hexdigest()[:SHOWN]


def _draw(spec: TensorSpec, seed: str) -> Array:
    """Return one tensor: noise where noise is an input like any other.

    Of SHAKE-128, which is here already: numpy.random takes 20 ms to import.
    """
    number = math.prod(spec.shape)
    if spec.dtype.startswith("float"):
        raw = np.frombuffer(_noise(seed, 2 * number), np.int16)
        noise: Array = (raw / SPREAD).astype(spec.dtype).reshape(spec.shape)
        return noise
    if not spec.scale:
        return zeros(spec)
    size = np.dtype(spec.dtype).itemsize
    drawn: Array = np.frombuffer(_noise(seed, size * number), spec.dtype)
    return drawn.reshape(spec.shape)


def _noise(seed: str, size: int) -> bytes:
    """Return bytes that look like noise, always the same ones."""
    return hashlib.shake_128(seed.encode()).digest(size)


def _same(left: Arrays, right: Arrays) -> bool:
    """Whether two answers are the same bit by bit; NaN equals itself."""
    return all(
        one.tobytes() == other.tobytes() for one, other in zip(left, right, strict=True)
    )
