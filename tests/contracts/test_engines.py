"""One contract for every engine: both runtimes, all kernels, and the scripted fake."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.core.executors import EngineName, Executor, Kernels
from agent.core.manifest import TensorSpec
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.content import content_path, seal_content
from agent.worker.engines import Engine, available_engines, build_engine
from agent.worker.samples import Arrays
from tests.fakes.scripted_engine import ScriptedEngine
from tests.fakes.tiny_models import content

INT8 = TensorSpec("sample", (1, 4), "int8", 0.5, -3)


def two_scripted() -> Engine:
    """Return the fake of two_in_two_out.tflite."""
    left, right = (TensorSpec(name, (1, 4), "float32") for name in ("left", "right"))
    total, rest = (
        TensorSpec(name, (1, 4), "float32") for name in ("sum", "difference")
    )
    return ScriptedEngine(
        (left, right),
        (total, rest),
        lambda given: [given[0] + given[1], given[0] - given[1]],
    )


def quantised_scripted() -> Engine:
    """Return the fake of quantised.tflite: RELU at the zero point."""
    answer = TensorSpec("answer", (1, 4), "int8", 0.5, -3)
    return ScriptedEngine((INT8,), (answer,), lambda given: [given[0].clip(-3, None)])


SCRIPTED: dict[str, Callable[[], Engine]] = {
    "two_in_two_out": two_scripted,
    "quantised": quantised_scripted,
}


@dataclass(frozen=True)
class Maker:
    """Builds engines of one kind; ``executor`` is None for the scripted fake."""

    executor: Executor | None

    def __call__(self, name: str) -> Engine:
        """Build the engine of one of the models in tests/data."""
        if self.executor is None:
            return SCRIPTED[name]()
        return build_engine(self.executor, content(name))


KINDS: list[tuple[EngineName, Kernels, int]] = [
    ("litert", "xnnpack", 1),
    ("litert", "xnnpack", 2),
    ("litert", "plain", 1),
    ("litert", "reference", 1),
    ("tflite", "xnnpack", 1),
    ("tflite", "plain", 1),
    ("tflite", "reference", 1),
]


def maker_for(name: EngineName, kernels: Kernels, threads: int) -> Maker:
    """Return a maker, or skip where the runtime is not installed."""
    if name not in available_engines():
        # No tool that CI promises: tflite-runtime has no wheel for newer Pythons.
        pytest.skip(f"runtime {name} does not work here (Python, numpy < 2)")
    return Maker(Executor(name, kernels, threads))


@pytest.fixture(params=["scripted", *KINDS], ids=str)
def maker(request: pytest.FixtureRequest) -> Maker:
    """Give a maker of each kind of engine."""
    if request.param == "scripted":
        return Maker(None)
    return maker_for(*request.param)


@pytest.fixture(params=KINDS, ids=str)
def real(request: pytest.FixtureRequest) -> Maker:
    """Give a maker of each kind of engine that runs files."""
    return maker_for(*request.param)


class TestEveryEngine:
    """What the loop relies on, whatever computes."""

    def test_contract_is_what_the_model_is(self, maker: Maker) -> None:
        """Inputs carry name, shape, type and quantisation, in the model's order."""
        assert list(maker("quantised").inputs) == [INT8]
        assert [s.name for s in maker("two_in_two_out").inputs] == ["left", "right"]
        assert [spec.name for spec in maker("two_in_two_out").outputs] == [
            "sum",
            "difference",
        ]

    def test_many_inputs_give_many_outputs_in_order(self, maker: Maker) -> None:
        """The first output is the sum, the second the difference."""
        left = np.array([[1, 2, 3, 4]], np.float32)
        right = np.array([[4, 3, 2, 1]], np.float32)
        total, rest = maker("two_in_two_out").infer([left, right])
        np.testing.assert_array_equal([[5, 5, 5, 5]], total)
        np.testing.assert_array_equal([[-3, -1, 1, 3]], rest)

    def test_quantised_values_pass_raw(self, maker: Maker) -> None:
        """Stored values go in and come out: real zero is the zero point."""
        (answer,) = maker("quantised").infer([np.array([[-128, -3, 0, 127]], np.int8)])
        assert np.int8 == answer.dtype
        np.testing.assert_array_equal([[-3, -3, 0, 127]], answer)

    def test_answers_are_not_touched_by_later_samples(self, maker: Maker) -> None:
        """An answer may be kept: the next inference writes elsewhere."""
        engine = maker("quantised")
        (kept,) = engine.infer([np.full((1, 4), 100, np.int8)])
        engine.infer([np.full((1, 4), 50, np.int8)])
        np.testing.assert_array_equal([[100] * 4], kept)

    def test_inputs_are_not_changed(self, maker: Maker) -> None:
        """A sample belongs to whoever gave it; read-only ones are fine."""
        sample = np.array([[-128, -3, 0, 127]], np.int8)
        sample.setflags(write=False)
        maker("quantised").infer([sample])
        np.testing.assert_array_equal([[-128, -3, 0, 127]], sample)

    @pytest.mark.parametrize(
        "wrong",
        [
            [np.zeros((1, 5), np.int8)],
            [np.zeros((4,), np.int8)],
            [np.zeros((1, 4), np.float32)],
            [],
            [np.zeros((1, 4), np.int8), np.zeros((1, 4), np.int8)],
        ],
        ids=["width", "rank", "type", "none", "two"],
    )
    def test_a_wrong_sample_is_an_error_and_changes_nothing(
        self, maker: Maker, wrong: Arrays
    ) -> None:
        """Number, shape or type that do not fit raise; the next sample is answered."""
        engine = maker("quantised")
        with pytest.raises(ValueError):  # noqa: PT011 - each engine has its own words
            engine.infer(wrong)
        (answer,) = engine.infer([np.full((1, 4), 9, np.int8)])
        np.testing.assert_array_equal([[9] * 4], answer)

    def test_reset_is_always_allowed(self, maker: Maker) -> None:
        """Before and after samples, and twice."""
        engine = maker("quantised")
        engine.reset()
        engine.infer([np.zeros((1, 4), np.int8)])
        engine.reset()
        engine.reset()
        (answer,) = engine.infer([np.zeros((1, 4), np.int8)])
        np.testing.assert_array_equal([[0] * 4], answer)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(values=arrays(np.int8, (1, 4)))
    def test_same_sample_same_answer(self, maker: Maker, values: np.ndarray) -> None:
        """An engine without state answers one sample the same way every time."""
        engine = maker("quantised")
        (first,) = engine.infer([values])
        (second,) = engine.infer([values])
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(np.maximum(values, -3), first)


class TestRealEngines:
    """What only engines that run files can be asked."""

    def test_operators_are_named(self, real: Maker) -> None:
        """The graph's operators, or the delegate that took them over."""
        assert set(real("two_in_two_out").operators) <= {"ADD", "SUB", "DELEGATE"}

    def test_memory_is_estimated_from_the_graph_alone(self, real: Maker) -> None:
        """Two vectors of 16 bytes round up to one step of 64 KiB, on any machine."""
        assert real("two_in_two_out").ram_bytes == 64 * 1024

    def test_open_batch_becomes_one(self, real: Maker) -> None:
        """A leading dimension that is open is a batch."""
        assert real("dynamic_batch").inputs[0].shape == (1, 4)

    def test_variables_begin_empty_and_are_reset(self, real: Maker) -> None:
        """Warming up leaves no trace in what a model keeps inside itself."""
        engine = real("remembering")
        zero = np.zeros((1, 1), np.float32)
        answers = [engine.infer([zero])[0].item() for _ in range(3)]
        engine.reset()
        assert [*answers, engine.infer([zero])[0].item()] == [1, 1.5, 1.75, 1]

    def test_a_path_and_bytes_give_the_same(self, real: Maker) -> None:
        """A sealed memfd is mapped by its path under /proc/self/fd."""
        assert real.executor is not None
        descriptor = seal_content(content("quantised"), "quantised")
        try:
            engine = build_engine(real.executor, content_path(descriptor))
        finally:
            os.close(descriptor)  # the runtime keeps its own mapping
        (answer,) = engine.infer([np.full((1, 4), 9, np.int8)])
        np.testing.assert_array_equal([[9] * 4], answer)

    @pytest.mark.parametrize("shape", [(1, 4), (3, 4)])
    def test_a_manifest_fixes_an_open_shape(
        self, real: Maker, shape: tuple[int, ...]
    ) -> None:
        """The stated shape is allocated, and answered."""
        assert real.executor is not None
        engine = build_engine(
            real.executor, content("dynamic_batch"), {"sample": shape}
        )
        assert shape == engine.inputs[0].shape == engine.outputs[0].shape
        (answer,) = engine.infer([np.full(shape, 2, np.float32)])
        np.testing.assert_array_equal(np.full(shape, 2), answer)

    @pytest.mark.parametrize(
        ("name", "shapes", "reason"),
        [
            ("unknown_operator", {}, Reason.UNSUPPORTED_OP),
            ("dynamic_length", {}, Reason.DYNAMIC_SHAPE),
            ("dynamic_output", {}, Reason.DYNAMIC_SHAPE),
            ("dynamic_batch", {"sample": (1, 5)}, Reason.CONTRACT),
            ("dynamic_batch", {"sample": (4,)}, Reason.CONTRACT),
            ("quantised", {"sample": (2, 4)}, Reason.CONTRACT),
            ("text", {}, Reason.CONTRACT),
            ("huge", {}, Reason.MEMORY),
        ],
    )
    def test_what_cannot_run_is_refused_with_a_reason(
        self,
        real: Maker,
        name: str,
        shapes: dict[str, tuple[int, ...]],
        reason: Reason,
    ) -> None:
        """The reason is the telling one: a failed allocation is no contract."""
        assert real.executor is not None
        with pytest.raises(TrialFailedError) as caught:
            build_engine(real.executor, content(name), shapes)
        assert reason == caught.value.reason

    @pytest.mark.parametrize("garbage", [b"x" * 100, b"TFL3", bytes(64)])
    def test_garbage_is_refused(self, real: Maker, garbage: bytes) -> None:
        """What is no model at all breaks the contract."""
        assert real.executor is not None
        with pytest.raises(TrialFailedError) as caught:
            build_engine(real.executor, garbage)
        assert caught.value.reason == Reason.CONTRACT

    def test_a_missing_file_is_refused(self, real: Maker) -> None:
        """Not as an OSError of the runtime's."""
        assert real.executor is not None
        with pytest.raises(TrialFailedError) as caught:
            build_engine(real.executor, "/proc/self/fd/nothing")
        assert caught.value.reason == Reason.CONTRACT


@pytest.fixture
def both() -> tuple[Engine, Engine]:
    """Give one model on both runtimes in one process."""
    engines: tuple[EngineName, EngineName] = ("litert", "tflite")
    first, second = (maker_for(name, "plain", 1) for name in engines)
    return first("two_in_two_out"), second("two_in_two_out")


finite = st.floats(-1e6, 1e6, width=32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    left=arrays(np.float32, (1, 4), elements=finite),
    right=arrays(np.float32, (1, 4), elements=finite),
)
def test_runtimes_check_each_other(
    both: tuple[Engine, Engine], left: np.ndarray, right: np.ndarray
) -> None:
    """Side by side, the plain kernels of both runtimes agree to the bit."""
    answers = [engine.infer([left, right]) for engine in both]
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_engine_that_is_not_installed_is_no_executor() -> None:
    """Asking for a runtime that is not there is refused, not an ImportError."""
    missing = {"litert", "tflite"} - available_engines().keys()
    if not missing:
        pytest.skip("both runtimes are installed")
    with pytest.raises(TrialFailedError) as caught:
        build_engine(Executor(missing.pop(), "plain"), content("quantised"))  # type: ignore[arg-type] # one of the two names
    assert caught.value.reason == Reason.NO_EXECUTOR
