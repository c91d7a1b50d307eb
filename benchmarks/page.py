"""``page``: what the board's page weighs, how soon it is seen, what an open one costs.

The page is opened in headless Chromium on the same machine; what it costs the board is
measured with a viewer that only reads, so that no browser shares the processor.
"""

import re
import shutil
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.endpoint.pages import build_page
from benchmarks.boards import RealBoard, real_board
from benchmarks.rows import Row, median
from benchmarks.subjects import subject

MOST_BYTES = 150_000
PAINT_S = 0.5
CPU_PERCENT = 1.0
RATE = 100.0  # samples a second, so that there is something to show and little noise
VIEWERS = 8  # as many as a board lets look
PAINT = """
const paints = performance.getEntriesByType("paint");
const found = paints.find((it) => it.name === "first-contentful-paint");
return found ? found.startTime : null;
"""


def run(rounds: int, seconds: float) -> list[Row]:
    """Return the page's bytes, its first paint, and the processor's share it takes."""
    bytes_ = len(build_page(operator=True).body)
    rows = [Row("page", "bytes in all", bytes_, "B", MOST_BYTES)]
    with real_board(subject("kws")) as board:
        board.configure(rate=RATE, poll_s=100_000.0)
        board.start()
        board.until_ready(0.05)
        port = _port(board)
        rows += _paints(f"http://127.0.0.1:{port}/", rounds)
        rows += _costs(board, port, rounds, seconds)
    return rows


def _port(board: RealBoard) -> int:
    """Return where the page is."""
    said = (board.here / "log").read_text(encoding="utf-8")
    found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", said)
    if found is None:
        raise RuntimeError(f"the board does not say where it listens: {said}")
    return int(found[1])


def _paints(url: str, rounds: int) -> list[Row]:
    """Return when the page is seen; nothing where there is no Chromium."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        return []
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium") or ""
    service = Service(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    taken: list[float] = []
    try:
        for _ in range(rounds):
            driver.get(url)
            found = None
            while found is None:
                found = driver.execute_script(PAINT)
                time.sleep(0.02)
            taken.append(float(found) / 1000)
    finally:
        driver.quit()
    value, spread = median(taken)
    first = Row("page", "first paint, loopback", value, "s", PAINT_S, spread=spread)
    return [first, Row("page", "first paint, worst", max(taken), "s")]


def _costs(board: RealBoard, port: int, rounds: int, seconds: float) -> list[Row]:
    """Return the daemon's share of one core with one page and with all, less none."""
    shares: dict[int, list[float]] = {1: [], VIEWERS: []}
    alone: list[float] = []
    for _ in range(rounds):
        # Interleaved: what else the machine does falls on all of them alike.
        alone.append(_share(board, port, 0, seconds))
        for viewers, measured in shares.items():
            measured.append(_share(board, port, viewers, seconds))
    idle = statistics.median(alone)
    one, spread = median([share - idle for share in shares[1]])
    every, _ = median([share - idle for share in shares[VIEWERS]])
    return [
        Row("page", "CPU, one page open", one, "%", CPU_PERCENT, spread=spread),
        Row("page", f"CPU, {VIEWERS} pages open", every, "%"),
        Row("page", "CPU of the daemon, nobody looks", idle, "%"),
    ]


def _share(board: RealBoard, port: int, viewers: int, seconds: float) -> float:
    """Return the daemon's share of one core, in percent, while some look."""
    with _looking(port, viewers):
        time.sleep(1.0)  # the past is sent once, when a page is opened
        before, began = _cpu_ns(board), time.monotonic_ns()
        time.sleep(seconds)
        return 100 * (_cpu_ns(board) - before) / (time.monotonic_ns() - began)


def _cpu_ns(board: RealBoard) -> int:
    """Return the time that all threads of the daemon have run (sched/sched-stats)."""
    if board.process is None:
        raise RuntimeError("the board does not run")
    tasks = Path(f"/proc/{board.process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


@contextmanager
def _looking(port: int, viewers: int) -> Iterator[None]:
    """Keep some pages open that read all they are sent."""
    streams = [socket.create_connection(("127.0.0.1", port)) for _ in range(viewers)]
    readers = [threading.Thread(target=_read, args=(it,)) for it in streams]
    for stream, reader in zip(streams, readers, strict=True):
        stream.sendall(b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        reader.start()
    try:
        yield
    finally:
        for stream in streams:
            stream.shutdown(socket.SHUT_RDWR)
        for reader in readers:
            reader.join()
        for stream in streams:
            stream.close()


def _read(stream: socket.socket) -> None:
    """Read until the end."""
    while stream.recv(65_536):
        pass
