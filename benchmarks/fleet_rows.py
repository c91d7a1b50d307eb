"""What was seen of a simulated fleet, as rows with targets."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.fleet_canary import Stopped
from benchmarks.fleet_numbers import DAY_S, Measured, behind_cdn, paced
from benchmarks.fleet_scenarios import Flapping, News, Outage, Steady, WaveSeen
from benchmarks.fleet_world import Traffic
from benchmarks.rows import Row

REQUESTS, HTTP_KB, WIRE_KB = 320, 200, 900  # per board and day
HERD = 2.0  # times the steady rate
KB, MB, MS = 1e3, 1e6, 1e3
MINUTE_S = 60
HEAD_BYTES = 52  # IPv4 20, TCP 20, its timestamps 12
# Looks a second of which chance is a few percent: 333 of the boards of a full run.
PACED, PACED_SHARE = 100_000, 200


@dataclass(slots=True)
class Seen:
    """Everything that was seen.

    Attributes:
        boards: How many; ``day_boards`` of a smaller fleet for the whole ``day``.
        board_mb: Resident memory of one board; ``peak_mb`` of the whole process.
    """

    boards: int
    poll_s: float
    day_boards: int = 0
    day: Traffic | None = None
    steady: Steady | None = None
    outages: list[Outage] = field(default_factory=list)
    news: list[News] = field(default_factory=list)
    flapping: Flapping | None = None
    waves: list[WaveSeen] = field(default_factory=list)
    stopped: Stopped | None = None
    board_mb: float = 0.0
    peak_mb: float = 0.0


def fleet_rows(seen: Seen) -> list[Row]:
    """Return the rows of all scenarios that were run."""
    return list(_rows(seen))


def _rows(seen: Seen) -> Iterator[Row]:
    """Yield them."""
    yield Row("fleet", "boards", seen.boards, "")
    if seen.day is not None:
        yield from _day(seen.day, seen.day_boards)
    if seen.steady is not None:
        yield from _steady(seen.steady, seen.boards)
    for outage in seen.outages:
        yield from _outage(outage, seen.poll_s)
    for news in seen.news:
        yield from _news(news, seen.poll_s)
    if seen.outages:
        yield from _paced(min(PACED, PACED_SHARE * seen.boards), seen.poll_s)
    yield from _versions(seen)
    yield Row("fleet", "memory of a board", seen.board_mb * KB, "kB")
    yield Row("fleet", "peak memory of all", seen.peak_mb, "MB")


def _versions(seen: Seen) -> Iterator[Row]:
    """Yield how versions spread."""
    if seen.flapping is not None:
        yield from _flapping(seen.flapping, seen.poll_s)
    for wave in seen.waves:
        yield from _wave(wave)
    if seen.stopped is not None:
        yield from _stopped(seen.stopped)
    if seen.day and seen.steady and seen.waves:
        steady = seen.steady.traffic
        yield from _million(seen.day, seen.day_boards, steady, seen.waves)


def _day(traffic: Traffic, boards: int) -> Iterator[Row]:
    """Yield what a whole day of a few boards brought."""
    # A hundredth of the fleet, and two at least: a day of all would take an hour.
    name = f"a day, {boards} of the boards, 4 signatures: each"
    days = boards * traffic.seconds / DAY_S
    yield from _daily(name, traffic, days)


def _steady(seen: Steady, boards: int) -> Iterator[Row]:
    """Yield an hour of all boards, also as if the day went on like that."""
    traffic = seen.traffic
    name = f"an hour, all {boards:,}, nothing new: each a day"
    yield from _daily(name, traffic, boards * traffic.seconds / DAY_S)
    asked = traffic.requests
    for what, value, unit in (
        ("HTTP bytes of a look", traffic.http_bytes / asked, "B"),
        ("its bytes with TLS", traffic.wire_bytes / asked, "B"),
        ("with TCP's and IP's heads, too", _on_ip(traffic) / asked, "B"),
        ("sessions resumed", traffic.resumed / traffic.handshakes * 100, "%"),
        ("requests, mean", asked / traffic.seconds, "/s"),
        ("requests, busiest second", max(traffic.per_second), "/s"),
        ("nginx CPU of a look", seen.cpu_s / asked * MS, "ms"),
        ("nginx load of a core", seen.cpu_s / traffic.seconds * 100, "%"),
    ):
        yield Row("fleet", f"nothing new: {what}", value, unit)


def _on_ip(traffic: Traffic) -> float:
    """Return the bytes as IP carried them; loopback has no Ethernet's limit of 1500."""
    heads = traffic.idle_segments * HEAD_BYTES * traffic.handshakes
    return traffic.wire_bytes + heads


def _daily(name: str, traffic: Traffic, days: float) -> Iterator[Row]:
    """Yield the three targets of polling."""
    for what, value, unit, target in (
        ("requests", traffic.requests / days, "", REQUESTS),
        ("HTTP", traffic.http_bytes / days / KB, "kB", HTTP_KB),
        ("with TLS", traffic.wire_bytes / days / KB, "kB", WIRE_KB),
    ):
        yield Row("fleet", f"{name}, {what}", value, unit, target)


def _outage(seen: Outage, poll_s: float) -> Iterator[Row]:
    """Yield how a fleet came back.

    A second of a thousand boards has three looks on average, and ten at times: chance.
    Busiest seconds are compared with busiest seconds, minutes with the mean; ``paced``
    has enough boards for the literal comparison.
    """
    name = f"away {seen.away_s / MINUTE_S:g} min"
    before, after = seen.before.per_second, seen.after.per_second
    mean = sum(before) / len(before)
    took_s = float("inf") if seen.all_current_s is None else seen.all_current_s
    for what, value, unit, target in (
        ("busiest second / busiest before", max(after) / max(before), "x", HERD),
        ("busiest minute after / mean", _minute(after) / mean, "x", HERD),
        ("busiest minute away / mean", _minute(_away(seen)) / mean, "x", None),
        ("all boards current", took_s / poll_s, "periods", 2.0),
        ("full handshakes after", _full_share(seen.after), "%", None),
    ):
        yield Row("fleet", f"{name}: {what}", value, unit, target)


def _news(seen: News, poll_s: float) -> Iterator[Row]:
    """Yield how a fleet came back to something new.

    A look at something new is several requests, with an outage before it or without:
    an outage may double what the same news ask for on any other day. A peak is the
    busiest second.
    """
    name = f"new {seen.what} while away"
    before, after = seen.outage.before, seen.outage.after
    asked, looks = max(after.per_second), max(after.looks_per_second)
    usual_news = max(seen.calm.per_second)
    usual = sum(before.per_second) / len(before.per_second)
    period = sum(after.per_second[: int(poll_s)]) / poll_s
    quiet_looks, quiet = max(before.looks_per_second), max(before.per_second)
    for what, share, target in (
        ("peak looks / peak before", looks / quiet_looks, HERD),
        ("peak requests / peak, no outage", asked / usual_news, HERD),
        ("peak requests / peak, no news", asked / quiet, None),
        ("requests, first period / mean", period / usual, None),
    ):
        yield Row("fleet", f"{name}: {what}", share, "x", target)


def _away(seen: Outage) -> list[int]:
    """Return the looks of each second in which nobody was there."""
    began = len(seen.before.per_second)
    return seen.whole.looks_per_second[began : began + int(seen.away_s)]


def _full_share(traffic: Traffic) -> float:
    """Return the share of connections that could not resume a session."""
    return (1 - traffic.resumed / traffic.handshakes) * 100


def _minute(counts: list[int]) -> float:
    """Return the busiest minute's mean, a second."""
    starts = range(max(1, len(counts) - MINUTE_S + 1))
    return max(sum(counts[at : at + MINUTE_S]) for at in starts) / MINUTE_S


def _flapping(seen: Flapping, poll_s: float) -> Iterator[Row]:
    """Yield how boards behind a bad network got a version."""
    extra = seen.fetched_bytes / seen.needed_bytes - 1
    for what, value, unit, target in (
        ("boards stuck", seen.stuck, "", 0),
        ("all boards current", seen.took_s / poll_s, "periods", None),
        ("connections cut", seen.cuts, "", None),
        ("connections refused", seen.refused, "", None),
        ("bytes resumed over polls", seen.resumed_bytes / MB, "MB", None),
        ("bytes fetched twice", extra * 100, "%", None),
    ):
        yield Row("fleet", f"half flapping: {what}", value, unit, target)


def _wave(seen: WaveSeen) -> Iterator[Row]:
    """Yield one wave."""
    name = f"wave to {seen.percent:g} %"
    took_s = float("inf") if seen.took_s is None else seen.took_s
    traffic = seen.traffic
    yield Row("fleet", f"{name}: boards", seen.boards, "")
    yield Row("fleet", f"{name}: 99 % current", took_s, "s")
    yield Row("fleet", f"{name}: boards outside touched", seen.outside, "", 0)
    yield Row("fleet", f"{name}: busiest second", max(traffic.per_second), "requests")
    yield Row("fleet", f"{name}: with TLS", traffic.wire_bytes / MB, "MB")
    yield Row("fleet", f"{name}: nginx CPU", seen.cpu_s, "s")


def _stopped(seen: Stopped) -> Iterator[Row]:
    """Yield what a bad version did."""
    name = "bad version"
    stopped_s = float("inf") if seen.stopped_s is None else seen.stopped_s
    yield Row("fleet", f"{name}: canary boards", seen.canary, "")
    yield Row("fleet", f"{name}: of these it failed on", seen.failed, "")
    yield Row("fleet", f"{name}: next wave, boards touched", seen.touched, "", 0)
    yield Row("fleet", f"{name}: told to stopped", stopped_s, "s")
    yield Row("fleet", f"{name}: boards left with it", seen.failed - seen.healed, "", 0)


def _paced(boards: int, poll_s: float) -> Iterator[Row]:
    """Yield herds of many boards by their pace alone."""
    kinds = ((60.0, False), (300.0, False), (3600.0, False), (600.0, True))
    for away_s, together in kinds:
        herd = paced(boards, away_s, together=together, poll_s=poll_s)
        how = "all boot, " if together else ""
        name = f"computed, {boards:,}, {how}away {away_s / MINUTE_S:g} min"
        yield Row("fleet", f"{name}: busiest second / mean", herd.busiest, "x", HERD)
        yield Row("fleet", f"{name}: all current", herd.last_s / poll_s, "periods", 2.0)


def _million(
    day: Traffic, day_boards: int, steady: Traffic, waves: list[WaveSeen]
) -> Iterator[Row]:
    """Yield figures of a fleet that fits no machine."""
    last = waves[-1]
    news = last.boards - (waves[-2].boards if len(waves) > 1 else 0)
    looks = steady.requests / steady.seconds * last.traffic.seconds
    bundles = news * last.bundle_bytes
    measured = Measured(
        look_bytes=steady.wire_bytes / steady.requests,
        day_bytes=day.wire_bytes / day_boards,
        day_requests=day.requests / day_boards,
        update_requests=1 + (last.traffic.requests - looks) / news,
        update_bytes=(last.traffic.wire_bytes - bundles) / news,
    )
    for what, value, unit in behind_cdn(measured):
        yield Row("fleet", f"10^6, computed: {what}", value, unit)
