"""Which pairs are tried, and which one is chosen."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.executors import DelegateFile, EngineName, Executor
from agent.core.installed import PassedOver
from agent.core.manifest import Budgets, Manifest
from agent.core.messages import Finding
from agent.core.reasons import Reason
from agent.core.trial_verdict import (
    MAX_PAIRS,
    Chosen,
    judge_budgets,
    judge_preflight,
    plan_examination,
)
from agent.core.variant_choice import TIE_SHARE
from agent.errors import TrialFailedError
from tests.fakes.bundles import manifest

BOTH: dict[str, str] = {"tflite": "2.14.0", "litert": "2.3.0"}
LITERT = {"litert": "2.3.0"}
NPU = DelegateFile("npu", "/usr/lib/libnpu.so", "0" * 64)
BUDGETS = Budgets(p95_ms=10.0, ram_mb=100.0)
PLAN = [
    ("int8", Executor("litert", "xnnpack", 1)),
    ("int8", Executor("litert", "xnnpack", 2)),
    ("int8", Executor("litert", "plain", 1)),
]


def shape(pairs: list[tuple[str, Executor]]) -> list[str]:
    """Spell pairs in short."""
    return [f"{name}: {executor.describe()}" for name, executor in pairs]


def one_variant(**changes: object) -> Manifest:
    """Return a manifest with the variant int8 only."""
    stated = manifest()
    only = replace(stated.variant("int8"), **changes)
    return replace(stated, variants=(only,))


class TestPlan:
    """``plan_examination``."""

    def test_auto_tries_three_on_two_cpus(self) -> None:
        """XNNPACK with one and with the wished threads, and plain kernels."""
        assert shape(plan_examination(one_variant(), LITERT, 2, cpu_count=2)) == [
            "int8: litert 2.3.0 / xnnpack / 1",
            "int8: litert 2.3.0 / xnnpack / 2",
            "int8: litert 2.3.0 / plain / 1",
        ]

    def test_threads_are_capped_by_wish_and_by_cpus(self) -> None:
        """Nobody gets more threads than they asked for, or than there are CPUs."""
        assert len(plan_examination(one_variant(), LITERT, 1, cpu_count=8)) == 2
        assert len(plan_examination(one_variant(), LITERT, 8, cpu_count=1)) == 2

    def test_the_maintained_runtime_comes_first(self) -> None:
        """Whatever the order in which a child names its runtimes."""
        engines = [x.engine for _, x in plan_examination(one_variant(), BOTH)]
        assert engines == ["litert", "litert", "tflite", "tflite"]

    def test_the_authors_order_of_variants_leads(self) -> None:
        """All pairs of the first variant stand before those of the second."""
        names = [name for name, _ in plan_examination(manifest(), LITERT)]
        assert names == [v.name for v in manifest().variants for _ in range(2)]

    def test_a_variant_names_its_runtimes(self) -> None:
        """Others are not tried."""
        plan = plan_examination(one_variant(runtimes=("tflite",)), BOTH)
        assert {x.engine for _, x in plan} == {"tflite"}

    @pytest.mark.parametrize("kernels", ["xnnpack", "plain", "reference"])
    def test_named_kernels_are_the_only_ones(self, kernels: str) -> None:
        """Reference kernels are tried only by name."""
        plan = plan_examination(one_variant(), LITERT, kernels=kernels)
        assert {x.kernels for _, x in plan} == {kernels}
        auto = plan_examination(one_variant(), LITERT, kernels="auto")
        assert "reference" not in {x.kernels for _, x in auto}

    def test_a_delegate_needs_both_sides(self) -> None:
        """The variant names it and the settings allow it; then it is tried first."""
        asks = one_variant(delegates=("npu",))
        assert plan_examination(asks, LITERT, delegates=(NPU,))[0][1].delegate == NPU
        for stated, allowed in ((asks, ()), (one_variant(), (NPU,))):
            plan = plan_examination(stated, LITERT, delegates=allowed)
            assert {x.delegate for _, x in plan} == {None}

    @pytest.mark.parametrize(
        ("stated", "engines", "kernels", "reason"),
        [
            (one_variant(), {}, "auto", Reason.NO_EXECUTOR),
            (one_variant(runtimes=("tflite",)), LITERT, "auto", Reason.NO_EXECUTOR),
            (one_variant(), LITERT, "delegate", Reason.DELEGATE),
        ],
    )
    def test_nothing_to_try_has_a_reason(
        self, stated: Manifest, engines: dict[str, str], kernels: str, reason: Reason
    ) -> None:
        """No runtime, none that the author allows, no delegate."""
        with pytest.raises(TrialFailedError) as caught:
            plan_examination(stated, engines, kernels=kernels)
        assert caught.value.reason == reason

    @given(
        threads=st.integers(1, 64),
        cpus=st.integers(1, 256),
        engines=st.sets(st.sampled_from(["litert", "tflite"]), min_size=1),
    )
    def test_plans_are_short_and_without_repetition(
        self, threads: int, cpus: int, engines: set[EngineName]
    ) -> None:
        """Every pair is tried once, and the plan fits a message."""
        named: dict[str, str] = dict.fromkeys(engines, "1")
        plan = plan_examination(manifest(), named, threads, "auto", (NPU,), cpus)
        assert len(set(shape(plan))) == len(plan) <= MAX_PAIRS
        assert all(1 <= x.threads <= max(1, min(threads, cpus)) for _, x in plan)


class TestJudge:
    """``judge_preflight``."""

    def test_the_fastest_that_agrees_is_chosen(self) -> None:
        """A faster one that does not agree is not."""
        findings = [
            Finding(0, p50_ms=2.0, p95_ms=3.0, ram_bytes=5),
            Finding(1, Reason.GOLDEN, "off", p50_ms=0.5),
            Finding(2, p50_ms=1.0, p95_ms=1.5, ram_bytes=7),
        ]
        assert judge_preflight(PLAN, findings, set(), BUDGETS) == Chosen(
            "int8",
            PLAN[2][1],
            1.0,
            1.5,
            7,
            "fastest of 2 that passed, 1 ms",
            (
                PassedOver(*PLAN[0], "", "2 ms, 1 ms slower", 2.0, 5),
                PassedOver(*PLAN[1], "golden", "off", 0.5),
            ),
        )

    def test_the_plans_order_breaks_ties_only(self) -> None:
        """Within the noise the first wins; beyond it the fastest."""
        for second_ms, expected in ((1 - TIE_SHARE / 2, 0), (1 - 2 * TIE_SHARE, 1)):
            findings = [Finding(0, p50_ms=1.0), Finding(1, p50_ms=second_ms)]
            chosen = judge_preflight(PLAN[:2], findings, (), BUDGETS)
            assert chosen.executor == PLAN[expected][1]

    def test_who_ended_the_child_is_never_chosen(self) -> None:
        """Even if it had been found good before."""
        findings = [Finding(0, p50_ms=0.1), Finding(1, p50_ms=1.0)]
        chosen = judge_preflight(PLAN[:2], findings, {0}, BUDGETS)
        assert chosen.executor == PLAN[1][1]

    @pytest.mark.parametrize(
        ("finding", "reason"),
        [
            (Finding(0, p50_ms=1, p95_ms=10.1), Reason.LATENCY),
            (Finding(0, p50_ms=1, p95_ms=math.nan), Reason.LATENCY),
            (Finding(0, p50_ms=1, ram_bytes=100_000_001), Reason.MEMORY),
            (Finding(0, Reason.GOLDEN, ram_bytes=2**60), Reason.GOLDEN),
            (Finding(0, p50_ms=1, p95_ms=10, ram_bytes=100_000_000), Reason.NONE),
        ],
    )
    def test_budgets_fail_what_passed_so_far(
        self, finding: Finding, reason: Reason
    ) -> None:
        """Exactly at the limit is allowed; measurements stay in the report."""
        judged = judge_budgets(finding, BUDGETS)
        assert judged.reason == reason
        assert judged.ram_bytes == finding.ram_bytes

    @pytest.mark.parametrize(
        ("findings", "crashed", "reason"),
        [
            ([Finding(0, Reason.GOLDEN), Finding(1, Reason.CONTRACT)], {}, "golden"),
            ([Finding(0, Reason.DELEGATE), Finding(1, Reason.MEMORY)], {}, "memory"),
            ([Finding(1, p95_ms=11.0), Finding(0, Reason.GOLDEN)], {}, "latency"),
            ([Finding(0, Reason.UNSUPPORTED_OP)], {1: Reason.MEMORY}, "memory"),
            ([], {0, 1}, "crash"),
            ([], {}, "hang"),
        ],
    )
    def test_the_most_telling_reason_is_reported(
        self, findings: list[Finding], crashed: dict[int, Reason], reason: str
    ) -> None:
        """Who came furthest says most."""
        with pytest.raises(TrialFailedError) as caught:
            judge_preflight(PLAN[:2], findings, crashed, BUDGETS)
        assert caught.value.reason == reason
        assert "litert" in str(caught.value)

    @given(
        findings=st.lists(
            st.builds(
                Finding,
                st.integers(-5, 10),
                st.sampled_from(list(Reason)),
                st.text(max_size=3),
                st.floats(),
                st.floats(),
                st.floats(),
                st.integers(),
                st.integers(),
            )
        ),
        crashed=st.sets(st.integers(0, len(PLAN) - 1)),
    )
    def test_any_report_ends_in_a_choice_or_a_failed_trial(
        self, findings: list[Finding], crashed: set[int]
    ) -> None:
        """Whatever a child sends: only what passed and keeps its budgets is chosen."""
        last = {found.index: found for found in findings}
        good = {
            at
            for at, found in last.items()
            if 0 <= at < len(PLAN)
            and at not in crashed
            and not judge_budgets(found, BUDGETS).reason
            and 0 <= found.p50_ms < math.inf
        }
        try:
            chosen = judge_preflight(PLAN, findings, crashed, BUDGETS)
        except TrialFailedError:
            assert not good
        else:
            assert PLAN.index((chosen.variant, chosen.executor)) in good
