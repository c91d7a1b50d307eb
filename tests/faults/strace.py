"""The same deaths by a foreign hand: ``strace -e inject=CALL:signal=KILL:when=K``.

The rules this module keeps:
 * strace counts each call per thread, so ``when`` rises until no thread comes that far.
 * Never ``--seccomp-bpf``: strace 6.1 then injects nothing, and says nothing.
 * Each death is confirmed twice: by strace's own words, and by ``waitpid``.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from tests.faults.driver import live
from tests.faults.oracle import Verdict, judge
from tests.faults.parallel import Case
from tests.faults.scenes import Scene

ATTACH_S = 20.0
STRACE = ("strace", "-qq", "-f")


def killed_by_strace(scene: Scene, names: list[str]) -> Iterator[Case]:
    """Yield a case for each system call, which dies at its first, second, third..."""
    for name in names:
        yield partial(_all_of, scene, name)


def _all_of(scene: Scene, name: str) -> list[Verdict]:
    """Die at every k of one call, until nobody makes that many."""
    verdicts: list[Verdict] = []
    for when in count(1):
        folder = Path(mkdtemp(dir=scene.path))
        state = scene.fresh(folder)
        log = folder / "strace.log"
        killed = _die(scene, state, log, f"{name}:signal=KILL:when={when}")
        if not killed:
            break
        state.mkdir(exist_ok=True)
        verdict = judge(scene, state, f"strace killed it at {name} {when}")
        if "+++ killed by SIGKILL +++" not in log.read_text(errors="replace"):
            verdict.wrong.append("strace did not say so")
        verdicts.append(verdict)
        shutil.rmtree(folder)
    return verdicts


def _die(scene: Scene, state: Path, log: Path, inject: str) -> bool:
    """Live once under strace and return whether SIGKILL ended it."""
    gate, told = os.pipe(), os.memfd_create("told")
    child = os.fork()
    if child == 0:
        os.read(gate[0], 1)
        live(scene, state, told)
        os._exit(0)
    name = inject.partition(":")[0]
    what = ("-e", f"trace={name}", "-e", f"inject={inject}")
    tracer = subprocess.Popen([*STRACE, "-o", str(log), "-p", str(child), *what])
    _wait_attached(child)
    os.write(gate[1], b".")
    _, status = os.waitpid(child, 0)
    tracer.wait(ATTACH_S)
    for descriptor in (*gate, told):
        os.close(descriptor)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _wait_attached(process: int) -> None:
    """Wait until somebody traces a process."""
    deadline = time.monotonic() + ATTACH_S
    status = Path(f"/proc/{process}/status")
    while "TracerPid:\t0\n" in status.read_text():
        assert time.monotonic() < deadline, "strace does not attach"
        time.sleep(0.002)
