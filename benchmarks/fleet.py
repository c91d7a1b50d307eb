"""``fleet``: a thousand boards of the real client and update code, and one nginx.

The rules this module keeps:
 * Requests are real (TLS 1.3, python-tuf, a static folder behind nginx); pauses are
   simulated: time stands still while anything is asked, and jumps while nothing is.
   Nothing else is scaled, but for the pauses between retries within one download.
 * Requests and HTTP bytes are counted by nginx, bytes with TLS by the relay through
   which every connection goes (see ``fleet_relay``); TCP's and IP's heads are in none.
 * What is computed and not measured says so.
"""

import logging
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.fleet_canary import Stopped, canary
from benchmarks.fleet_clock import run_simulated
from benchmarks.fleet_plot import render_plot
from benchmarks.fleet_rows import Seen, fleet_rows
from benchmarks.fleet_scenarios import (
    NEWS,
    OUTAGES,
    Flapping,
    Outage,
    Steady,
    WaveSeen,
    day,
    flapping,
    news,
    outage,
    steady,
    waves,
)
from benchmarks.fleet_world import Traffic, World, fleet_world
from benchmarks.rows import Row

__all__ = ["SCENARIOS", "Flapping", "Outage", "Steady", "Stopped", "WaveSeen", "run"]

SCENARIOS = ("steady", "outage", "flapping", "waves", "canary")
DAY_SHARE = 100  # so many times fewer boards are followed for a whole day
MB = 1e6
KIB = 1024


def run(
    count: int,
    poll_s: float,
    scenarios: tuple[str, ...],
    plot: Path | None,
    console: Console,
) -> list[Row]:
    """Simulate a fleet; return the rows, and write the plot.

    Raises:
        FileNotFoundError: nginx is not installed.
        TimeoutError: Boards did not come up.
    """
    seen = simulate(count, poll_s, scenarios, console)
    if plot is not None and seen.outages:
        plot.write_text(render_plot(seen.outages, count, poll_s), encoding="utf-8")
    return fleet_rows(seen)


def simulate(
    count: int, poll_s: float, scenarios: tuple[str, ...], console: Console
) -> Seen:
    """Simulate a fleet and return what was seen.

    Raises:
        FileNotFoundError: nginx is not installed.
        TimeoutError: Boards did not come up.
    """
    seen = Seen(count, poll_s)
    # A thousand boards would say a thousand times that their repository is away.
    quiet = logging.getLogger("agent")
    quiet.addHandler(logging.NullHandler())
    with _telling(console) as tell:
        if "steady" in scenarios:
            few = max(2, count // DAY_SHARE)
            seen.day_boards, seen.day = few, run_simulated(_day(few, poll_s, tell))
        run_simulated(_live(seen, scenarios, tell))
    seen.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / MB
    return seen


Tell = Callable[[str, float], None]


async def _day(count: int, poll_s: float, tell: Tell) -> Traffic:
    """Follow a few boards for a whole day."""
    async with fleet_world(count, poll_s, lambda at: tell("a day", at)) as world:
        return await day(world)


async def _live(seen: Seen, scenarios: tuple[str, ...], tell: Tell) -> None:
    """Let everything happen to one fleet."""
    name = "boards come up"
    before_mb = _resident_mb()
    async with fleet_world(
        seen.boards, seen.poll_s, lambda at: tell(name, at)
    ) as world:
        seen.board_mb = (_resident_mb() - before_mb) / seen.boards
        for name in scenarios:
            await _happen(name, world, seen)


async def _happen(name: str, world: World, seen: Seen) -> None:
    """Let one scenario happen."""
    match name:
        case "steady":
            seen.steady = await steady(world)
        case "outage":
            seen.outages = [await outage(world, periods) for periods in OUTAGES]
            seen.news = [await news(world, what) for what in NEWS]
        case "flapping":
            seen.flapping = await flapping(world)
        case "waves":
            seen.waves = await waves(world)
        case _:
            seen.stopped = await canary(world)


@contextmanager
def _telling(console: Console) -> Iterator[Tell]:
    """Show on a terminal what happens, and how much simulated time has passed."""
    columns = (TextColumn("fleet: {task.description}"), BarColumn(pulse_style="dim"))
    shown = Progress(*columns, TimeElapsedColumn(), console=console)
    shown.disable = not console.is_terminal
    with shown:
        bar = shown.add_task("", total=None)
        yield lambda name, at_s: shown.update(
            bar, description=f"{name}, hour {at_s / 3600:.1f} of the simulation"
        )


def _resident_mb() -> float:
    """Return the resident memory of this process."""
    status = Path("/proc/self/statm").read_text(encoding="ascii")
    return int(status.split()[1]) * resource.getpagesize() / MB
