"""What can be held back: the tests' pipeline of words, and a real one, do the same."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.core.degradation import Measure, SafeOutput
from agent.supervise.degrading import Sheddable
from tests.fakes.digits import in_loop, placed, running
from tests.fakes.held_pipeline import HeldPipeline

SAFE = SafeOutput("stop", -1.0)
ORDERS = (
    (Measure.HALF_RATE,),
    (Measure.HALF_RATE, Measure.ABSTAIN),
    (Measure.SAFE_OUTPUT,),
    (),
)


@asynccontextmanager
async def sheddable(kind: str) -> AsyncIterator[Sheddable]:
    """Give one of both, with a model that has no smaller variant."""
    if kind == "words":
        yield HeldPipeline(committed=placed(1), lacks=(Measure.SMALL_VARIANT,))
        return
    async with running(placed(1)) as bench:
        await bench.ready()
        yield bench.pipeline


@pytest.mark.parametrize("kind", ["words", "real"])
def test_it_does_what_it_is_told_and_says_so(kind: str) -> None:
    """These measures and no others; the same again is harmless; nothing is nothing."""

    @in_loop
    async def case() -> None:
        async with sheddable(kind) as it:
            assert it.holding == ()
            for measures in (*ORDERS, *ORDERS):
                for _ in range(2):
                    assert await it.shed(measures, SAFE) == measures
                    assert it.holding == measures

    case()


@pytest.mark.parametrize("kind", ["words", "real"])
def test_what_cannot_be_had_is_left_out(kind: str) -> None:
    """There is one variant only; the other measure holds all the same."""

    @in_loop
    async def case() -> None:
        async with sheddable(kind) as it:
            wanted = (Measure.HALF_RATE, Measure.SMALL_VARIANT)
            assert await it.shed(wanted, SAFE) == (Measure.HALF_RATE,)
            assert it.holding == (Measure.HALF_RATE,)
            assert it.committed is placed(1)
            assert it.snapshot().ready
            assert it.settings.degrade is None

    case()
