"""``memory``: what daemon and worker keep in memory, and what an install weighs."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.boards import RealBoard, real_board
from benchmarks.rows import Row
from benchmarks.subjects import subject

MB = 2**20  # as systemd, ps and free count
DAEMON_MB, REFRESHED_MB, WORKER_MB, BOTH_PSS_MB, VENV_MB = 55, 63, 50, 85, 200


def run(*, venv: bool) -> list[Row]:
    """Return RSS and PSS; with ``venv`` also the size of a new environment."""
    with real_board(subject("kws")) as board:
        board.configure(rate=100.0)
        board.start()
        board.until_ready(0.05)
        time.sleep(2.0)
        refreshed = _memory(_daemon(board), "Rss")
        board.stop()
        # Booted from its store: the next look at the repository is far away.
        shutil.move(board.here / "repo", board.here / "gone")
        board.configure(rate=100.0, poll_s=100_000.0)
        _without_updates(board)
        board.start()
        board.until_ready(0.05)
        time.sleep(2.0)
        daemon, worker = _daemon(board), _worker(board)
        rss = {"daemon": _memory(daemon, "Rss"), "worker": _memory(worker, "Rss")}
        both = _memory(daemon, "Pss") + _memory(worker, "Pss")
        rows = [
            _row("daemon booted from its store: RSS", rss["daemon"], DAEMON_MB),
            _row("daemon after a first refresh: RSS", refreshed, REFRESHED_MB),
            _row("worker with kws: RSS", rss["worker"], WORKER_MB),
            _row("both: PSS", both, BOTH_PSS_MB),
        ]
    if venv:
        rows.append(_row("environment without pip", _venv_mb(), VENV_MB))
    return rows


def _row(measure: str, value: float, target: float) -> Row:
    """Return a row in MB."""
    return Row("memory", measure, value, "MB", target)


def _without_updates(board: RealBoard) -> None:
    """Take the [update] table out of the settings."""
    path = board.here / "agent.toml"
    head, _, rest = path.read_text(encoding="utf-8").partition("[update]")
    _, local, tail = rest.partition("[local]")
    path.write_text(head + local + tail, encoding="utf-8")


def _daemon(board: RealBoard) -> int:
    """Return the daemon's process id."""
    return board.process.pid if board.process else 0


def _worker(board: RealBoard) -> int:
    """Return the worker's process id."""
    pipelines = board.state()["pipelines"]
    pid: int = pipelines[board.subject.name]["worker"]["pid"]
    return pid


def _memory(pid: int, field: str) -> float:
    """Return Rss or Pss of a process in MB (proc_pid_smaps_rollup(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MB
    return 0.0


def _venv_mb() -> float:
    """Install this checkout into a new environment and weigh it."""
    folder = Path(tempfile.mkdtemp(prefix="tinyward-venv-"))
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        here = Path(__file__).parent.parent
        pip = [str(folder / "bin" / "pip"), "install", "-q", str(here)]
        subprocess.run(pip, check=True)
        left_out = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
        total = 0
        for root, folders, files in os.walk(folder / "lib"):
            folders[:] = [name for name in folders if not name.startswith(left_out)]
            total += sum((Path(root) / name).lstat().st_size for name in files)
        return total / MB
    finally:
        shutil.rmtree(folder)
