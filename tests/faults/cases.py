"""The faults of one traced update: killed, stopped, refused by the disk, anywhere.

The rules this module keeps:
 * A case is a closure that a fork of the warm process runs: a state of its own, one
   traced life, the oracle.
 * A fault that did not fire is itself a failure of the case.
"""

import faulthandler
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from tests.faults.driver import Variant, live
from tests.faults.oracle import Verdict, judge
from tests.faults.parallel import Case
from tests.faults.scenes import Scene
from tests.faults.syscalls import SYNCS, Call
from tests.faults.tracer import CRASHED, WHERE, Trace, Watcher, trace
from tests.faults.watchers import (
    ERRORS,
    Asks,
    Copies,
    Fails,
    Signals,
    Waits,
    parse_stacks,
)

MAKES_ROOM = frozenset({"unlink", "unlinkat", "rmdir", "ftruncate"})
Site = tuple[str, str, tuple[str, ...]]


def traced_life(
    scene: Scene, folder: Path, watcher: Watcher, variant: Variant = "right"
) -> tuple[Path, Trace, bytes]:
    """Trace one life on a fresh state; return the state and what the life told."""
    state = scene.fresh(folder)
    told = os.memfd_create("told")
    traced = trace(lambda: live(scene, state, told, variant), folder, watcher)
    raw = os.pread(told, os.fstat(told).st_size, 0)
    os.close(told)
    return state, traced, raw


def whole_life(scene: Scene) -> list[Call]:
    """Return the calls of an update that nothing disturbs."""
    folder = Path(mkdtemp(dir=scene.path))
    return traced_life(scene, folder, Watcher())[1].calls


def code_sites(scene: Scene) -> dict[Site, int]:
    """Return every code site -> the number of its first call.

    A site is a call, its file, the lines of ours that led there, and the call before:
    a commit of SQLite is one line of ours, and syncs the same folder for two reasons.
    """
    folder = Path(mkdtemp(dir=scene.path))
    state, stacks = scene.fresh(folder), os.memfd_create("stacks")
    told = os.memfd_create("told")

    def child() -> None:
        faulthandler.register(WHERE, stacks, all_threads=False)
        live(scene, state, told)

    traced = trace(child, folder, Asks())
    found = parse_stacks(os.pread(stacks, os.fstat(stacks).st_size, 0))
    assert len(found) == len(traced.calls), (len(found), len(traced.calls))
    sites: dict[Site, int] = {}
    before = ""
    for call, stack in zip(traced.calls, found, strict=True):
        here = f"{call.name} {call.role}"
        sites.setdefault((before, here, stack), call.number)
        before = here
    return sites


def kill_states(scene: Scene, variant: Variant = "right") -> Iterator[Case]:
    """Copy the state after every call of one run, and yield a case for each copy."""
    folder = Path(mkdtemp(dir=scene.path))
    (folder / "live").mkdir()
    copies = Copies(folder / "live", folder / "copies")
    copies.into.mkdir()
    _, traced, _ = traced_life(scene, folder / "live", copies, variant)
    assert traced.calls == copies.kept
    for call in copies.kept:
        state = copies.into / str(call.number) / "state"
        state.mkdir(exist_ok=True)  # the first call makes it
        yield partial(_judged, scene, state, f"killed after {describe(call)}")


def _judged(scene: Scene, state: Path, case: str) -> list[Verdict]:
    """Judge one copy."""
    return [judge(scene, state, case)]


def killed(scene: Scene, numbers: list[int]) -> Iterator[Case]:
    """Yield a real SIGKILL after each of these calls."""
    for number in numbers:
        yield partial(_case, scene, Signals(number), "SIGKILL")


def stopped(scene: Scene, numbers: list[int]) -> Iterator[Case]:
    """Yield a SIGTERM after each of these calls, which the life obeys."""
    for number in numbers:
        yield partial(_case, scene, Signals(number, signal.SIGTERM), "SIGTERM")


def failing(
    scene: Scene, numbers: list[int], error: str, *, sticky: bool = False
) -> Iterator[Case]:
    """Yield an error at each of these calls, once or from there on."""
    spare = MAKES_ROOM if error in {"ENOSPC", "EDQUOT"} else frozenset[str]()
    for number in numbers:
        fails = Fails(number, ERRORS[error], sticky, spare)
        yield partial(_case, scene, fails, f"{error} {'sticky' if sticky else 'once'}")


def _case(scene: Scene, watcher: Signals | Fails, what: str) -> list[Verdict]:
    """Live with one fault, and judge what is left."""
    folder = Path(mkdtemp(dir=scene.path))
    try:
        state, traced, raw = traced_life(scene, folder, watcher)
        fired = traced.failed or traced.signalled
        if not fired or fired[0] != watcher.number:
            return [Verdict(f"{what} at {watcher.number}", wrong=["it did not fire"])]
        case = f"{what} at {describe(traced.calls[watcher.number - 1])}"
        state.mkdir(exist_ok=True)
        verdict = judge(scene, state, case, raw)
        verdict.wrong += _ended(watcher, traced, raw)
        return [verdict]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ended(watcher: Signals | Fails, traced: Trace, raw: bytes) -> Iterator[str]:
    """Yield what is strange about how a life ended."""
    number = watcher.signal if isinstance(watcher, Signals) else 0
    ended = traced.status & 0x7F  # the signal that ended it, as in wait(2)
    if number == signal.SIGKILL:
        if not traced.killed:
            yield "it was not killed"
    elif ended and ended == number:
        return  # SIGTERM before anybody listened to it: nothing had begun
    elif traced.status:
        yield f"O5 status {traced.status} (a crash is {CRASHED << 8})"
    elif not raw:
        yield "O5 it said nothing"


def slow(scene: Scene, seconds: float) -> Iterator[Case]:
    """Yield one life on a disk whose every sync takes so long."""
    yield partial(_slow, scene, seconds)


def _slow(scene: Scene, seconds: float) -> list[Verdict]:
    """Live slowly, and judge: it must have got there all the same."""
    folder = Path(mkdtemp(dir=scene.path))
    waits = Waits(SYNCS, seconds)
    state, traced, raw = traced_life(scene, folder, waits)
    verdict = judge(scene, state, f"{waits.waited} syncs took {seconds} s more", raw)
    if not waits.waited or traced.status:
        verdict.wrong.append(f"{waits.waited} waits, status {traced.status}")
    if verdict.found != scene.goal:
        verdict.wrong.append(f"O4 {verdict.found} came of it, not {scene.goal}")
    return [verdict]


def describe(call: Call) -> str:
    """Return a call in words."""
    return f"{call.number} {call.name} {call.role}"
