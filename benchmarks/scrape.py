"""``scrape``: how long ``/metrics`` takes, and what ten a second do to the loop.

Rendering is measured alone, at given numbers of series; the rest end to end.

The daemon runs in this process, so that the loop's own histogram can be read before and
after each round; the scraper is a process of its own.
"""

import asyncio
import subprocess
import sys

from agent.cli.places import read_settings
from agent.core.counts import EMPTY, add_sections
from agent.core.histogram import quantile
from agent.core.statistics_block import Section
from agent.daemon import Daemon
from agent.store import Store
from benchmarks.boards import real_board
from benchmarks.rows import Row, median
from benchmarks.scrape_series import measure
from benchmarks.subjects import subject

SCRAPE_MS = 5.0
P99_RATIO = 1.05
RENDERINGS = 200  # of some milliseconds each
REQUEST = "GET /metrics HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n"
SCRAPER = """
import socket, sys, time
while True:
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as stream:
        stream.sendall(sys.argv[2].encode())
        while stream.recv(65536):
            pass
    took = time.perf_counter() - began
    print(took, flush=True)
    time.sleep(max(0.0, 0.1 - took))
"""


async def run(rounds: int, seconds: float) -> list[Row]:
    """Return what rendering and a scrape take, and the ratio of the loop's p99."""
    rendering = list(measure(RENDERINGS))
    with real_board(subject("kws")) as board:
        board.configure(poll_s=100_000.0)
        board.start()
        board.until_ready(0.05)
        board.stop()
        settings = read_settings(board.here / "agent.toml")
        store = Store.open(board.here / "state")
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        daemon = Daemon(
            settings,
            store,
            board.here / "state",
            root=(board.here / "root.json").read_bytes(),
            socket=board.here / "inner.sock",
            announce=listening.set_result,
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(daemon.run())
            port = int((await listening).rpartition(":")[2])
            while not daemon.snapshot().pipelines[0].ready:
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)
            rows = await _measure(daemon, port, rounds, seconds)
            daemon.ask_to_stop()
            await running
        store.close()
    return [*rendering, *rows]


async def _measure(daemon: Daemon, port: int, rounds: int, seconds: float) -> list[Row]:
    """Alternate rounds with and without scrapes."""
    ratios: list[float] = []
    took_ms: list[float] = []
    for round_ in range(rounds):
        sides = [True, False] if round_ % 2 else [False, True]
        p99: dict[bool, float] = {}
        for scraped in sides:
            p99[scraped] = await _p99(daemon, port if scraped else 0, seconds, took_ms)
        ratios.append(p99[True] / p99[False])
    ratio, spread = median(ratios)
    scrape_ms, scrape_spread = median(took_ms)
    return [
        Row(
            "scrape",
            "one scrape, client side",
            scrape_ms,
            "ms",
            SCRAPE_MS,
            spread=scrape_spread,
        ),
        Row(
            "scrape",
            "loop p99 at 10 scrapes/s / without",
            ratio,
            "",
            P99_RATIO,
            spread=spread,
        ),
    ]


async def _p99(
    daemon: Daemon, port: int, seconds: float, took_ms: list[float]
) -> float:
    """Return the loop's p99 in ns over some seconds, scraped if there is a port."""
    before = _total(daemon)
    if port:
        scraper = subprocess.Popen(  # noqa: ASYNC220 - it starts in a millisecond
            [sys.executable, "-c", SCRAPER, str(port), REQUEST], stdout=subprocess.PIPE
        )
        await asyncio.sleep(seconds)
        scraper.kill()
        output, _ = scraper.communicate()
        took_ms += [float(line) * 1e3 for line in output.split()[1:]]
    else:
        await asyncio.sleep(seconds)
    after = _total(daemon)
    buckets = [
        b - a
        for a, b in zip(
            before.stages[-1].buckets, after.stages[-1].buckets, strict=True
        )
    ]
    return quantile(buckets, 0.99)


def _total(daemon: Daemon) -> Section:
    """Return everything the one pipeline has counted."""
    total = EMPTY
    for row in daemon.snapshot().pipelines[0].counts:
        total = add_sections(total, row.section)
    return total
