"""The author's side: contracts and golden samples of real files."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from agent.core.manifest import TensorSpec
from agent.core.reasons import Reason
from agent.core.steps import Window
from agent.errors import TrialFailedError
from agent.publish.pack import Examiner as PackExaminer
from agent.worker.engines.graph import Node, peak_bytes
from agent.worker.examine import (
    Examiner,
    check_fixed_outputs,
    default_examiner,
    read_samples,
    stack_samples,
)
from agent.worker.golden import parse_golden
from tests.fakes.scripted_engine import ScriptedEngine
from tests.fakes.tiny_models import content, manifest

SAMPLES = np.arange(20, dtype=np.float32).reshape(5, 4)


@pytest.fixture
def examiner() -> Examiner:
    """Give an examiner on a runtime that is installed here."""
    return default_examiner()


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Give a file of five samples."""
    path = tmp_path / "samples.npy"
    np.save(path, SAMPLES)
    return path


def test_it_is_the_packers_examiner(examiner: Examiner) -> None:
    """mypy checks the fit; here it is only named."""
    fitting: PackExaminer = examiner
    assert fitting is examiner


class TestContract:
    """``Examiner.contract``."""

    def test_facts_come_from_the_file(self, examiner: Examiner) -> None:
        """Tensors, operators, memory."""
        facts = examiner.contract(content("quantised"))
        assert facts.inputs == (TensorSpec("sample", (1, 4), "int8", 0.5, -3),)
        assert facts.outputs == (TensorSpec("answer", (1, 4), "int8", 0.5, -3),)
        assert (facts.operators, facts.ram_bytes) == (("RELU",), 65_536)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("unknown_operator", Reason.UNSUPPORTED_OP),
            ("dynamic_length", Reason.DYNAMIC_SHAPE),
            ("dynamic_output", Reason.DYNAMIC_SHAPE),
            ("dynamic_rows", Reason.DYNAMIC_SHAPE),
            ("text", Reason.CONTRACT),
            ("huge", Reason.MEMORY),
        ],
    )
    def test_what_no_board_could_run_is_refused(
        self, examiner: Examiner, name: str, reason: Reason
    ) -> None:
        """Before anything is packed or signed."""
        with pytest.raises(TrialFailedError) as caught:
            examiner.contract(content(name))
        assert caught.value.reason == reason

    def test_outputs_that_change_their_shape_are_refused(self) -> None:
        """The same, where the runtime would answer with another shape."""
        spec = TensorSpec("x", (1, 4), "float32")
        engine = ScriptedEngine((spec,), (spec,), lambda _: [np.zeros((2, 4), "f4")])
        with pytest.raises(TrialFailedError) as caught:
            check_fixed_outputs(engine)
        assert caught.value.reason == Reason.DYNAMIC_SHAPE

    def test_public_models_have_plausible_contracts(
        self, examiner: Examiner, models: Path
    ) -> None:
        """MLPerf Tiny: the documented shapes, and weights counted once more."""
        raw = (models / "mlperf-tiny" / "kws_ref_model.tflite").read_bytes()
        facts = examiner.contract(raw)
        assert [spec.shape for spec in facts.inputs] == [(1, 49, 10, 1)]
        assert [spec.shape for spec in facts.outputs] == [(1, 12)]
        assert "DEPTHWISE_CONV_2D" in facts.operators
        assert 32_000 < facts.ram_bytes < 2 * len(raw)


class TestPeak:
    """``peak_bytes``: what an arena has to hold."""

    def test_a_branch_keeps_its_input_alive(self) -> None:
        """0 is needed until the end, so all three live together."""
        nodes = (Node("A", (0,), (1,)), Node("B", (0, 1), (2,)))
        assert peak_bytes(nodes, {0: 1, 1: 10, 2: 100}, [0], [2]) == 111

    def test_what_is_used_up_makes_room(self) -> None:
        """Along a chain only two neighbours live at a time."""
        nodes = tuple(Node("A", (at,), (at + 1,)) for at in range(5))
        assert peak_bytes(nodes, dict.fromkeys(range(6), 8), [0], [5]) == 16

    def test_outputs_live_to_the_end(self) -> None:
        """Even if nothing reads them."""
        nodes = (Node("A", (0,), (1,)), Node("B", (0,), (2,)))
        assert peak_bytes(nodes, {0: 1, 1: 1, 2: 1}, [0], [1, 2]) == 3


class TestGolden:
    """``Examiner.golden``."""

    def test_outputs_are_what_the_model_answers(
        self, examiner: Examiner, samples: Path
    ) -> None:
        """The first samples, in real units."""
        stated = manifest("quantised")
        raw = examiner.golden(
            stated, {"quantised": content("quantised")}, samples, "", 3
        )
        stated = replace(stated, golden=replace(stated.golden, samples=3))
        golden = parse_golden(memoryview(raw), stated)
        np.testing.assert_array_equal(SAMPLES[:3], golden.samples[0])
        np.testing.assert_array_equal(SAMPLES[:3, None], golden.outputs["quantised"][0])

    def test_the_same_input_gives_the_same_bytes(
        self, examiner: Examiner, samples: Path
    ) -> None:
        """Twice."""
        stated, models = manifest("quantised"), {"quantised": content("quantised")}
        first, second = (
            examiner.golden(stated, models, samples, "", 2) for _ in range(2)
        )
        assert first == second

    @pytest.mark.parametrize(
        ("name", "count", "reason"),
        [
            ("quantised", 6, Reason.INPUT),
            ("logarithm", 1, Reason.NOT_FINITE),
        ],
    )
    def test_what_cannot_be_golden_is_refused(
        self, examiner: Examiner, samples: Path, name: str, count: int, reason: Reason
    ) -> None:
        """Too few samples; an answer that is not finite (the first sample has a 0)."""
        with pytest.raises(TrialFailedError) as caught:
            examiner.golden(manifest(name), {name: content(name)}, samples, "", count)
        assert caught.value.reason == reason
        assert ("golden_samples" in caught.value.todo) is (reason == Reason.INPUT)

    def test_a_window_that_never_fills_is_refused(
        self, examiner: Examiner, samples: Path
    ) -> None:
        """No sample would ever be answered."""
        stated = manifest("quantised", preprocess=(Window(length=400, hop=400),))
        with pytest.raises(TrialFailedError) as caught:
            examiner.golden(stated, {"quantised": content("quantised")}, samples, "", 5)
        assert caught.value.reason == Reason.GOLDEN


class TestSamples:
    """``read_samples`` and ``stack_samples``."""

    def test_an_array_of_an_npz_may_be_named(self, tmp_path: Path) -> None:
        """As in pack.toml."""
        path = tmp_path / "many.npz"
        np.savez(path, other=np.zeros((2, 4)), wanted=SAMPLES)
        found = read_samples(path, "wanted", 2)
        np.testing.assert_array_equal(SAMPLES[1], found[1])

    def test_samples_of_different_shapes_are_refused(self) -> None:
        """They could not be stacked."""
        specs = (TensorSpec("x", (1, 4), "float32"),)
        with pytest.raises(TrialFailedError) as caught:
            stack_samples([np.zeros(4), np.zeros(5)], specs)
        assert caught.value.reason == Reason.INPUT

    @pytest.mark.parametrize("sample", [np.zeros(4), {"x": np.zeros(4)}])
    def test_every_input_has_to_be_there(
        self, sample: np.ndarray | dict[str, np.ndarray]
    ) -> None:
        """A model with two inputs takes samples by name."""
        specs = tuple(TensorSpec(name, (1, 4), "float32") for name in "xy")
        with pytest.raises(TrialFailedError) as caught:
            stack_samples([sample], specs)
        assert caught.value.reason == Reason.INPUT

    def test_several_inputs_come_from_one_npz(self, tmp_path: Path) -> None:
        """``array = "*"`` gives an array for each input, in the order of inputs."""
        path = tmp_path / "many.npz"
        np.savez(path, y=SAMPLES + 1, x=SAMPLES)
        specs = tuple(TensorSpec(name, (1, 4), "float32") for name in "xy")
        stacks = stack_samples(read_samples(path, "*", 5), specs)
        np.testing.assert_array_equal([SAMPLES, SAMPLES + 1], stacks)

    def test_what_does_not_stack_is_said_in_words(self, tmp_path: Path) -> None:
        """No word of numpy's: how many inputs, how many arrays, how to give them."""
        np.save(tmp_path / "one.npy", SAMPLES)
        specs = tuple(TensorSpec(name, (1, 4), "float32") for name in "xy")
        with pytest.raises(TrialFailedError) as caught:
            stack_samples(read_samples(tmp_path / "one.npy", "", 2), specs)
        assert str(caught.value) == (
            "golden samples: the model has 2 inputs (x, y), the samples one"
        )
        assert 'array = "*"' in caught.value.todo
