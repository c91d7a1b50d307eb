"""What a sealed model leaves outside of memory: nothing, wherever one looks.

Each search is first shown to find what it looks for.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.publish.pack import render_bundle
from tests.e2e.conftest import STEADY, watched_daemon
from tests.fakes.daemon_process import DaemonProcess, alive, kill_worker, wait_until
from tests.fakes.fleet import bundle, opened_bundle, variants
from tests.fakes.residue import (
    MARKER_BYTES,
    files_since,
    holds,
    in_memory,
    open_on_disk,
    processes,
)
from tests.fakes.sealed import SealedFleet
from tests.fakes.swapping import Group, control_group, look_anew, swap_file
from tests.fakes.watched_board import WatchedBoard

BOARD = "pi-7"
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


@dataclass(frozen=True)
class Marked:
    """A board that runs a sealed model with a marker in it.

    Attributes:
        began: Unix seconds before anything of it was written.
        folder: Where the daemon was started: where it would leave a core.
    """

    watched: WatchedBoard
    marker: bytes
    began: float
    folder: Path

    @property
    def board(self) -> DaemonProcess:
        """The daemon."""
        return self.watched.board

    def found(self) -> list[Path]:
        """Return the files that hold the marker: of the board, and passing ones."""
        places = [str(self.folder)]
        paths = [*files_since(self.began), *files_since(self.began, places)]
        return [path for path in paths if holds(path, self.marker)]


def marked_bundle(version: int, marker: bytes) -> bytes:
    """Return a version whose models end with a marker; they answer as before."""
    opened = opened_bundle(bundle(version))
    models = {name: raw + marker for name, raw in variants(opened).items()}
    declared = tuple(
        replace(
            it, size=len(models[it.name]), sha256=sha256(models[it.name]).hexdigest()
        )
        for it in opened.manifest.variants
    )
    manifest = replace(opened.manifest, variants=declared)
    return render_bundle(manifest, models, bytes(opened.golden))


@contextmanager
def run_marked(home: Path, *, first: str = "true") -> Iterator[Marked]:
    """Give a board that has installed a sealed model, and its next version.

    Args:
        home: Where everything of it lies.
        first: What its shell does before it becomes the daemon.
    """
    began = time.time()  # noqa: TID251 - files have the machine's times
    marker = os.urandom(MARKER_BYTES)
    fleet = SealedFleet(home, BOARD)
    tables = fleet.tables(BOARD)
    folder = home / "cwd"
    folder.mkdir()
    board = watched_daemon(home / "board", tables.pop("update"), tables, STEADY)
    # Cores are allowed, and would lie in a folder of our own.
    script = f'{first}; cd {folder}; ulimit -c unlimited; exec "$@"'
    board.wrapper = ("sh", "-c", script, "sh")
    with board:
        for version in (1, 2):
            fleet.publish(version, marked_bundle(version, marker))
            board.wait_version(version)
        yield Marked(WatchedBoard(fleet, board), marker, began, folder)


@pytest.fixture
def marked(tmp_path: Path) -> Iterator[Marked]:
    """Give such a board."""
    with run_marked(tmp_path) as board:
        yield board


def test_the_model_is_on_no_disk(marked: Marked, tmp_path: Path) -> None:
    """Not in the state, nor in passing files, nor in what any process has open."""
    marked.watched.answers()
    here = processes(marked.board.pid)
    answering = {marked.board.pid, marked.board.worker_pid()}
    if os.geteuid() == 0:  # what is searched for is there: in memory
        assert {pid for pid in answering if in_memory(pid, marked.marker)} == answering
    opened = [link for pid in here for link in open_on_disk(pid)]
    assert [link for link in opened if holds(link, marked.marker)] == []
    assert marked.found() == []
    # The searches find what is there to be found.
    left = tmp_path / "left"
    left.write_bytes(bytes(3_000_000) + marked.marker)
    assert marked.found() == [left]
    with left.open("rb"):
        mine = open_on_disk(os.getpid())
        assert [it for it in mine if holds(it, marked.marker)] != []


def test_who_dies_leaves_no_core_with_it(marked: Marked, tmp_path: Path) -> None:
    """Worker and daemon, killed by what leaves a core otherwise: no byte of the model.

    Where cores go to a program, what it is given is looked at: nothing of any mapping.
    """
    board, here = marked.board, processes(marked.board.pid)
    for pid in here:
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert "Max core file size        0 " in limits, pid
        assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) == 0, pid
    before = kill_worker(board, signal.SIGSEGV)
    board.wait_for(lambda: board.worker_pid() not in {0, before}, "another worker")
    left = processes(board.pid)
    board.signal(signal.SIGABRT)
    board.wait()
    wait_until(lambda: not any(map(alive, left)), "the workers end")
    assert marked.found() == []
    if CORE_PATTERN.read_text().startswith(("|", "/")):
        pytest.skip("cores go elsewhere here: their limit and their filter were seen")
    core = abort_with(marked.marker, tmp_path)
    assert holds(core, marked.marker)


def abort_with(marker: bytes, folder: Path) -> Path:
    """Let a process die that holds the marker and hides nothing; return its core."""
    script = "import os, sys; held = bytes.fromhex(sys.stdin.read()); os.abort()"

    def allow() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (2**40, 2**40))

    died = subprocess.run(
        [sys.executable, "-c", script],
        input=marker.hex().encode(),
        cwd=folder,
        preexec_fn=allow,
        check=False,
    )
    assert died.returncode == -signal.SIGABRT
    (core,) = folder.glob("core*")
    return core


def test_nothing_of_it_is_swapped(tmp_path: Path) -> None:
    """Short of memory, a group that must not swap leaves no byte in a swap file.

    The unit's group is one (MemorySwapMax=0 of ``--with seal``). One that may swap
    shows that the file would have it.
    """
    if os.geteuid() != 0:
        pytest.skip("a swap file takes root; there is the unit's MemorySwapMax=0")
    file, home = tmp_path / "swap", tmp_path / "home"
    home.mkdir()
    with (
        swap_file(file) as why,
        control_group("free") as free,
        control_group("sealed") as group,
    ):
        if why or free is None or group is None:
            pytest.skip(f"no swap file or no control group of memory here: {why}")
        swapped = os.urandom(MARKER_BYTES)
        with hold(swapped, free):
            free.squeeze()
            assert holds(look_anew(file), swapped)
        group.forbid_swap()
        with run_marked(home, first=group.entering) as marked:
            group.squeeze()
            marked.watched.answers()
            assert not holds(look_anew(file), marked.marker)


@contextmanager
def hold(marker: bytes, group: Group) -> Iterator[None]:
    """Keep a process that holds a marker a million times, and does nothing else."""
    script = (
        "import sys; held = bytearray(bytes.fromhex(sys.stdin.readline()) * 500_000);"
        "print(len(held), flush=True); sys.stdin.readline()"
    )
    shell = f'{group.entering}; exec "$@"'
    command = ["sh", "-c", shell, "sh", sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(marker.hex() + "\n")
        process.stdin.flush()
        assert process.stdout.readline()
        yield
        process.kill()
