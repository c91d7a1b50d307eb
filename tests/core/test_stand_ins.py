"""What may run instead of what was chosen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.degradation import Measure
from agent.core.executors import Executor, Kernels
from agent.core.installed import Installed, PassedOver
from agent.core.stand_ins import choose_stand_in
from agent.core.variant_choice import Pair

ONE, TWO = (Executor("litert", "xnnpack", threads) for threads in (1, 2))
PLAIN = Executor("litert", "plain", 1)
LARGE = Installed("m", 1, "ab" * 32, 9, "large", TWO, p50_ms=2.0, ram_bytes=1_000_000)
NONE: tuple[Measure, ...] = ()

executors = st.builds(
    Executor,
    st.just("litert"),
    st.sampled_from(["xnnpack", "plain"]),
    st.integers(1, 3),
)
rows = st.builds(
    PassedOver,
    st.sampled_from(["large", "int8", "small"]),
    executors,
    st.sampled_from(["", "", "golden"]),
    p50_ms=st.floats(0, 4.0),
    ram_bytes=st.integers(0, 2_000_000),
)
installed = st.builds(
    lambda executor, passed_over: replace(
        LARGE, executor=executor, passed_over=tuple(passed_over)
    ),
    executors,
    st.lists(rows, max_size=8),
)
measures = st.sets(st.sampled_from(list(Measure)))


@given(installed, measures)
def test_only_what_passed_stands_in(chosen: Installed, asked: set[Measure]) -> None:
    """It was examined on this board, and is another pair than the chosen one."""
    found = choose_stand_in(chosen, asked)
    passed = {
        (row.variant, row.executor) for row in chosen.passed_over if not row.reason
    }
    assert found is None or found in passed
    assert found != (chosen.variant, chosen.executor)


@given(installed, measures)
def test_what_cannot_be_had_changes_nothing(
    chosen: Installed, asked: set[Measure]
) -> None:
    """A variant that stands in is cheaper; threads become one, or stay."""
    found = choose_stand_in(chosen, asked)
    if found is None:
        return
    variant, executor = found
    costs = [row for row in chosen.passed_over if (row.variant, row.executor) == found]
    if variant != chosen.variant:
        assert Measure.SMALL_VARIANT in asked
        assert any(it.p50_ms < 2.0 or it.ram_bytes < 1_000_000 for it in costs) or (
            Measure.ONE_THREAD in asked and executor.threads == 1
        )
    else:
        assert Measure.ONE_THREAD in asked
        assert (executor.kernels, executor.threads) == (chosen.executor.kernels, 1)


def row(variant: str, executor: Executor, ms: float, ram: int = 10**6) -> PassedOver:
    """Return a pair that passed."""
    return PassedOver(variant, executor, "", "", ms, ram)


@pytest.mark.parametrize(
    ("passed_over", "asked", "expected"),
    [
        ((row("int8", ONE, 1.0), row("small", ONE, 0.5)), "small_variant", "small"),
        ((row("int8", ONE, 1.99), row("small", ONE, 2.1)), "small_variant", None),
        ((row("int8", ONE, 2.5, 900_000),), "small_variant", "int8"),
        ((row("int8", ONE, 1.0), row("small", ONE, 2.0, 9)), "small_variant", "int8"),
        # What was never measured is not faster, and not slighter.
        ((row("int8", ONE, 0.0),), "small_variant", None),
        ((row("int8", ONE, 0.0, 9),), "small_variant", None),
        ((row("int8", ONE, 2.5, 0),), "small_variant", None),
        ((PassedOver("int8", ONE, "golden", "", 0.1),), "small_variant", None),
        ((row("large", ONE, 3.0),), "small_variant", None),
        ((row("large", ONE, 3.0),), "one_thread", "large"),
        ((row("large", PLAIN, 3.0),), "one_thread", None),
        ((row("int8", ONE, 3.0),), "one_thread", None),
        ((row("int8", TWO, 1.0), row("int8", ONE, 1.5)), "both", "int8"),
        ((row("int8", TWO, 1.0), row("large", ONE, 3.0)), "both", "int8 2"),
        ((row("large", ONE, 3.0),), "both", "large"),
        ((row("int8", ONE, 1.0),), "half_rate", None),
    ],
)
def test_what_stands_in(
    passed_over: tuple[PassedOver, ...], asked: str, expected: str | None
) -> None:
    """The fastest that is faster, else the slightest that is slighter; one thread."""
    both = (Measure.SMALL_VARIANT, Measure.ONE_THREAD)
    wanted = both if asked == "both" else (Measure(asked),)
    found = choose_stand_in(replace(LARGE, passed_over=passed_over), wanted)
    assert _short(found) == expected


def _short(found: Pair | None) -> str | None:
    """Spell a pair in short."""
    if found is None:
        return None
    variant, executor = found
    return variant if executor.threads == 1 else f"{variant} {executor.threads}"


def test_one_thread_on_one_thread_is_no_other_pair() -> None:
    """What runs on one thread already needs nothing instead."""
    kernels: Kernels = "xnnpack"
    alone = replace(LARGE, executor=Executor("litert", kernels, 1))
    assert choose_stand_in(alone, (Measure.ONE_THREAD,)) is None
    assert choose_stand_in(LARGE, NONE) is None
