"""Sources, models and sinks that do what a script says: for the loop and its parts."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from agent.core.executors import Executor
from agent.core.statistics_block import BLOCK_BYTES, Block, parse_block
from agent.worker.model import LoadedModel
from agent.worker.samples import Array, Arrays, InputError, OutputError, Sample
from agent.worker.slot import ModelSlot
from agent.worker.statistics import StatisticsWriter
from tests.fakes.bundles import SPEC_IN, SPEC_OUT, manifest
from tests.fakes.scripted_engine import ScriptedEngine

# What a sample makes of itself, as its first value: the scripted model reads it.
OK, BAD, STRANGE, WARMING, ENGINE, OUTPUT, EMIT = range(7)


def sample(word: int) -> Sample:
    """Return the sample that ends as ``word`` says."""
    return np.array([word])


class ScriptedSource:
    """Performs one step a ``take``, and stops the loop after the last one.

    A step is a function of the source; what it returns is taken.
    """

    def __init__(
        self,
        slot: ModelSlot,
        steps: Iterable[Callable[["ScriptedSource"], Sample | None]],
        look: Callable[[], object] = lambda: None,
    ) -> None:
        self.ready_ns = 1
        self.dropped = 0
        self.partial = 0
        self.ended = False
        self.replaced: list[int] = []
        self._slot = slot
        self._steps = iter(steps)
        self._look = look

    def take(self, timeout_s: float) -> Sample | None:
        """Perform the next step."""
        del timeout_s
        self._look()
        for step in self._steps:
            return step(self)
        self._slot.stop()
        return None

    def replace(self, descriptor: int) -> None:
        """Note the descriptor."""
        self.replaced.append(descriptor)


def unreadable(source: ScriptedSource) -> Sample | None:
    """Be a sample that the source cannot read."""
    del source
    raise InputError("half a file")


@dataclass
class ListSink:
    """Keeps what it is given; takes only so much."""

    room: int = 1_000_000
    records: list[dict[str, object]] = field(default_factory=list)

    def write(self, record: dict[str, object]) -> bool:
        """Keep a record while there is room."""
        if len(self.records) >= self.room:
            return False
        self.records.append(record)
        return True


@dataclass(frozen=True, slots=True)
class Script:
    """What a scripted model does at each stage."""

    version: int
    look: Callable[[], object]

    def preprocess(self, taken: Sample) -> Arrays | None:
        """Fail as the sample says, or pass it on."""
        self.look()
        assert isinstance(taken, np.ndarray)
        word = int(taken.flat[0])
        if word == BAD:
            raise InputError("NaN")
        if word == STRANGE:
            raise ValueError("a bug of ours")
        return None if word == WARMING else [taken]

    def infer(self, inputs: Arrays) -> Arrays:
        """Fail as the sample says, or pass it on."""
        self.look()
        if inputs[0].flat[0] == ENGINE:
            raise RuntimeError("the runtime says no")
        return inputs

    def judge(self, inputs: Arrays, outputs: Arrays) -> tuple[int, float]:
        """Fail as the sample says, or answer the version's number modulo 3."""
        self.look()
        del inputs
        if outputs[0].flat[0] == OUTPUT:
            raise OutputError("NaN")
        return self.version % 3, 0.5

    def describe(
        self, inputs: Arrays, outputs: Arrays, index: int, score: float
    ) -> dict[str, object]:
        """Fail as the sample says, or describe."""
        self.look()
        del inputs
        if outputs[0].flat[0] == EMIT:
            raise OutputError("not for JSON")
        return {"label": str(index), "score": score, "outputs": {}}


def scripted_model(
    version: int, look: Callable[[], object] = lambda: None
) -> LoadedModel:
    """Return a model that does what its samples say; ``look`` is called on the way."""

    script = Script(version, look)
    stated = manifest(version=version)
    return LoadedModel(
        generation=version,
        manifest=stated,
        variant=stated.variants[0],
        executor=Executor("litert", "plain"),
        labels=stated.labels,
        preprocess=script.preprocess,
        prepares=True,
        infer=script.infer,
        judge=script.judge,
        describe=script.describe,
        reset=lambda: None,
        engine=ScriptedEngine((SPEC_IN,), (SPEC_OUT,), list[Array]),
    )


class Board:
    """A statistics block with its writer, looked at like the daemon does."""

    def __init__(self, first_seq: int = 1) -> None:
        self.memory = bytearray(BLOCK_BYTES)
        self.writer = StatisticsWriter(memoryview(self.memory), first_seq)

    def block(self) -> Block:
        """Return the block, which must show one moment."""
        found = parse_block(bytes(self.memory))
        assert found is not None, "the sums do not agree"
        return found

    def sections(self) -> Iterator[tuple[int, tuple[int, ...], int]]:
        """Yield (generation, outcomes, received) of the sections that are used."""
        for section in self.block().sections:
            if section.generation:
                yield section.generation, section.outcomes, section.received
