"""Golden samples: written, read back, refused when spoilt, compared in real units."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from msgspec.structs import replace

from agent.core.container import parse_container, render_container
from agent.core.manifest import Golden, Manifest
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, TrialFailedError
from agent.worker.golden import (
    GoldenSamples,
    answer,
    compare_outputs,
    parse_golden,
    render_golden,
)
from agent.worker.model import bind_model
from tests.fakes.scripted_engine import ScriptedEngine
from tests.fakes.tiny_models import executor, loaded, manifest, record

SAMPLES = np.arange(12, dtype=np.float32).reshape(3, 4)
finite = st.floats(-1e6, 1e6, width=32)


@pytest.fixture(scope="module")
def recorded() -> tuple[Manifest, bytes]:
    """Give golden samples of a quantised model, with their manifest."""
    return record(manifest("quantised"), [SAMPLES])


def parsed(recorded: tuple[Manifest, bytes]) -> GoldenSamples:
    """Parse golden samples."""
    return parse_golden(memoryview(recorded[1]), recorded[0])


class TestFile:
    """golden.npz."""

    def test_what_was_recorded_is_read(self, recorded: tuple[Manifest, bytes]) -> None:
        """Samples as given, outputs as real float32 values."""
        golden = parsed(recorded)
        (outputs,) = golden.outputs["quantised"]
        np.testing.assert_array_equal(SAMPLES, golden.samples[0])
        np.testing.assert_array_equal(SAMPLES[:, None], outputs)
        assert outputs.dtype == np.float32

    def test_numpy_reads_it_too(
        self, recorded: tuple[Manifest, bytes], tmp_path: Path
    ) -> None:
        """It is an ordinary .npz, without pickles."""
        path = tmp_path / "golden.npz"
        path.write_bytes(recorded[1])
        with np.load(path, allow_pickle=False) as file:
            assert sorted(file) == ["output.quantised.0", "samples"]
            np.testing.assert_array_equal(SAMPLES, file["samples"])

    def test_equal_values_give_equal_bytes(
        self, recorded: tuple[Manifest, bytes]
    ) -> None:
        """No time, no order of memory, no chance."""
        other = np.asfortranarray(SAMPLES)
        assert record(manifest("quantised"), [other])[1] == recorded[1]

    @given(
        samples=arrays(
            st.sampled_from(["uint8", "int16", "float32"]), array_shapes(max_dims=3)
        ),
        outputs=arrays("float32", (2, 1, 4), elements=finite),
    )
    def test_parse_render_is_identity(
        self, samples: np.ndarray, outputs: np.ndarray
    ) -> None:
        """``parse_golden(render_golden(g)) == g``."""
        stated = manifest("quantised", golden=Golden("0" * 64, 1, len(samples)))
        rows = outputs[: len(samples)]
        raw = render_golden(GoldenSamples((samples,), {"quantised": (rows,)}))
        golden = parse_golden(memoryview(raw), stated)
        np.testing.assert_array_equal(samples, golden.samples[0])
        np.testing.assert_array_equal(rows, golden.outputs["quantised"][0])
        assert render_golden(golden) == raw

    def test_several_inputs_are_told_apart_by_number(self) -> None:
        """Names of tensors may hold anything; numbers name the entries."""
        left, right = SAMPLES, SAMPLES + 1
        golden = parsed(record(manifest("two_in_two_out"), [left, right]))
        sample = next(golden.sequence(["left", "right"]))
        assert isinstance(sample, dict)
        np.testing.assert_array_equal(left[0], sample["left"])
        np.testing.assert_array_equal(right[0], sample["right"])

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(at=st.integers(0, 2**16), bit=st.integers(0, 7))
    def test_any_flipped_bit_is_refused(
        self, recorded: tuple[Manifest, bytes], at: int, bit: int
    ) -> None:
        """Nothing but ``BundleRefusedError`` leaves."""
        spoilt = bytearray(recorded[1])
        spoilt[at % len(spoilt)] ^= 1 << bit
        with pytest.raises(BundleRefusedError):
            parse_golden(memoryview(spoilt), recorded[0])

    @given(header=st.binary(max_size=200))
    def test_any_header_is_refused(self, header: bytes) -> None:
        """A well-made container around whatever bytes."""
        entries = {
            "samples.npy": b"\x93NUMPY\x01\x00" + header,
            "output.quantised.0.npy": header,
        }
        with pytest.raises(BundleRefusedError):
            parse_golden(memoryview(render_container(entries)), manifest("quantised"))

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4",
            f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**70}, 0), }}",
        ],
    )
    def test_a_header_that_parsers_stumble_over(self, header: str) -> None:
        """Python's parser, which numpy lets read it, fails in ways of its own."""
        start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        raw = render_container({"samples.npy": start + header.encode()})
        with pytest.raises(BundleRefusedError) as caught:
            parse_golden(memoryview(raw), manifest("quantised"))
        assert caught.value.reason == Reason.MALFORMED

    @pytest.mark.parametrize(
        "claim", ["(9, 4)", "(2, 4)", "(99999999999, 4)", "(-3, 4)"]
    )
    def test_a_size_that_lies_is_refused(
        self, recorded: tuple[Manifest, bytes], claim: str
    ) -> None:
        """In a container that is well made; nothing is allocated for a claim."""
        entries = parse_container(memoryview(recorded[1]))
        honest = bytes(entries["samples.npy"])
        padding = " " * (len(claim) - len("(3, 4)"))
        lie = honest.replace(f"(3, 4), }}{padding}".encode(), f"{claim}, }}".encode())
        assert lie != honest
        raw = render_container({**entries, "samples.npy": lie})
        with pytest.raises(BundleRefusedError) as caught:
            parse_golden(memoryview(raw), recorded[0])
        assert caught.value.reason == Reason.MALFORMED

    @pytest.mark.parametrize(
        ("samples", "outputs", "reason"),
        [
            (SAMPLES[:2], np.zeros((2, 1, 4), "f4"), Reason.GOLDEN),
            (SAMPLES, np.zeros((4, 1, 4), "f4"), Reason.GOLDEN),
            (SAMPLES, np.zeros((0, 1, 4), "f4"), Reason.GOLDEN),
            (SAMPLES, np.zeros((3, 1, 4), "f8"), Reason.GOLDEN),
            (SAMPLES, np.full((3, 1, 4), np.nan, "f4"), Reason.GOLDEN),
            (SAMPLES, np.float32(1), Reason.GOLDEN),
            (SAMPLES, np.zeros((3, 4), "f4"), Reason.GOLDEN),
            (SAMPLES.astype("c8"), np.zeros((3, 1, 4), "f4"), Reason.MALFORMED),
            (SAMPLES.astype("S4"), np.zeros((3, 1, 4), "f4"), Reason.MALFORMED),
        ],
    )
    def test_incomplete_ones_are_refused(
        self, samples: np.ndarray, outputs: np.ndarray, reason: Reason
    ) -> None:
        """Too few, too many, none, of another type, not finite."""
        raw = render_golden(GoldenSamples((samples,), {"quantised": (outputs,)}))
        stated = manifest("quantised", golden=Golden("0" * 64, 1, 3))
        with pytest.raises(BundleRefusedError) as caught:
            parse_golden(memoryview(raw), stated)
        assert caught.value.reason == reason

    def test_a_missing_variant_is_refused(
        self, recorded: tuple[Manifest, bytes]
    ) -> None:
        """Every variant has to have its answers."""
        stated = manifest("quantised", "streaming", golden=recorded[0].golden)
        with pytest.raises(BundleRefusedError) as caught:
            parse_golden(memoryview(recorded[1]), stated)
        assert caught.value.reason == Reason.GOLDEN


class TestCompare:
    """``compare_outputs``."""

    @given(arrays("float32", (2, 3), elements=finite))
    def test_an_answer_agrees_with_itself(self, values: np.ndarray) -> None:
        """Distance 0."""
        assert compare_outputs([values], [values]) == 0

    @given(
        arrays("float32", (4,), elements=finite),
        arrays("float32", (4,), elements=finite),
    )
    def test_distance_is_the_largest_and_symmetric(
        self, one: np.ndarray, other: np.ndarray
    ) -> None:
        """Over every value of every tensor."""
        expected = float(np.abs(one - other).max())
        assert compare_outputs([one, one], [one, other]) == expected
        assert compare_outputs([other, one], [one, one]) == expected

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_never_agrees(self, value: float) -> None:
        """Not even with itself."""
        odd = np.array([0, value], np.float32)
        assert compare_outputs([odd], [odd]) == math.inf

    def test_another_shape_never_agrees(self) -> None:
        """No broadcasting."""
        assert compare_outputs([SAMPLES], [SAMPLES[:1]]) == math.inf


class TestAnswer:
    """Samples through a whole model."""

    def test_windows_answer_fewer(self) -> None:
        """Only answered samples are yielded, from a fresh beginning each time."""
        from agent.core.steps import Window

        stated = manifest("quantised", preprocess=(Window(length=4, hop=1),))
        with loaded(stated, "quantised") as model:
            rows = list(np.arange(6, dtype=np.float32)[:, None])
            for _ in range(2):
                answered = [out[0] for _, out in answer(model, rows)]
                assert len(answered) == 3
                np.testing.assert_array_equal([[-3, -1, 1, 3]], answered[0])

    def test_a_limit_ends_early(self) -> None:
        """The oracle answers a few only."""
        with loaded(manifest("quantised"), "quantised") as model:
            assert len(list(answer(model, SAMPLES, limit=2))) == 2

    def test_an_error_of_the_interpreter_is_a_failed_trial(self) -> None:
        """With its own reason."""
        stated = manifest("quantised")
        only = stated.variants[0]
        engine = ScriptedEngine(only.inputs, only.outputs, lambda given: given)
        engine.failures.append(RuntimeError("Node number 3 failed to invoke"))
        model = bind_model(1, stated, replace(only), executor(), engine)
        with pytest.raises(TrialFailedError, match="Node number 3") as caught:
            list(answer(model, SAMPLES))
        assert caught.value.reason == Reason.INVOKE
