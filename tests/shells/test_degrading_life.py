"""From a temperature file to what a real worker answers, and back."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.board.sensors import find_sensors
from agent.core.degradation import DegradeSteps, LadderState, Level, Measure
from agent.core.reasons import Reason
from agent.settings import DegradeSettings
from agent.supervise.degrading import Degrading
from tests.fakes.digits import Bench, in_loop, running, until
from tests.fakes.held_pipeline import with_steps

COOL, WARM, HOT = (
    60_000,
    82_000,
    90_000,
)  # as the kernel says it: thousandths of a degree
# What a test needs of it is heat alone: the machine that it runs on may be short of
# memory, or slow.
LIMITS = DegradeSettings(
    low_memory_mb=0.0,
    stalled_percent=100.0,
    missed_share=1.0,
    patience_s=20.0,
    calm_s=10.0,
)
STEPS = DegradeSteps(
    suspect=(Measure.HALF_RATE,),
    degraded=(Measure.SAFE_OUTPUT,),
    safe=(Measure.ABSTAIN,),
)


@dataclass
class HotBoard:
    """A laid-out tree whose thermal zone the test heats, and a conductor that reads it.

    Seconds are the test's: a look is a second later than the one before.
    """

    root: Path
    bench: Bench
    now_s: float = 0.0

    def __post_init__(self) -> None:
        """Lay out the tree."""
        zone = self.root / "sys/class/thermal/thermal_zone0"
        zone.mkdir(parents=True)
        (zone / "type").write_text("soc\n")
        self.temperature = zone / "temp"
        self.heat(COOL)
        sensors = find_sensors(self.root, self.root)
        self.it = Degrading(
            {"digits": self.bench.pipeline},
            lambda: sensors.read_fast(sensors.read_slow()),
            lambda: LIMITS,
            clock=lambda: self.now_s,
        )

    def state(self) -> LadderState:
        """Return where the pipeline stands."""
        return self.it.state("digits")

    def heat(self, thousandths: int) -> None:
        """Let the board be as hot as that."""
        self.temperature.write_text(f"{thousandths}\n")

    async def looks(self, count: int) -> None:
        """Look so often, and carry out what that asks for."""
        for _ in range(count):
            for name in self.it.look():
                await self.it.carry_out(name)
            self.now_s += 1.0


@asynccontextmanager
async def hot_board(root: Path) -> AsyncIterator[HotBoard]:
    """Run a model whose manifest says what it does less, on a board that can be hot."""
    async with running(with_steps(STEPS)) as bench:
        await bench.ready()
        yield HotBoard(root, bench)


@in_loop
async def test_heat_sheds_and_calm_takes_it_back(tmp_path: Path) -> None:
    """Every other sample, a constant answer, none at all; and all of it again."""
    async with hot_board(tmp_path) as board:
        bench = board.bench
        await board.looks(3)
        assert board.state().level is Level.NORMAL
        board.heat(WARM)
        await board.looks(3)
        assert board.state().detail == "soc 82 C, 80 C allowed"
        assert bench.pipeline.holding == (Measure.HALF_RATE,)
        await until(lambda: bench.reasons(1).get("shed", 0) >= 100, "half the rate")
        board.heat(HOT)
        await board.looks(3)
        assert board.state().measures == (Measure.HALF_RATE, Measure.SAFE_OUTPUT)
        assert bench.now.ready
        await board.looks(25)
        assert board.state().level is Level.SAFE
        assert board.state().measures == (Measure.HALF_RATE, Measure.ABSTAIN)
        assert (bench.now.ready, bench.now.reason) == (False, Reason.ABSTAINED)
        board.heat(COOL)
        await board.looks(40)
        assert (board.state().level, board.state().measures) == (Level.NORMAL, ())
        await bench.answers(1, 200)
        assert bench.now.ready
        sums = bench.outcomes(1)
        ended = sums["ok"] + sums["failed"] + sums["dropped"]
        assert sums["received"] - ended in {0, 1}
        assert bench.now.restarts == {}


@in_loop
async def test_a_new_worker_does_less_from_its_first_sample(tmp_path: Path) -> None:
    """What killed the old one is not answered by doing more."""
    async with hot_board(tmp_path) as board:
        bench = board.bench
        board.heat(HOT)
        await board.looks(30)
        assert board.state().measures == (Measure.HALF_RATE, Measure.ABSTAIN)
        answered, abstained = bench.ok(1), bench.reasons(1)["abstained"]
        os.kill(bench.now.worker_pid, signal.SIGKILL)
        await until(lambda: bench.now.restarts == {"crash": 1}, "its end")
        await until(lambda: bench.reasons(1)["abstained"] > abstained, "the next one")
        await board.looks(1)
        assert board.state().measures == (Measure.HALF_RATE, Measure.ABSTAIN)
        assert bench.ok(1) == answered


@in_loop
async def test_sensors_that_vanish_or_rave_change_nothing(tmp_path: Path) -> None:
    """A file that is gone, empty, or says 2,000 degrees is no heat, and no calm trick:
    what is not known holds nothing."""
    async with hot_board(tmp_path) as board:
        for text in ("2000000\n", "", "nan\n", "-999999\n", "\x00\xff"):
            board.temperature.write_text(text)
            await board.looks(5)
            assert board.state().level is Level.NORMAL
        board.temperature.unlink()
        await board.looks(5)
        assert board.state().level is Level.NORMAL


@pytest.mark.parametrize("hot", [WARM, HOT])
def test_flapping_heat_moves_nothing(tmp_path: Path, hot: int) -> None:
    """Every other reading is hot: no order is given."""

    @in_loop
    async def case() -> None:
        async with hot_board(tmp_path) as board:
            for _ in range(20):
                board.heat(hot)
                await board.looks(1)
                board.heat(COOL)
                await board.looks(1)
            assert board.state() == LadderState()

    case()
