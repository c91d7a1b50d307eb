"""A small simulated fleet: what happens to it, never how fast."""

import asyncio
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from agent.core.schedule import takes_part
from agent.core.targets import GroupFile
from benchmarks.fleet import SCENARIOS, simulate
from benchmarks.fleet_board import FleetBoard, Shared
from benchmarks.fleet_canary import share_of
from benchmarks.fleet_clock import run_simulated
from benchmarks.fleet_plot import render_plot
from benchmarks.fleet_relay import address, number_of
from benchmarks.fleet_rows import Seen, fleet_rows
from benchmarks.fleet_scenarios import Outage
from benchmarks.fleet_world import Traffic, salt
from benchmarks.rows import show

BOARDS = 50
FILES = 3  # behind a new timestamp: root N+1 (404), snapshot, fleet
PACED = "computed, 1,000,"
QUIET = Traffic(60.0, 60, 1, 1, 1.0, 1, 1, [1] * 60, [1] * 60)
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")


@pytest.fixture(scope="module")
def seen() -> Seen:
    """Return what fifty boards went through; skipped loudly without nginx."""
    if NGINX is None:
        pytest.skip("nginx is not installed: no fleet was simulated")
    return simulate(BOARDS, 300.0, SCENARIOS, Console(quiet=True))


def test_nothing_new_costs_one_request_a_period(seen: Seen) -> None:
    """An hour of polling: a look each period and board, sessions resumed, few bytes."""
    assert seen.steady is not None
    traffic = seen.steady.traffic
    looks = BOARDS * traffic.seconds / seen.poll_s
    assert traffic.requests == pytest.approx(looks, rel=0.1)
    assert traffic.resumed == traffic.handshakes
    assert sum(traffic.looks_per_second) == sum(traffic.per_second)
    days = BOARDS * traffic.seconds / 86_400
    assert traffic.requests / days <= 320
    assert traffic.http_bytes / days <= 200_000
    assert traffic.wire_bytes / days <= 900_000


def test_a_day_with_its_signatures_stays_within_the_targets(seen: Seen) -> None:
    """A whole day: polls, the daily refresh and what four new timestamps cost."""
    assert seen.day is not None
    assert seen.day.requests / seen.day_boards <= 320
    assert seen.day.http_bytes / seen.day_boards <= 200_000
    assert seen.day.wire_bytes / seen.day_boards <= 900_000


def test_all_boards_come_back_after_an_outage(seen: Seen) -> None:
    """Within two periods, however long it was; nobody is answered meanwhile."""
    assert len(seen.outages) == 2
    for outage in seen.outages:
        assert outage.all_current_s is not None
        assert outage.all_current_s <= 2 * seen.poll_s
        first, last = int(outage.before.seconds), int(outage.away_s)
        assert sum(outage.whole.per_second[first : first + last - 1]) == 0


def test_news_during_an_outage_cost_what_they_cost_without(seen: Seen) -> None:
    """As many requests: a look, the chain of roots, and what is new; none twice."""
    assert [it.what for it in seen.news] == ["timestamp", "version"]
    for news in seen.news:
        after = news.outage.after
        assert news.outage.all_current_s is not None
        looks = sum(after.looks_per_second)
        assert after.requests > looks
        # Looks of three periods differ by chance, what is new is asked for once.
        extra = news.calm.requests - sum(news.calm.looks_per_second)
        assert after.requests - looks == pytest.approx(extra, rel=0.1)
    signed = seen.news[0].outage.after
    more = signed.requests - sum(signed.looks_per_second)
    assert more == pytest.approx(FILES * BOARDS, rel=0.1)


def test_requests_are_counted_beside_looks(seen: Seen) -> None:
    """Both have the target; requests beside the same news on a quiet day."""
    rows = {it.measure: it for it in fleet_rows(seen) if "while away" in it.measure}
    for what in ("timestamp", "version"):
        name = f"new {what} while away"
        asked = rows[f"{name}: peak requests / peak, no outage"]
        looks = rows[f"{name}: peak looks / peak before"]
        assert (asked.target, looks.target) == (2.0, 2.0)
        news = next(it for it in seen.news if it.what == what)
        after = max(news.outage.after.per_second)
        assert asked.value == pytest.approx(after / max(news.calm.per_second))


def test_a_board_that_only_fetched_was_touched() -> None:
    """Bytes count, whether or not a trial came of them."""
    board = fleet_board()
    before = board.fetched_bytes
    assert not board.touched(2, before)
    board.poller.intake.ledger.tally.bytes["delta"] += 1
    assert board.touched(2, before)
    assert not board.touched(2, before + 1)
    board.trials.tried.append(2)
    assert board.touched(2, before + 1)


def test_pace_is_computed_for_the_period_that_was_asked_for() -> None:
    """Not for five minutes whatever ``--poll-s`` says."""
    outages = [Outage(60.0, QUIET, QUIET, QUIET, 60.0)]
    rows = [
        [
            it
            for it in fleet_rows(Seen(5, poll_s, outages=outages))
            if PACED in it.measure
        ]
        for poll_s in (300.0, 60.0)
    ]
    assert [len(it) for it in rows] == [8, 8]
    for row, shorter in zip(*rows, strict=True):
        assert row.measure == shorter.measure
        assert row.value != shorter.value


def test_labels_fit_into_two_lines_of_a_narrow_terminal(seen: Seen) -> None:
    """At 80 columns the other four columns leave some thirty to the first."""
    shown = StringIO()
    rows = fleet_rows(seen)
    show(rows, Console(file=shown, width=80))
    lines = [line for line in shown.getvalue().splitlines() if "│" in line]
    run = longest = 0
    for line in lines:
        run = 1 if line.split("│")[2].strip() else run + 1
        longest = max(longest, run)
    assert len(lines) >= len(rows)
    assert longest <= 2


def test_flapping_boards_resume_and_none_is_stuck(seen: Seen) -> None:
    """Connections are cut all the time, and no byte that came is fetched again."""
    assert seen.flapping is not None
    assert seen.flapping.stuck == 0
    assert seen.flapping.cuts > 0
    assert seen.flapping.refused > 0
    assert seen.flapping.resumed_bytes > 0
    assert seen.flapping.fetched_bytes == seen.flapping.needed_bytes


def test_waves_touch_those_that_take_part(seen: Seen) -> None:
    """Each wave arrives, and touches nobody outside of it."""
    assert [it.outside for it in seen.waves] == [0, 0, 0]
    assert all(it.took_s is not None for it in seen.waves)
    assert [it.boards for it in seen.waves][-1] == BOARDS


def test_a_bad_version_stops_at_its_canary(seen: Seen) -> None:
    """The planner pauses; the next wave is not touched, and the canary is healed."""
    assert seen.stopped is not None
    assert seen.stopped.stopped_s is not None
    assert seen.stopped.touched == 0
    assert seen.stopped.canary >= seen.stopped.told == seen.stopped.failed > 0
    assert seen.stopped.healed == seen.stopped.failed


def test_rows_and_picture_tell_of_everything(seen: Seen) -> None:
    """Every target has a verdict, and the picture has a panel for each outage."""
    rows = fleet_rows(seen)
    assert len({row.measure for row in rows}) == len(rows)
    assert sum(row.target is not None for row in rows) >= 20
    picture = render_plot(seen.outages, seen.boards, seen.poll_s)
    assert picture.count("away for") == 2


def test_simulated_pauses_take_no_time() -> None:
    """A year of sleep ends at once, and in order."""

    async def year() -> list[int]:
        ended: list[int] = []

        async def rest(day: int) -> None:
            await asyncio.sleep(86_400.0 * day)
            ended.append(day)

        async with asyncio.TaskGroup() as group:
            for days in (365, 1, 180):
                group.create_task(rest(days))
        assert asyncio.get_running_loop().time() == pytest.approx(365 * 86_400.0)
        return ended

    assert run_simulated(year()) == [1, 180, 365]


def fleet_board() -> FleetBoard:
    """Return a board that was never switched on."""
    shared = Shared(
        here=Path("/nowhere"),
        root=b"",
        ca="",
        clock=lambda: 0.0,
        poll_s=300.0,
        bad=set(),
        pool={},
        looks=[],
    )
    return FleetBoard(0, 1, shared)


def test_a_share_takes_in_exactly_those_who_were_told() -> None:
    """``percent`` lies between the last board that was told and the next one."""
    boards = [f"board-{number:05}" for number in range(1000)]
    rule = GroupFile(generation=1, pipelines={}, percent=1.0, salt=salt(7))
    told = [it for it in boards if takes_part(rule, it)]
    assert 0 < len(told) < 30
    percent = share_of(told, boards, 7)
    exact = GroupFile(generation=1, pipelines={}, percent=percent, salt=salt(7))
    assert [it for it in boards if takes_part(exact, it)] == told


@pytest.mark.parametrize("number", [0, 255, 256, 70_000, 2**24 - 1])
def test_connections_are_numbered_as_addresses(number: int) -> None:
    """What nginx writes into its log leads back to the connection."""
    assert number == number_of(address(number))
