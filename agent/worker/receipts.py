"""Receipts in the worker: what ran on what, and what came of it, before it is heard.

A receipted model is the same model with another ``infer`` and another ``judge``: what
builds turns, taps, watchers and thinned turns knows nothing of receipts, and a model
without them is the model as it was loaded.

The rules this module keeps:
 * Only an inference of the model has a receipt: not a sample that never reached it, nor
   a constant that was said in its stead, nor the golden answers of a self-test.
 * The record is written when the model has answered, before any sink hears of it:
   whatever kills this process, no answer is out that has no receipt. At most the one
   sample in flight has a receipt and no answer.
 * ``FAILED`` are those that the model did not answer, or not with numbers. An answer
   that could not be passed on was one.
 * A sample that is kept is hashed in every mode: else nobody could tell that it is the
   one that the receipt is about.
"""

import hashlib
import math
import mmap
import os
import platform
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agent.core.kept import KEPT_BYTES, KeptSample, cpu_print, render_kept
from agent.core.receipts import (
    BLAKE2B,
    FAILED,
    INPUT_HASHED,
    KEPT,
    NO_HASH,
    RING_BYTES,
    InputHash,
    ReceiptOrder,
    RingWriter,
    name_word,
)
from agent.core.shadow_ring import RingWriter as KeptWriter
from agent.core.statistics_block import NEXT_SEQ
from agent.worker.model import LoadedModel
from agent.worker.samples import Array, Arrays
from agent.worker.statistics import StatisticsWriter

Hash = Callable[[Arrays], bytes]
Keep = Callable[[int, Arrays, Arrays], bool]
CPUINFO = Path("/proc/cpuinfo")
# The kernel's: nobody outside can know which inputs will be kept, and those that were
# do not tell. It is asked once in so many samples.
_chance = random.SystemRandom()
_sha256: Callable[[Any], Any] = (
    hashlib.sha256
)  # arrays are buffers, their stubs say not


class Receipts:
    """Gives the receipts of one worker's life.

    Args:
        order: How; see ``ReceiptOrder``.
        pipeline: Its name.
        ring: The ring's memory.
        statistics: The block, which has the number of the sample in flight.
        kept: The ring for inputs that are kept; None keeps none.
        draw: Uniform in [0, 1): which inputs are kept.
    """

    def __init__(
        self,
        order: ReceiptOrder,
        pipeline: str,
        ring: memoryview,
        statistics: StatisticsWriter,
        kept: memoryview | None = None,
        draw: Callable[[], float] = _chance.random,
    ) -> None:
        self._order = order
        self._pipeline = name_word(pipeline)
        self.ring = RingWriter(ring)
        self._statistics = statistics
        self._kept = KeptWriter(kept) if kept is not None else None
        self._draw = draw
        self._left = self._gap()

    def of(self, model: LoadedModel) -> LoadedModel:
        """Return a model that gives a receipt for each of its inferences."""
        words, clock = self._statistics.words, time.perf_counter_ns
        put = self.ring.bind(self._pipeline, bytes.fromhex(_digest(model)))
        infer_bare, judge_bare, whole = model.infer, model.judge, model.whole
        flags, hash_inputs, hash_outputs = self._hashes()
        given: Arrays = ()
        stateful = bool(model.manifest.state)
        keep = self._keep(model)

        def fail(outputs: Arrays | None) -> None:
            said = NO_HASH if outputs is None else hash_outputs(outputs)
            seq = words[NEXT_SEQ] - 1
            put(seq, clock(), flags | FAILED, hash_inputs(given), said)

        def infer(samples: Arrays) -> Arrays:
            nonlocal given
            given = whole(samples) if stateful else samples
            try:
                return infer_bare(samples)
            except Exception:
                fail(None)
                raise

        def judge(inputs: Arrays, outputs: Arrays) -> tuple[int, float]:
            try:
                answer = judge_bare(inputs, outputs)
            except Exception:
                fail(outputs)
                raise
            seq = words[NEXT_SEQ] - 1  # the turn has raised it already
            if keep is not None and keep(self.ring.written + 1, given, outputs):
                put(seq, clock(), *self._whole(given), hash_sha256(outputs))
            else:
                put(seq, clock(), flags, hash_inputs(given), hash_outputs(outputs))
            return answer

        return replace(model, infer=infer, judge=judge)

    def _hashes(self) -> tuple[int, Hash, Hash]:
        """Return the flags of the mode, and what hashes inputs and outputs in it."""
        mode = self._order.mode
        if mode == "inputs":
            hashed = self._order.input_hash
            return _input_flags(hashed), _HASHES[hashed], hash_sha256
        return 0, _no_hash, hash_sha256 if mode == "chain" else _no_hash

    def _whole(self, given: Arrays) -> tuple[int, bytes]:
        """Return flags and input hash of a sample that was kept."""
        hashed = self._order.input_hash
        return _input_flags(hashed) | KEPT, _HASHES[hashed](given)

    def _keep(self, model: LoadedModel) -> Keep | None:
        """Return what keeps one in so many samples, if any are to be kept."""
        kept = self._kept
        if kept is None or not self._order.keep_one_in:
            return None
        executor, cpu = model.executor.describe()[:300], own_cpu()

        def keep(number: int, given: Arrays, outputs: Arrays) -> bool:
            self._left -= 1
            if self._left:
                return False
            self._left = self._gap()
            if not kept.has_room():  # the daemon is behind: counted, and not awaited
                return False
            inputs, answers = _as_bytes(given), _as_bytes(outputs)
            sample = KeptSample(number, inputs, answers, executor, cpu)
            return kept.write([render_kept(sample)])

        return keep

    def _gap(self) -> int:
        """Return how many samples on the next is kept: geometric, so memoryless."""
        one_in = self._order.keep_one_in
        if one_in <= 1:
            return 1
        # Inverse of the distribution function; log1p keeps 1 in a billion apart from 0.
        return 1 + int(math.log1p(-self._draw()) / math.log1p(-1 / one_in))


def open_receipts(
    order: ReceiptOrder,
    pipeline: str,
    descriptors: list[int],
    statistics: StatisticsWriter,
) -> Receipts:
    """Map what the daemon sent, and close the descriptors.

    Args:
        order: How receipts are given.
        pipeline: Whose.
        descriptors: Of the ring, then of the kept inputs' if there is one.
        statistics: This worker's.

    Raises:
        OSError: They are no such memory.
    """
    sizes = (RING_BYTES, KEPT_BYTES)
    try:
        ring, *kept = (
            memoryview(mmap.mmap(descriptor, size))
            for descriptor, size in zip(descriptors, sizes, strict=False)
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return Receipts(order, pipeline, ring, statistics, kept[0] if kept else None)


def own_cpu() -> str:
    """Return this CPU's print, as far as it can be read here."""
    try:
        cpuinfo = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    return cpu_print(platform.machine(), cpuinfo)


def hash_sha256(tensors: Arrays) -> bytes:
    """Return SHA-256 of tensors, one after the other (``core.kept.hash_tensors``)."""
    if len(tensors) == 1:  # 0.3 us less than in pieces
        try:
            alone: bytes = _sha256(tensors[0]).digest()
        except ValueError:  # it does not lie in one piece
            return hashlib.sha256(_contiguous(tensors[0])).digest()
        return alone
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(_contiguous(tensor))
    return found.digest()


def hash_blake2b(tensors: Arrays) -> bytes:
    """Return BLAKE2b-256 of tensors: faster where no instruction hashes SHA-256."""
    found = hashlib.blake2b(digest_size=len(NO_HASH))
    for tensor in tensors:
        found.update(_contiguous(tensor))
    return found.digest()


_HASHES: dict[InputHash, Hash] = {"sha256": hash_sha256, "blake2b": hash_blake2b}


def _no_hash(tensors: Arrays) -> bytes:
    """Return what stands for no hash."""
    del tensors
    return NO_HASH


def _input_flags(hashed: InputHash) -> int:
    """Return the flags of a record with an input's hash."""
    return INPUT_HASHED | (BLAKE2B if hashed == "blake2b" else 0)


def _contiguous(tensor: Array) -> memoryview:
    """Return a tensor's bytes; those of a slice of a picture are copied."""
    whole = tensor if tensor.flags.c_contiguous else np.ascontiguousarray(tensor)
    return whole.data


def _as_bytes(tensors: Arrays) -> tuple[bytes, ...]:
    """Return a copy of some tensors."""
    return tuple(tensor.tobytes() for tensor in tensors)


def _digest(model: LoadedModel) -> str:
    """Return the digest of what runs."""
    return model.digest or model.variant.sha256
