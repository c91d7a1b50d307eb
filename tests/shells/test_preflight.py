"""The child's side of a preflight: what it announces, and what it finds."""

import hashlib
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.executors import Executor
from agent.core.manifest import (
    Golden,
    Manifest,
    TensorSpec,
    render_manifest,
)
from agent.core.messages import Examine, Examined, Examining, Finding, Message
from agent.core.reasons import Reason
from agent.core.trial_verdict import judge_preflight, plan_examination
from agent.worker.agreement import boundary_inputs, check_boundaries
from agent.worker.content import seal_content
from agent.worker.golden import GoldenSamples, parse_golden, render_golden
from agent.worker.memory import Memory, judge_growth, read_memory
from agent.worker.model import bind_model
from agent.worker.preflight import examine
from agent.worker.runtimes import available_engines
from agent.worker.samples import Arrays
from agent.worker.timing import (
    MIN_ROUNDS,
    affordable,
    count_runs,
    fitting_rounds,
    summarise,
)
from tests.fakes.scripted_engine import ScriptedEngine
from tests.fakes.tiny_models import content, executor, manifest, record, variant

SAMPLES = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Report:
    """What a child sent."""

    sent: list[Message] = field(default_factory=list)

    @property
    def findings(self) -> dict[int, Finding]:
        """By number of the pair; each has exactly one."""
        found = [message for message in self.sent if isinstance(message, Finding)]
        assert len({message.index for message in found}) == len(found)
        return {message.index: message for message in found}

    @property
    def stages(self) -> list[tuple[int, str]]:
        """What was announced, in order."""
        announced = [each for each in self.sent if isinstance(each, Examining)]
        return [(message.index, message.stage) for message in announced]


def run(
    stated: Manifest,
    golden: bytes,
    executors: Sequence[Executor] = (),
    contents: dict[str, bytes] | None = None,
    rounds: int = 5,
) -> Report:
    """Examine all variants on all executors in this process."""
    report = Report()
    plan = tuple(
        (each.name, wanted)
        for each in stated.variants
        for wanted in executors or (executor(),)
    )
    models = {each.name: content(each.name) for each in stated.variants}
    models |= contents or {}
    descriptors = [seal_content(raw, name) for name, raw in models.items()]
    descriptors.append(seal_content(golden, "golden"))
    try:
        order = Examine(render_manifest(stated), plan, rounds=rounds)
        examine(order, descriptors, report.sent.append)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return report


class TestGood:
    """Models that do what their manifest says."""

    def test_every_pair_is_announced_and_found_out_about(self) -> None:
        """Load, golden, boundary for each; then the clock for all in turns."""
        kinds = [executor("xnnpack"), executor("xnnpack", threads=2), executor()]
        report = run(*record(manifest("quantised"), [SAMPLES]), kinds)
        assert [found.reason for found in report.findings.values()] == [""] * 3
        assert report.stages[:9] == [
            (index, stage)
            for index in range(3)
            for stage in ("load", "golden", "boundary")
        ]
        assert report.stages[9:12] == [(0, "warm"), (1, "warm"), (2, "warm")]
        turns = [index for index, stage in report.stages if stage == "time"]
        assert turns == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2, 1, 2, 0]
        assert isinstance(report.sent[-1], Examined)

    def test_what_was_measured_is_reported(self) -> None:
        """Durations, memory and the largest difference."""
        (found,) = run(*record(manifest("streaming"), [SAMPLES])).findings.values()
        assert 0 < found.p50_ms <= found.p95_ms < math.inf
        assert found.max_difference == 0
        assert 0 <= found.ram_bytes <= found.peak_bytes

    @pytest.mark.parametrize("name", ["two_in_two_out", "streaming", "dynamic_batch"])
    @pytest.mark.parametrize("kernels", ["xnnpack", "plain", "reference"])
    def test_models_of_every_kind_pass(self, name: str, kernels: str) -> None:
        """Many inputs, state, an open batch; on all kernels."""
        count = 2 if name == "two_in_two_out" else 1
        stated, golden = record(manifest(name), [SAMPLES] * count)
        (found,) = run(stated, golden, [executor(kernels)]).findings.values()
        assert (found.reason, found.detail) == ("", "")

    def test_the_other_runtime_agrees(self) -> None:
        """Both runtimes in one child, each an executor of its own."""
        if "tflite" not in available_engines():
            pytest.skip("tflite-runtime does not work here (Python, numpy < 2)")
        kinds = [executor(engine="litert"), executor(engine="tflite")]
        report = run(*record(manifest("quantised"), [SAMPLES]), kinds)
        assert [found.reason for found in report.findings.values()] == ["", ""]

    def test_several_variants_share_golden_samples(self) -> None:
        """One file of samples, outputs of each."""
        stated, golden = record(manifest("quantised", "logarithm"), [SAMPLES])
        report = run(stated, golden)
        assert report.findings[0].reason == Reason.NONE
        assert report.findings[1].reason == Reason.NOT_FINITE

    def test_the_timer_that_ends_the_process_is_disarmed(self) -> None:
        """Whoever had a timer before gets it back."""
        earlier = signal.getitimer(signal.ITIMER_REAL)
        run(*record(manifest("quantised"), [SAMPLES]))
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
        assert (left_s > 0) == (earlier[0] > 0)
        assert left_s <= earlier[0]


class TestBad:
    """Models that are refused, each with its reason."""

    def test_a_model_that_learnt_something_else_is_found(self) -> None:
        """Right contract, digest and container; other answers than recorded."""
        stated, golden = record(manifest("two_in_two_out"), [SAMPLES, SAMPLES])
        stated, other = reseal(stated, golden, 2.0, 3.0)
        (found,) = run(stated, other).findings.values()
        assert found.reason == Reason.GOLDEN

    def test_within_tolerance_is_agreement(self) -> None:
        """The declared tolerance counts in real units, its edge included."""
        stated, golden = record(manifest("quantised"), [SAMPLES])
        stated, other = reseal(stated, golden, 2.0, 2.5)
        for tolerance, reason in ((0.5, Reason.NONE), (0.49, Reason.GOLDEN)):
            variants = (replace(stated.variants[0], tolerance=tolerance),)
            judged = run(replace(stated, variants=variants), other)
            assert judged.findings[0].reason == reason

    def test_infinity_at_a_boundary_is_refused(self) -> None:
        """LOG agrees on its golden samples, and answers -inf to zero."""
        (found,) = run(*record(manifest("logarithm"), [SAMPLES])).findings.values()
        assert found.reason == Reason.NOT_FINITE
        assert "boundary input zero" in found.detail

    def test_nan_in_a_golden_answer_is_refused(self) -> None:
        """With the samples that the model was never recorded on."""
        stated, golden = record(manifest("logarithm"), [SAMPLES])
        stated, other = reseal(stated, golden, 5.0, -5.0)
        (found,) = run(stated, other).findings.values()
        assert found.reason == Reason.NOT_FINITE
        assert "golden sample 1" in found.detail

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("unknown_operator", Reason.UNSUPPORTED_OP),
            ("huge", Reason.MEMORY),
            ("dynamic_output", Reason.DYNAMIC_SHAPE),
        ],
    )
    def test_what_does_not_build_has_its_reason(
        self, name: str, reason: Reason
    ) -> None:
        """The stated contract is a lie of the right form."""
        stated, golden = lying(name)
        report = run(stated, golden)
        assert report.findings[0].reason == reason
        assert isinstance(report.sent[-1], Examined)

    def test_other_bytes_than_signed_are_refused(self) -> None:
        """The child hashes what it was given, models and golden samples alike."""
        stated, golden = record(manifest("quantised"), [SAMPLES])
        spoilt = {"quantised": content("logarithm")}
        assert run(stated, golden, contents=spoilt).findings[0].reason == "digest"
        for other in (golden[:-1] + b"x", golden + b"x", b""):
            findings = run(stated, other).findings
            assert [found.reason for found in findings.values()] == ["digest"]

    def test_golden_samples_that_do_not_fit_fail_every_pair(self) -> None:
        """Signed, but of another model."""
        stated, _ = record(manifest("quantised"), [SAMPLES])
        _, golden = record(manifest("streaming"), [SAMPLES])
        stated, golden = resign(stated, golden)
        findings = run(stated, golden, [executor(), executor("xnnpack")]).findings
        assert [found.reason for found in findings.values()] == ["golden"] * 2

    def test_a_sample_that_does_not_fit_the_input(self) -> None:
        """Recorded samples of another width."""
        stated, golden = record(manifest("quantised"), [SAMPLES])
        outputs = parse_golden(memoryview(golden), stated).outputs
        wide = np.ones((3, 5), np.float32)
        stated, golden = resign(stated, render_golden(GoldenSamples((wide,), outputs)))
        (found,) = run(stated, golden).findings.values()
        assert found.reason == Reason.INPUT

    def test_one_bad_pair_does_not_spoil_the_others(self) -> None:
        """The verdict is about those that agree."""
        stated, golden = record(manifest("quantised", "logarithm"), [SAMPLES])
        plan = plan_examination(stated, available_engines())
        kinds = tuple(dict.fromkeys(wanted for _, wanted in plan))
        report = run(stated, golden, kinds)
        chosen = judge_preflight(plan, report.findings.values(), set(), stated.budgets)
        assert chosen.variant == "quantised"


class TestEnd:
    """Children that end before they are done; each in a process of its own."""

    def test_the_deadline_ends_the_process(self) -> None:
        """By SIGALRM, even if nothing in Python ever runs again."""
        assert child_code("time.sleep(60)", deadline_s=0.05) == -signal.SIGALRM

    def test_memory_limits_are_a_reason_not_a_death(self) -> None:
        """A model that does not fit below RLIMIT_DATA is refused as ``memory``."""
        script = """
            import resource
            from tests.fakes.tiny_models import content, executor
            from agent.worker.engines import build_engine
            from agent.errors import TrialFailedError
            resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20))
            try:
                build_engine(executor("xnnpack"), content("huge"))
            except TrialFailedError as err:
                print(err.reason)
        """
        assert python(script).stdout.strip() == "memory"


class TestBoundaries:
    """``boundary_inputs``."""

    def test_narrow_integers_saturate(self) -> None:
        """Zero is the zero point; the ends are those of the type."""
        spec = TensorSpec("x", (1, 2), "int8", 0.5, -3)
        recorded = [[np.array([[1, 2]], np.int8)]]
        pushed = {
            name: given[0].tolist() for name, given in boundary_inputs([spec], recorded)
        }
        assert pushed == {
            "zero": [[-3, -3]],
            "lowest": [[-128, -128]],
            "highest": [[127, 127]],
        }

    @pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
    def test_floats_and_indices_stay_in_what_was_recorded(self, dtype: str) -> None:
        """An index beyond the table is the sample's fault, not the model's."""
        spec = TensorSpec("x", (1, 2), dtype)  # type: ignore[arg-type] # parametrized
        recorded = [[np.array([[4, 7]], dtype)], [np.array([[-2, 5]], dtype)]]
        pushed = [given[0].max() for _, given in boundary_inputs([spec], recorded)]
        assert pushed == [0, -2, 7]

    def test_each_boundary_begins_without_a_past(self) -> None:
        """State is reset before every one: they are no sequence."""
        stated = manifest("streaming")
        only = stated.variants[0]

        def remember(given: Arrays) -> Arrays:
            fresh = not given[1].any()
            return [
                np.full((1, 4), 0 if fresh else np.nan, "f4"),
                np.ones((1, 4), "f4"),
            ]

        engine = ScriptedEngine(only.inputs, only.outputs, remember)
        model = bind_model(1, stated, only, executor(), engine)
        check_boundaries(model, [[SAMPLES[:1]]])
        assert engine.calls == 3


class TestTiming:
    """Which rounds are run, and what they sum up to."""

    @given(st.lists(st.integers(1, 10**12), max_size=9), st.integers(-(10**9), 10**13))
    def test_what_is_kept_fits_and_is_the_fastest(
        self, estimates: list[int], left: int
    ) -> None:
        """Nobody slower is kept while someone faster is not."""
        kept = affordable(estimates, left)
        dropped = set(range(len(estimates))) - set(kept)
        assert sum(estimates[at] for at in kept) * MIN_ROUNDS <= max(0, left)
        assert all(
            estimates[slow] >= estimates[fast] for slow in dropped for fast in kept
        )

    @given(st.integers(1, 10**12), st.integers(0, 10**12), st.integers(5, 50))
    def test_rounds_are_at_least_five(self, one: int, left: int, wanted: int) -> None:
        """And never more than asked for."""
        assert MIN_ROUNDS <= fitting_rounds(one, left, wanted) <= wanted

    @given(st.integers(0, 10**12))
    def test_runs_of_a_round(self, one: int) -> None:
        """One at least, forty at most."""
        assert 1 <= count_runs(one) <= 40

    def test_one_bad_round_changes_nothing(self) -> None:
        """Medians of rounds: a hiccup of the machine is not the model's."""
        calm = [[1_000_000] * 20] * 3
        assert summarise([*calm, [50_000_000] * 20]) == summarise(calm)

    def test_a_tail_in_every_round_counts(self) -> None:
        """Two slow runs in twenty are the 95th percentile."""
        timed = summarise([[1_000_000] * 18 + [9_000_000] * 2] * 5)
        assert (timed.p50_ms, timed.p95_ms) == (1.0, 9.0)


class TestMemory:
    """What a pair costs."""

    def test_this_process_has_memory(self) -> None:
        """Read from /proc, in bytes."""
        memory = read_memory()
        assert 0 < memory.own_bytes < memory.resident_bytes <= memory.peak_bytes

    @pytest.mark.parametrize(
        ("before", "after", "growth"),
        [
            (Memory(10, 100, 200), Memory(60, 190, 200), 50),
            (Memory(10, 100, 200), Memory(60, 250, 300), 100),
            (Memory(10, 100, 200), Memory(5, 90, 200), 0),
        ],
    )
    def test_passing_peaks_count(
        self, before: Memory, after: Memory, growth: int
    ) -> None:
        """A peak that this pair reached, not one from before it."""
        assert judge_growth(before, after) == growth


def reseal(
    stated: Manifest, golden: bytes, old: float, new: float
) -> tuple[Manifest, bytes]:
    """Change one recorded value everywhere, and sign what comes out."""
    was = parse_golden(memoryview(golden), stated)
    if stated.variants[0].name == "logarithm":  # spoil the samples, keep the answers
        samples = tuple(np.where(x == old, np.float32(new), x) for x in was.samples)
        return resign(stated, render_golden(GoldenSamples(samples, was.outputs)))
    outputs = {
        name: tuple(np.where(x == old, np.float32(new), x) for x in stacks)
        for name, stacks in was.outputs.items()
    }
    return resign(stated, render_golden(GoldenSamples(was.samples, outputs)))


def resign(stated: Manifest, golden: bytes) -> tuple[Manifest, bytes]:
    """Return a manifest that states these golden samples."""
    digest = hashlib.sha256(golden).hexdigest()
    entry = Golden(digest, len(golden), stated.golden.samples)
    return replace(stated, golden=entry), golden


def lying(name: str) -> tuple[Manifest, bytes]:
    """Return a manifest, and golden samples, for a model that cannot be built."""
    raw = content(name)
    width = 1 if name == "huge" else 4
    honest = variant("logarithm")
    dtype = "int64" if name == "dynamic_output" else "float32"
    out = "rows" if name == "dynamic_output" else "answer"
    shape = (1, 2) if name == "dynamic_output" else (1, width)
    stated_variant = replace(
        honest,
        name=name,
        file=f"variants/{name}.tflite",
        sha256=hashlib.sha256(raw).hexdigest(),
        size=len(raw),
        inputs=(TensorSpec("sample", (1, width), "float32"),),
        outputs=(TensorSpec(out, shape, dtype),),  # type: ignore[arg-type] # one of two
    )
    stated = Manifest(
        schema=1,
        model="tiny",
        version=1,
        task="raw",
        variants=(stated_variant,),
        golden=Golden("0" * 64, 1, 3),
    )
    outputs = {name: (np.ones((3, *shape), np.float32),)}
    return resign(stated, render_golden(GoldenSamples((SAMPLES[:, :width],), outputs)))


def child_code(work: str, deadline_s: float) -> int:
    """Return how a process ends that does ``work`` under the child's deadline."""
    script = f"""
        import time
        from agent.worker.preflight import ends_by
        with ends_by({deadline_s}):
            {work}
    """
    return python(script, check=False).returncode


def python(script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        check=check,
        capture_output=True,
        text=True,
    )
