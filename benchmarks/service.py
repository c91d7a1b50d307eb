"""``service``: a board under a real systemd: boot, deaths, idle cost, sandbox.

The board is a Debian in ``systemd-nspawn``: its kernel is this machine's and runs
already, and its files are cached. So "power on" is the start of systemd, without a
firmware and without a card's first reads; the agent's part is measured apart.
"""

import os
import signal
import time
from pathlib import Path

from benchmarks.rows import Row, median
from benchmarks.service_board import DEADLINE_MS, WRITE, Measured, measured_board
from tests.service.loops import inside_and_outside

BOOT_S, AGENT_S = 6.0, 2.0
CPU_PERCENT, PSS_MB, FLASH_MB_A_DAY = 1.0, 90.0, 20.0
BACK_S, LOOP_RATIO = 1.5, 0.95
SCRAPE_S, RATE = 15.0, 10.0
DAY_S, MB = 86_400.0, 2**20
SETTLE_S = 20.0  # the start's own writes and looks are over


def run(rounds: int, minutes: float) -> list[Row]:
    """Return all rows; ``minutes`` is how long the idle board is watched."""
    with measured_board(Path(__file__).parent.parent) as measured:
        rows = _boots(measured, rounds)
        rows += _steady(measured, minutes * 60)
        rows += _deaths(measured, max(rounds, 10))
        rows += _ratio(measured, rounds)
    return rows


def _row(measure: str, values: list[float], unit: str, target: float | None) -> Row:
    """Return the row of a median."""
    middle, spread = median(values)
    return Row("service", measure, middle, unit, target, spread=spread)


def _now() -> float:
    """Return Unix seconds: predictions carry them."""
    return time.time()  # noqa: TID251 - a benchmark is its own composition root


def _boots(measured: Measured, rounds: int) -> list[Row]:
    """Switch on again and again, after clean shutdowns."""
    board = measured.board
    measured.start(rate=100.0, sink=WRITE)
    whole, agent = [], []
    for _ in range(rounds):
        board.machine.power_off()
        measured.forget_lines()
        began = _now()
        board.machine.power_on()
        first = measured.first_answer_after(began)
        whole.append(first - began)
        # Microseconds of CLOCK_MONOTONIC, which containers share with this machine.
        started = int(board.shows("InactiveExitTimestampMonotonic")) / 1e6
        agent.append(first - (_now() - time.monotonic()) - started)
    return [
        _row("container boot to the first answer", whole, "s", BOOT_S),
        _row("the unit's start to the first answer", agent, "s", AGENT_S),
    ]


def _steady(measured: Measured, seconds: float) -> list[Row]:
    """Watch a board at ten samples a second that is scraped as Prometheus does."""
    measured.start(rate=RATE)
    board = measured.board
    board.get("/")
    time.sleep(SETTLE_S)
    pids = measured.pids()
    watched = {"daemon": [pids[0]], "both": [*pids], "log": [measured.journald_pid()]}
    began = time.monotonic()
    cpu_s = {name: _cpu_s(group) for name, group in watched.items()}
    written = {name: _written(group) for name, group in watched.items()}
    while time.monotonic() - began < seconds:
        board.get("/metrics")
        time.sleep(SCRAPE_S)
    took_s = time.monotonic() - began
    share = {
        name: (_cpu_s(group) - cpu_s[name]) / took_s * 100
        for name, group in watched.items()
    }
    daily = {
        name: (_written(group) - written[name]) / MB * DAY_S / took_s
        for name, group in watched.items()
    }
    pss = sum(map(_pss_mb, pids))
    return [
        Row("service", "idle CPU of the daemon", share["daemon"], "%", CPU_PERCENT),
        Row("service", "the same with its worker", share["both"], "%"),
        Row("service", "written a day", daily["both"], "MB", FLASH_MB_A_DAY),
        Row("service", "written a day by journald", daily["log"], "MB"),
        *_memory(measured, pss),
    ]


def _memory(measured: Measured, looked_mb: float) -> list[Row]:
    """Return the memory of a board that has looked at a repository, and of one without.

    The target is put on the first: everything is on there.
    """
    measured.start(rate=RATE, updates=False)
    measured.board.get("/")
    measured.board.get("/metrics")
    time.sleep(SETTLE_S)
    without_mb = sum(map(_pss_mb, measured.pids()))
    model = measured.subject.name if measured.subject.public else "demo"
    named = f"daemon + worker with {model}: PSS"
    return [
        Row("service", named, looked_mb, "MB", PSS_MB),
        Row("service", "the same without a repository", without_mb, "MB"),
    ]


def _cpu_s(pids: list[int]) -> float:
    """Return the processor time of all threads: the scheduler's own nanoseconds."""
    stats = [
        path.read_text(encoding="ascii")
        for pid in pids
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    ]
    return sum(int(text.split()[0]) for text in stats) / 1e9


def _written(pids: list[int]) -> int:
    """Return the bytes sent to a disk (proc_pid_io(5): ``write_bytes``)."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/io").read_text(encoding="ascii")
        rows = dict(line.split(": ") for line in text.splitlines())
        total += int(rows["write_bytes"])
    return total


def _pss_mb(pid: int) -> float:
    """Return a process's share of memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    rows = [line.split() for line in text.splitlines() if line.startswith("Pss:")]
    return int(rows[0][1]) * 1024 / MB


def _deaths(measured: Measured, rounds: int) -> list[Row]:
    """Kill and stop workers; each of a new daemon, whose patience is fresh."""
    back: dict[signal.Signals, list[float]]
    back = {signal.SIGKILL: [], signal.SIGSTOP: []}
    for _ in range(rounds):
        for number, seconds in back.items():
            measured.start(rate=100.0, sink=WRITE)
            worker = measured.pids()[1]
            began = _now()
            os.kill(worker, number)
            # What it had on the way may still arrive within that instant.
            seconds.append(measured.first_answer_after(began + 0.05) - began)
    waited_s = DEADLINE_MS / 1000
    late = [seconds - waited_s for seconds in back[signal.SIGSTOP]]
    return [
        _row("worker SIGKILL to the next answer", back[signal.SIGKILL], "s", BACK_S),
        _row("worker SIGSTOP to it, beyond the deadline", late, "s", BACK_S),
    ]


def _ratio(measured: Measured, rounds: int) -> list[Row]:
    """Compare the loop inside the unit with the same one in no unit, in turn."""
    walls, cpus = [], []
    for _ in range(rounds):
        inside, outside = inside_and_outside(
            measured.board, lambda state: measured.settings(state=state), 3.0
        )
        walls.append(outside.wall_s / inside.wall_s)
        cpus.append(outside.cpu_s / inside.cpu_s)
    rows = []
    for measure, ratios, target in (
        ("speed of the loop, inside the unit / outside", walls, LOOP_RATIO),
        ("the same by processor time", cpus, None),
    ):
        middle, spread = median(ratios)
        rows.append(Row("service", measure, middle, "", target, "above", spread))
    return rows
