"""Loading a model: digest, seals, contract, state."""

import gc
import os
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.manifest import Manifest, TensorSpec
from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, TrialFailedError
from agent.worker.content import check_content, seal_content
from agent.worker.model import bind_model, carry_state, load_model, sample_specs
from agent.worker.samples import Arrays
from tests.fakes.scripted_engine import ScriptedEngine
from tests.fakes.tiny_models import CARRY, content, executor, loaded, manifest, variant


def ones(value: float) -> np.ndarray:
    """Return one vector for the tiny models."""
    return np.full((1, 4), value, np.float32)


class TestContent:
    """What is loaded is what was hashed."""

    def test_the_verified_bytes_are_accepted(self) -> None:
        """A sealed memfd with the expected digest."""
        stated = variant("quantised")
        descriptor = seal_content(content("quantised"), "model")
        check_content(descriptor, stated.sha256, "variant")
        os.close(descriptor)

    def test_another_digest_is_refused(self) -> None:
        """One bit is enough."""
        spoilt = bytearray(content("quantised"))
        spoilt[100] ^= 1
        descriptor = seal_content(bytes(spoilt), "model")
        with pytest.raises(BundleRefusedError) as caught:
            load_model(1, manifest("quantised"), "quantised", executor(), descriptor)
        os.close(descriptor)
        assert caught.value.reason == Reason.DIGEST

    def test_bytes_that_may_change_are_refused(self, tmp_path: Path) -> None:
        """A memfd without seals, and a file: they could change after the hash."""
        path = tmp_path / "model"
        path.write_bytes(content("quantised"))
        loose = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
        os.write(loose, content("quantised"))
        for descriptor in (loose, os.open(path, os.O_RDONLY)):
            with pytest.raises(BundleRefusedError, match="not sealed") as caught:
                check_content(descriptor, variant("quantised").sha256, "variant")
            os.close(descriptor)
            assert caught.value.reason == Reason.DIGEST

    def test_the_memfd_may_be_closed_after_loading(self) -> None:
        """The runtime keeps its own mapping."""
        with loaded(manifest("two_in_two_out"), "two_in_two_out") as model:
            pass
        total, _ = model.infer([ones(1), ones(2)])
        np.testing.assert_array_equal(ones(3), total)


class TestContract:
    """The manifest and the model have to say the same."""

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", "other"),
            ("shape", (1, 5)),
            ("shape", (4,)),
            ("dtype", "uint8"),
            ("scale", 0.25),
            ("scale", 0.0),
            ("zero_point", 3),
        ],
    )
    @pytest.mark.parametrize("side", ["inputs", "outputs"])
    def test_every_lie_is_found(self, side: str, field: str, value: object) -> None:
        """Name, shape, type and quantisation of inputs and outputs."""
        honest = variant("quantised")
        (spec,) = getattr(honest, side)
        changed: dict[str, Any] = {side: (replace(spec, **{field: value}),)}
        lying = manifest("quantised", variants=(replace(honest, **changed),))
        with pytest.raises(TrialFailedError) as caught, loaded(lying, "quantised"):
            pass
        assert caught.value.reason == Reason.CONTRACT

    @pytest.mark.parametrize("side", ["inputs", "outputs"])
    def test_the_number_of_tensors_is_part_of_it(self, side: str) -> None:
        """A tensor too few, or one that is not there."""
        honest = variant("two_in_two_out")
        specs = getattr(honest, side)
        more = TensorSpec("more", (1, 4), "float32")
        for lie in (specs[:1], (*specs, more)):
            lying = manifest(
                "two_in_two_out", variants=(replace(honest, **{side: lie}),)
            )
            with (
                pytest.raises(TrialFailedError) as caught,
                loaded(lying, "two_in_two_out"),
            ):
                pass
            assert caught.value.reason == Reason.CONTRACT

    def test_a_scale_written_in_six_digits_is_honest(self) -> None:
        """Scales are float32 in the model, decimals in the manifest."""
        honest = variant("quantised")
        inputs = (replace(honest.inputs[0], scale=0.50000001),)
        stated = manifest("quantised", variants=(replace(honest, inputs=inputs),))
        with loaded(stated, "quantised") as model:
            assert model.generation == 7

    def test_a_manifest_fixes_an_open_batch(self) -> None:
        """The stated shape is what is allocated."""
        honest = variant("dynamic_batch")
        stated = manifest(
            "dynamic_batch",
            variants=(
                replace(
                    honest,
                    inputs=(replace(honest.inputs[0], shape=(3, 4)),),
                    outputs=(replace(honest.outputs[0], shape=(3, 4)),),
                ),
            ),
        )
        with loaded(stated, "dynamic_batch") as model:
            (answer,) = model.infer([np.ones((3, 4), np.float32)])
        assert answer.shape == (3, 4)

    def test_an_unknown_variant_is_refused(self) -> None:
        """By the manifest itself."""
        with (
            pytest.raises(BundleRefusedError) as caught,
            loaded(manifest("streaming"), "quantised"),
        ):
            pass
        assert caught.value.reason == Reason.MANIFEST


class TestState:
    """Streaming models: outputs that are the next sample's inputs."""

    def test_samples_do_not_carry_state(self) -> None:
        """Only the other inputs are asked of a source."""
        stated = manifest("streaming")
        names = [spec.name for spec in sample_specs(stated, stated.variants[0])]
        assert names == ["sample"]

    def test_state_is_fed_back_and_reset(self) -> None:
        """A leaky sum of ones goes 1, 1.5, 1.75; reset begins again."""
        with loaded(manifest("streaming"), "streaming") as model:
            answers = [model.infer([ones(1)])[0][0, 0] for _ in range(3)]
            model.reset()
            again = model.infer([ones(1)])[0][0, 0]
        assert [*answers, again] == [1, 1.5, 1.75, 1]

    def test_a_new_model_begins_without_the_past(self) -> None:
        """Loading warms the engine up, and leaves no trace of it."""
        with loaded(manifest("streaming"), "streaming") as model:
            assert model.infer([ones(0)])[0][0, 0] == 0

    def test_a_failed_sample_leaves_the_state(self) -> None:
        """The next one goes on from the last that was answered."""
        with loaded(manifest("streaming"), "streaming") as model:
            model.infer([ones(1)])
            with pytest.raises(ValueError, match=r"."):
                model.infer([np.ones((1, 9), np.float32)])
            assert model.infer([ones(1)])[0][0, 0] == 1.5

    def test_models_without_state_pay_nothing(self) -> None:
        """Their ``infer`` is the engine's own closure."""
        with loaded(manifest("quantised"), "quantised") as model:
            assert model.infer is model.engine.infer

    @given(st.lists(st.integers(-50, 50), max_size=20))
    def test_feedback_equals_doing_it_by_hand(self, samples: list[int]) -> None:
        """``carry_state`` is the recurrence that the links describe."""
        stated = variant("streaming")
        engine = ScriptedEngine(stated.inputs, stated.outputs, leaky)
        infer, reset, whole = carry_state(stated, CARRY, engine.infer)
        carried = ones(0)
        for value in samples:
            total, carry = leaky([ones(value), carried])
            np.testing.assert_array_equal([ones(value), carried], whole([ones(value)]))
            answers = infer([ones(value)])
            np.testing.assert_array_equal(total, answers[0])
            carried = carry
        reset()
        np.testing.assert_array_equal(ones(3), infer([ones(3)])[0])


def leaky(given: Arrays) -> Arrays:
    """Compute what streaming.tflite computes."""
    total = given[0] + given[1]
    return [total, total * np.float32(0.5)]


class TestWhole:
    """Everything around the engine."""

    def test_float_samples_are_quantised(self) -> None:
        """A float array for an int8 input goes through scale and zero point."""
        with loaded(manifest("quantised"), "quantised") as model:
            inputs = model.preprocess(np.array([-1.5, 0, 1.5, 100], np.float32))
            assert inputs is not None
            np.testing.assert_array_equal([[-6, -3, 0, 127]], inputs[0])

    def test_an_engine_of_any_kind_is_bound(self) -> None:
        """``bind_model`` needs no file: a scripted engine answers as well."""
        stated = manifest("streaming")
        engine = ScriptedEngine(
            stated.variants[0].inputs, stated.variants[0].outputs, leaky
        )
        model = bind_model(1, stated, stated.variants[0], executor(), engine)
        model.infer([ones(2)])
        model.reset()
        assert (engine.calls, engine.resets) == (1, 1)

    def test_a_discarded_model_is_gone(self) -> None:
        """No cycle keeps an old interpreter's memory after a swap."""
        with loaded(manifest("quantised"), "quantised") as model:
            pass
        reference = weakref.ref(model.engine.interpreter)  # type: ignore[attr-defined] # a real engine
        del model
        gc.collect()
        assert reference() is None

    def test_candidates_build_beside_a_running_model(self) -> None:
        """A second thread loads while the first one answers, both correctly."""
        stated: Manifest = manifest("two_in_two_out")
        failures: list[AgentError] = []

        def build() -> None:
            try:
                for _ in range(20):
                    with loaded(stated, "two_in_two_out") as candidate:
                        candidate.infer([ones(1), ones(1)])
            except AgentError as err:
                failures.append(err)

        builder = threading.Thread(target=build)
        with loaded(stated, "two_in_two_out") as model:
            builder.start()
            while builder.is_alive():
                total, _ = model.infer([ones(1), ones(2)])
                np.testing.assert_array_equal(ones(3), total)
            builder.join()
        assert failures == []

    def test_loading_imports_no_more_than_it_needs(self) -> None:
        """The runtime brings neither protobuf nor flatbuffers into a worker."""
        script = (
            "import sys; from agent.worker.engines import build_engine; "
            "from tests.fakes.tiny_models import content, executor; "
            "build_engine(executor(), content('quantised')); "
            "print(*sorted({n.split('.')[0] for n in sys.modules}))"
        )
        loaded_names = run_python(script).split()
        unwanted = {"flatbuffers", "google", "ml_dtypes", "PIL", "scipy", "tuf"}
        assert unwanted & set(loaded_names) == set()


def run_python(script: str) -> str:
    """Return what a fresh interpreter prints."""
    import subprocess

    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout
