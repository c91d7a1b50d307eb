"""Nobody of this user looks into a child, and the daemon still sees what it has to."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

import agent
from agent.core.messages import Ready
from agent.core.statistics_block import BLOCK_BYTES
from agent.supervise.child import Child, spawn_child
from agent.supervise.figures import ProcessFigures, owns_thread
from agent.supervise.memfd import shared_memory
from tests.fakes.digits import PATIENCE_S, in_loop, until
from tests.fakes.neighbour import CHILD, LOOKED_AT, look_into

Mode = Literal["run", "preflight", "shadow", "ask"]
MODES: tuple[Mode, ...] = ("run", "preflight", "shadow", "ask")
SLEEPER = "import sys, time; print('here', flush=True); time.sleep(600)"


@asynccontextmanager
async def locked(mode: Mode) -> AsyncIterator[Child]:
    """Give a child that has locked itself in; it is gone in the end."""
    block = shared_memory("block", BLOCK_BYTES) if mode == "run" else None
    child = await spawn_child(mode, name=mode, block=block, program=CHILD)
    try:
        ready = await child.receive()
        assert isinstance(ready, Ready)
        assert ready.locks["no_trace"] == ""
        yield child
    finally:
        await child.close()
        if block is not None:
            os.close(block)


@pytest.mark.parametrize("mode", MODES)
def test_no_neighbour_looks_into_a_child(mode: Mode) -> None:
    """Memory, descriptors and environment: plain models are in the first two."""

    @in_loop
    async def case() -> None:
        async with locked(mode) as child:
            assert look_into(child.pid) == dict.fromkeys(LOOKED_AT, "EACCES")

    case()


def test_a_process_without_locks_is_seen() -> None:
    """What the test above finds is of the locks, and not of where it runs."""
    with subprocess.Popen(
        [*CHILD, "-c", SLEEPER], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as open_one:
        assert open_one.stdout is not None
        open_one.stdout.readline()
        try:
            found = look_into(open_one.pid)
        finally:
            open_one.kill()
    if found["mem"] == "EACCES":
        pytest.skip("here (yama, a container) nobody looks into anybody")
    assert found == dict.fromkeys(LOOKED_AT, "allowed")


def test_the_daemon_sees_memory_and_state_of_a_child() -> None:
    """Opened before it locked itself in; after its end, nothing is known."""

    @in_loop
    async def case() -> None:
        async with locked("run") as child:
            assert child.figures.resident_bytes() > 2**20
            assert not child.figures.is_stopped()
            os.kill(child.pid, signal.SIGSTOP)
            await until(child.figures.is_stopped, "it stands still")
            os.kill(child.pid, signal.SIGCONT)
            await until(lambda: not child.figures.is_stopped(), "it goes on")
        assert (child.figures.resident_bytes(), child.figures.is_stopped()) == (0, 0)

    case()


def test_a_process_that_is_gone_has_no_figures() -> None:
    """Also one whose files were opened, and that was buried since."""
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        figures = ProcessFigures(process.pid)
        assert figures.resident_bytes() > 0
        process.kill()
    assert (figures.resident_bytes(), figures.is_stopped()) == (0, False)
    late = ProcessFigures(process.pid)
    assert (late.resident_bytes(), late.is_stopped()) == (0, False)
    for opened in (figures, late, late):
        opened.close()


def test_a_child_waits_until_it_may_lock_itself_in() -> None:
    """Its standard input ends when the daemon has opened what it wants to know."""
    ours, theirs = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-I", "-m", "agent.worker", "ask", "99", str(os.getpid())],
        stdin=ours,
        stderr=subprocess.PIPE,
    ) as child:
        os.close(ours)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)  # descriptor 99 is none: without a gate it ends
        os.close(theirs)
        assert child.wait(PATIENCE_S) != 0


def test_whose_a_thread_is() -> None:
    """One of this process, one of another, one that is none."""
    own, parent = threading.get_native_id(), os.getppid()
    assert owns_thread(os.getpid(), own)
    assert not owns_thread(parent, own)
    assert not owns_thread(os.getpid(), 0)
    assert not owns_thread(os.getpid(), -1)


HIDDEN = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from agent.supervise.child import spawn_child

async def case():
    child = await spawn_child("ask", name="hidden")
    await child.receive()
    try:
        open(f"/proc/{child.pid}/statm").close()
        print("by its path")
    except FileNotFoundError:
        print(child.figures.resident_bytes() > 2**20, child.figures.is_stopped())
    await child.close()

asyncio.run(case())
"""


def test_the_unit_hides_other_processes() -> None:
    """ProtectProc=invisible: a child is gone from /proc, and its figures stay."""
    hide = "mount -t proc -o hidepid=invisible proc /proc"
    # Not of group 0, which sees everything, and with no capability that does.
    powerless = "setpriv --regid=65534 --clear-groups --bounding-set=-all"
    done = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c"),
            f'{hide} && exec {powerless} --inh-caps=-all "$@"',
            *("sh", sys.executable, "-c", HIDDEN, str(Path(agent.__file__).parents[1])),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode or "path" in done.stdout:
        pytest.skip(f"no such mount here: {done.stderr[-200:]}{done.stdout}")
    assert done.stdout.split() == ["True", "False"]
