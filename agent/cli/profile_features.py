"""Features of held-out data: one variant, run as the worker would run it.

Runs in the child of ``agent.cli.profile_reader``.

The rules this module keeps:
 * The worker's own sources, preprocess, engine and feature code; plain kernels, whose
   answers agree to the bit on every machine.
 * A bad sample is counted and passed over, as it is on a board; a model that fails on
   a good one ends it all.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.cli.profile_learning import Reservoir, begin, learn, tensor_values
from agent.cli.profile_shifts import shift_inputs, stack_first
from agent.cli.profile_words import Done, Features, Question, ShiftedRows
from agent.core.drift.features import FeatureReader, build_reader
from agent.core.manifest import parse_manifest
from agent.core.profile import Reference
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.content import seal_content
from agent.worker.examine import default_examiner
from agent.worker.model import LoadedModel, load_model
from agent.worker.samples import Arrays, InputError, OutputError
from agent.worker.sources.reading import Item, find_files, read_all

SAY_EVERY = 16  # samples between words about progress, of which a terminal shows few
KEPT = 200  # samples to be changed on purpose: medians of delays need no more
KEPT_BYTES = 128 * 1024 * 1024  # of their inputs: 200 pictures of 224 x 224 take 120 MB
LEARNT = 4096  # rows that axes are computed from: 8 axes of 1,024 values need no more
Say = Callable[[Done], None]
Answer = tuple[Arrays, Arrays, int, float]


@dataclass(slots=True)
class Seen:
    """What one pass has read; see ``Features``."""

    values: list[NDArray[np.float32]] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    number: list[int] = field(default_factory=list)
    part: list[int] = field(default_factory=list)
    samples: int = 0
    invalid: int = 0
    failed: int = 0
    failure: str = ""
    more: bool = False

    def fail(self, err: Exception) -> None:
        """Count a bad sample."""
        self.failed += 1
        self.failure = self.failure or str(err)


def read(question: Question, say: Say) -> Features:
    """Run one variant over all the data and return what its reader saw.

    Data are read twice where something has to be learnt from all of them first: the
    centre of a sensor vector, the axes of an inner tensor, answers without softmax.

    Raises:
        TrialFailedError: The model does not load, or fails on a sample.
        DeviceError: The data cannot be read.
        BundleRefusedError: Such features cannot be had of this model.
    """
    model = _load(question)
    manifest, variant = model.manifest, model.variant
    draft = begin(variant.sha256, question)
    reader = build_reader(manifest, variant, draft)
    tensors = Reservoir(LEARNT, question.seed)
    kept = Reservoir(_kept_samples(model), question.seed)
    wants_tensor = tensor_values(variant, question.tensor)

    def take(inputs: Arrays, outputs: Arrays) -> None:
        if wants_tensor:
            tensors.offer(lambda: wants_tensor(outputs))
        kept.offer(lambda: [np.array(array) for array in inputs])

    seen = _pass(model, reader, question, say, take)
    learnt = learn(variant.sha256, question, reader, seen.values, tensors.rows)
    if learnt is not None:
        draft, reader = learnt, build_reader(manifest, variant, learnt)
        seen = _pass(model, reader, question, say, lambda *_: None)
    shifted = _shifted(model, reader, question, kept) if question.shifts else ()
    return _tell(reader, seen, draft, shifted)


def _load(question: Question) -> LoadedModel:
    """Load the variant on plain kernels."""
    descriptor = seal_content(question.content, question.variant)
    executor = default_examiner().executor
    manifest = parse_manifest(question.manifest)
    try:
        return load_model(0, manifest, question.variant, executor, descriptor)
    finally:
        os.close(descriptor)


def _kept_samples(model: LoadedModel) -> int:
    """Return how many samples' inputs may be kept."""
    size = sum(
        int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
        for spec in model.variant.inputs
    )
    return min(KEPT, max(1, KEPT_BYTES // size))


def _items(question: Question, begin_anew: Callable[[], None]) -> Iterator[Item]:
    """Yield all samples of all parts; each part is a recording of its own."""
    for path in question.parts:
        begin_anew()
        yield from read_all(find_files(Path(path)), question.array, loop=False)


def _pass(
    model: LoadedModel,
    reader: FeatureReader,
    question: Question,
    say: Say,
    take: Callable[[Arrays, Arrays], None],
) -> Seen:
    """Read everything once.

    Raises:
        TrialFailedError: ``invoke``: the interpreter failed on a good sample.
    """
    seen = Seen()
    part = -1

    def begin_anew() -> None:
        nonlocal part
        part += 1
        model.reset()

    boundaries = frozenset(question.boundaries)
    items = _items(question, begin_anew)
    for number, item in enumerate(itertools.islice(items, question.limit)):
        seen.samples += 1
        if number % SAY_EVERY == 0:
            say(Done(number))
        if number in boundaries:
            model.reset()
        answer = _answer(model, item, seen)
        if answer is None:
            continue
        take(answer[0], answer[1])
        values = reader.read(*answer)
        if values is None:
            seen.invalid += 1
            continue
        _note(seen, values, answer, reader.confidence)
        seen.number.append(number)
        seen.part.append(part)
    say(Done(seen.samples))
    seen.more = next(items, None) is not None
    return seen


def _answer(model: LoadedModel, item: Item, seen: Seen) -> Answer | None:
    """Return what the model says about one sample, None if it is bad or none yet.

    Raises:
        TrialFailedError: ``invoke``.
    """
    try:
        if isinstance(item, InputError):
            raise item
        inputs = model.preprocess(item)
        if inputs is None:
            return None
        outputs = model.infer(inputs)
        return inputs, outputs, *model.judge(inputs, outputs)
    except (InputError, OutputError) as err:
        seen.fail(err)
        return None
    except (ValueError, RuntimeError) as err:
        raise TrialFailedError(
            f"sample {seen.samples - 1}: {err}", reason=Reason.INVOKE
        ) from err


def _note(
    seen: Seen, values: NDArray[np.floating], answer: Answer, confidence: float
) -> None:
    """Keep one row; the reader's buffer is written again by the next sample."""
    seen.values.append(values.astype(np.float32))
    seen.index.append(answer[2])
    seen.score.append(answer[3])
    seen.confidence.append(confidence)


def _shifted(
    model: LoadedModel, reader: FeatureReader, question: Question, kept: Reservoir
) -> tuple[ShiftedRows, ...]:
    """Return the features of kept samples under every shift of their kind.

    A model with state answers by what came before: a sample drawn out of its recording
    says nothing about it.
    """
    if model.manifest.state or not kept.rows:
        return ()
    stack = stack_first(kept.rows)
    found = []
    for shift, changed in shift_inputs(stack, reader.kind, question.seed):
        seen = Seen()
        for first, inputs in zip(changed, kept.rows, strict=True):
            arrays = [first, *inputs[1:]]
            outputs = model.infer(arrays)
            try:
                index, score = model.judge(arrays, outputs)
            except OutputError:
                continue  # NaN: on a board it would be counted, not compared
            values = reader.read(arrays, outputs, index, score)
            if values is not None:
                seen.values.append(values.astype(np.float32))
        raw = _bytes(seen.values, "<f4")
        found.append(ShiftedRows(shift.name, shift.meaning, raw))
    return tuple(found)


def _tell(
    reader: FeatureReader,
    seen: Seen,
    draft: Reference | None,
    shifted: tuple[ShiftedRows, ...],
) -> Features:
    """Return the child's last word."""
    return Features(
        names=reader.names,
        inputs=tuple(reader.columns["input"].tolist()),
        outputs=tuple(reader.columns["output"].tolist()),
        kind=reader.kind,
        classes=reader.classes,
        logits=reader.logits,
        notes=reader.notes,
        values=_bytes(seen.values, "<f4"),
        index=_bytes(seen.index, "<i4"),
        score=_bytes(seen.score, "<f4"),
        confidence=_bytes(seen.confidence, "<f4"),
        number=_bytes(seen.number, "<i8"),
        part=_bytes(seen.part, "<i4"),
        samples=seen.samples,
        failed=seen.failed,
        failure=seen.failure,
        invalid=seen.invalid,
        more=seen.more,
        projection=draft.projection if draft else None,
        centre=draft.centre if draft else b"",
        precision=draft.precision if draft else b"",
        shifts=shifted,
    )


def _bytes(
    values: list[float] | list[int] | list[NDArray[np.float32]], dtype: str
) -> bytes:
    """Return numbers as little-endian bytes."""
    return np.asarray(values, dtype).tobytes()
