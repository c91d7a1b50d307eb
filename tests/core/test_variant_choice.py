"""Which pair runs on a board, and what is said about those that do not."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.executors import Executor
from agent.core.installed import Installed, PassedOver
from agent.core.manifest import Budgets
from agent.core.messages import Finding
from agent.core.reasons import Reason
from agent.core.trial_verdict import (
    Chosen,
    declared_accuracy,
    judge_preflight,
    leave_out,
)
from agent.core.variant_choice import MAX_DETAIL, MAX_PASSED_OVER, TIE_ACCURACY, Pair
from agent.errors import TrialFailedError
from tests.fakes.bundles import manifest

BUDGETS = Budgets(p95_ms=10.0, ram_mb=100.0)
ONE, TWO = (Executor("litert", "xnnpack", threads) for threads in (1, 2))
NAMES = ("large", "int8", "small")
PLAN: list[Pair] = [(name, on) for name in NAMES for on in (ONE, TWO)]
ACCURACY = {"large": 0.97, "int8": 0.91, "small": 0.85}

durations = st.floats(0.001, 20.0)
found = st.builds(
    lambda p50, slower, ram, reason: (p50, p50 + slower, ram, reason),
    durations,
    st.floats(0, 5.0),
    st.integers(0, 150_000_000),
    st.sampled_from([Reason.NONE] * 4 + [Reason.GOLDEN, Reason.CRASH]),
)
reports = st.lists(found, min_size=len(PLAN), max_size=len(PLAN))
accuracies = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1))


def findings(report: list[tuple[float, float, int, Reason]]) -> list[Finding]:
    """Return what a child sends for the whole plan."""
    return [
        Finding(at, reason, "off", p50_ms=p50, p95_ms=p95, ram_bytes=ram)
        for at, (p50, p95, ram, reason) in enumerate(report)
    ]


def judge(
    sent: list[Finding], accuracy: dict[str, float], plan: list[Pair] = PLAN
) -> Chosen | None:
    """Return the choice, None where nothing passed."""
    try:
        return judge_preflight(plan, sent, (), BUDGETS, accuracy)
    except TrialFailedError:
        return None


def timed(*milliseconds: float) -> list[Finding]:
    """Return findings that passed, with these medians."""
    return [Finding(at, p50_ms=ms, p95_ms=ms) for at, ms in enumerate(milliseconds)]


@given(reports, accuracies)
def test_the_choice_passed(
    report: list[tuple[float, float, int, Reason]], accuracy: dict[str, float]
) -> None:
    """It agreed, keeps the budgets, and nothing that passed is better by its rule."""
    chosen = judge(findings(report), accuracy)
    passed = {
        pair: p50
        for pair, (p50, p95, ram, reason) in zip(PLAN, report, strict=True)
        if not reason and p95 <= BUDGETS.p95_ms and ram <= BUDGETS.ram_mb * 1e6
    }
    if chosen is None:
        assert passed == {}
        return
    assert (chosen.variant, chosen.executor) in passed
    names = {name for name, _ in passed}
    if len(names) > 1 and names <= accuracy.keys():
        best = max(accuracy[name] for name in names)
        assert accuracy[chosen.variant] >= best - TIE_ACCURACY
    else:
        assert chosen.p50_ms <= min(passed.values()) * 1.031


@given(reports, accuracies, st.integers(0, len(PLAN)), st.sampled_from(NAMES))
def test_a_failing_pair_changes_nothing(
    report: list[tuple[float, float, int, Reason]],
    accuracy: dict[str, float],
    at: int,
    name: str,
) -> None:
    """Wherever in the plan it stands, the choice is the same."""
    before = judge(findings(report), accuracy)
    pair = (name, Executor("tflite", "plain"))
    plan = [*PLAN[:at], pair, *PLAN[at:]]
    failing = (0.001, 0.001, 0, Reason.GOLDEN)
    after = judge(findings([*report[:at], failing, *report[at:]]), accuracy, plan)
    choices = [it and (it.variant, it.executor) for it in (before, after)]
    assert choices[0] == choices[1]


@given(reports, accuracies)
def test_chosen_and_passed_over_are_the_plan(
    report: list[tuple[float, float, int, Reason]], accuracy: dict[str, float]
) -> None:
    """Nothing that was tried is forgotten, and each of it has one row."""
    chosen = judge(findings(report), accuracy)
    if chosen is not None:
        rows = [(row.variant, row.executor) for row in chosen.passed_over]
        assert len(rows) == len(PLAN) - 1
        assert {*rows, (chosen.variant, chosen.executor)} == set(PLAN)
        assert all(row.detail for row in chosen.passed_over)


@given(
    st.lists(
        st.builds(
            Finding,
            st.integers(0, len(PLAN) - 1),
            st.sampled_from(list(Reason)),
            st.text(max_size=400),
            st.floats(),
            st.floats(),
            st.floats(),
            st.integers(0, 2**48),
        )
    )
)
def test_what_is_kept_of_a_child_can_be_stored(sent: list[Finding]) -> None:
    """Whatever it sends: bounded, and the same when it is read again."""
    sent.append(Finding(0, p50_ms=1.0, p95_ms=1.0))
    chosen = judge(sent, {})
    assert chosen is not None
    kept = Installed(
        "kws",
        1,
        "ab" * 32,
        9,
        chosen.variant,
        chosen.executor,
        why=chosen.why,
        passed_over=chosen.passed_over,
        p50_ms=chosen.p50_ms,
        ram_bytes=chosen.ram_bytes,
    )
    raw = msgspec.json.encode(kept)
    assert msgspec.json.decode(raw, type=Installed) == kept
    assert all(len(row.detail) <= MAX_DETAIL for row in kept.passed_over)


def test_a_long_plan_keeps_one_row_of_each_variant() -> None:
    """What is kept is bounded; each other variant is in it, and what passed leads."""
    names = [f"v{number}" for number in range(16)]
    executors = [Executor("litert", "xnnpack", count) for count in (1, 2, 3)]
    plan = [(name, on) for name in names for on in executors]
    sent = [Finding(at, p50_ms=1 + at / 100, p95_ms=2) for at in range(48)]
    sent[7] = Finding(7, Reason.GOLDEN, "off")
    chosen = judge(sent, {}, plan)
    assert chosen is not None
    rows = chosen.passed_over
    assert len(rows) == MAX_PASSED_OVER
    assert {row.variant for row in rows} == set(names)
    assert [row.reason for row in rows] == [""] * MAX_PASSED_OVER


def test_the_most_accurate_runs_on_what_is_fastest_for_it() -> None:
    """It is slower than the others, and keeps its budget."""
    chosen = judge(timed(4.0, 3.0, 1.0, 2.0, 0.5, 0.6), ACCURACY)
    assert chosen is not None
    assert (chosen.variant, chosen.executor) == PLAN[1]
    assert chosen.why == "most accurate of 3 variants that keep the budgets, 0.97"
    rows = [
        (row.variant, row.executor.threads, row.detail) for row in chosen.passed_over
    ]
    assert rows == [
        ("small", 1, "0.5 ms, accuracy 0.85 against 0.97"),
        ("int8", 1, "1 ms, accuracy 0.91 against 0.97"),
        ("small", 2, "0.6 ms, accuracy 0.85 against 0.97"),
        ("int8", 2, "2 ms, accuracy 0.91 against 0.97"),
        ("large", 1, "4 ms, 1 ms slower"),
    ]


def test_the_most_accurate_that_the_board_can_afford() -> None:
    """What is too slow here does not run, however accurate it is."""
    sent = timed(40.0, 30.0, 1.0, 2.0, 0.5, 0.6)
    chosen = judge(sent, ACCURACY)
    assert chosen is not None
    assert (chosen.variant, chosen.executor) == PLAN[2]
    assert chosen.why == "most accurate of 2 variants that keep the budgets, 0.91"
    slow = [row for row in chosen.passed_over if row.variant == "large"]
    assert [(row.reason, row.detail) for row in slow] == [
        ("latency", "p95 30.000 ms, 10.000 ms allowed"),
        ("latency", "p95 40.000 ms, 10.000 ms allowed"),
    ]


@pytest.mark.parametrize(
    "accuracy",
    [
        {"large": 0.97, "int8": 0.91},
        {"large": 0.91, "int8": 0.91 + TIE_ACCURACY / 2, "small": 0.91},
        {},
    ],
)
def test_the_fastest_where_accuracy_does_not_tell(accuracy: dict[str, float]) -> None:
    """One that is missing is not a bad one, and a tie is none to be won."""
    chosen = judge(timed(4.0, 3.0, 1.0, 2.0, 0.5, 0.6), accuracy)
    assert chosen is not None
    assert (chosen.variant, chosen.executor) == PLAN[4]


@pytest.mark.parametrize(
    ("sent", "why", "details"),
    [
        ([Finding(0, p50_ms=1, p95_ms=1)], "the only one that passed", ["not tried"]),
        (timed(1.0, 1.01), "fastest of 2 that passed, 1 ms", ["1.01 ms, no faster"]),
        (
            timed(1.0, 1.6),
            "fastest of 2 that passed, 1 ms",
            ["1.6 ms, 0.6 ms slower"],
        ),
    ],
)
def test_reasons_for_people(sent: list[Finding], why: str, details: list[str]) -> None:
    """They say what was measured."""
    chosen = judge(sent, {}, PLAN[:2])
    assert chosen is not None
    assert chosen.why == why
    for row, detail in zip(chosen.passed_over, details, strict=True):
        assert detail in row.detail


def test_what_there_is_no_memory_for_is_left_out() -> None:
    """It is not tried, and its reason says by how much; unknown memory is enough."""
    stated = manifest({"int8": b"x" * 4, "float": b"x" * 4})
    variants = tuple(
        replace(it, ram_bytes=2_000_000 if it.name == "float" else 0)
        for it in stated.variants
    )
    stated = replace(stated, variants=variants)
    plan = [("int8", ONE), ("float", ONE)]
    assert leave_out(plan, stated, math.nan) == {}
    assert leave_out(plan, stated, 2_000_004) == {}
    assert leave_out(plan, stated, 2_000_003) == {
        1: Finding(1, Reason.MEMORY, "needs 2.000004 MB, 2.000003 MB available")
    }


def test_accuracy_is_that_of_variants_that_say_it() -> None:
    """Zero is said, too."""
    stated = manifest({"int8": b"1", "float": b"2"})
    said = (replace(stated.variants[0], accuracy=0.0), stated.variants[1])
    declared = declared_accuracy(replace(stated, variants=said))
    assert declared == {stated.variants[0].name: 0.0}


def test_rows_of_older_agents_are_read() -> None:
    """A model that was installed before anything was passed over has no reasons."""
    executor = {"engine": "litert", "kernels": "plain"}
    old = {
        "model": "kws",
        "version": 1,
        "sha256": "ab",
        "size": 1,
        "variant": "int8",
        "executor": executor,
        "verified_at": 1.5,
    }
    read = msgspec.json.decode(msgspec.json.encode(old), type=Installed)
    assert (read.why, read.passed_over, read.p50_ms) == ("", (), 0.0)
    row = PassedOver("int8", ONE)
    assert (row.reason, row.p50_ms) == ("", 0.0)
