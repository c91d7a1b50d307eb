"""Disks that are really full: no block left, or no inode, at any point of an update.

Each case gets a tmpfs of its own that holds the state and a few blocks or inodes more;
one more in each case, until there is room for all of it.
"""

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

from agent.core.reasons import Reason
from tests.faults.driver import live
from tests.faults.oracle import Verdict, judge
from tests.faults.parallel import Case
from tests.faults.scenes import Scene

What = Literal["blocks", "inodes"]
PAGE = 4096
MOUNT = ("mount", "-t", "tmpfs", "-o")
UNMOUNT = ("umount", "-l")  # a file may be mapped still
# An update takes fewer of them: the last cases have room for all.
MORE = {"blocks": 64, "inodes": 24}
CALLED = {Reason.DISK_FULL, "committed"}


def may_mount() -> str:
    """Return why nothing can be mounted here, or an empty string."""
    command = [*NAMESPACE, *MOUNT, "mode=700", "tmpfs", "/mnt"]
    try:
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE)
    except FileNotFoundError:
        return "the program unshare"
    return f"mounting ({done.stderr.decode().strip()})" if done.returncode else ""


# Root needs no user namespace, in which it could not use loop devices.
NAMESPACE = (
    ("unshare", "-m", "--propagation", "private")
    if os.geteuid() == 0
    else ("unshare", "-rm")
)


def full(scene: Scene, what: What) -> Iterator[Case]:
    """Yield a case for each number of blocks or inodes that are left."""
    for more in range(MORE[what]):
        yield partial(_fill, scene, what, more)


def _fill(scene: Scene, what: What, more: int) -> list[Verdict]:
    """Live with so many left, make room again, judge."""
    folder = Path(mkdtemp(dir=scene.path))
    _mount(folder, "mode=700")
    try:
        state = scene.fresh(folder)
        _mount(folder, f"remount,{_limit(folder, what, more)}")
        raw = _live(scene, state)
        _mount(folder, "remount,size=64m,nr_inodes=10000")
        state.mkdir(exist_ok=True)
        verdict = judge(scene, state, f"{more} {what} left", raw)
        reasons = {line.rpartition(" ")[2] for line in verdict.said}
        if not reasons <= CALLED:
            verdict.wrong.append(f"O5 a full disk was called {reasons}")
        return [verdict]
    finally:
        subprocess.run([*UNMOUNT, str(folder)], check=True)
        folder.rmdir()


def _limit(folder: Path, what: What, more: int) -> str:
    """Return the mount option that leaves so many."""
    now = os.statvfs(folder)
    if what == "inodes":
        return f"nr_inodes={now.f_files - now.f_ffree + more}"
    used = (now.f_blocks - now.f_bfree) * now.f_frsize
    return f"size={max(used + more * PAGE, 1)}"  # 0 would mean no limit at all


def _mount(folder: Path, options: str) -> None:
    """Mount, or mount again with other limits."""
    subprocess.run([*MOUNT, options, "tmpfs", str(folder)], check=True)


def _live(scene: Scene, state: Path) -> bytes:
    """Live in a process of its own and return what it told."""
    told = os.memfd_create("told")
    child = os.fork()
    if child == 0:
        live(scene, state, told)
        os._exit(0)
    os.waitpid(child, 0)
    raw = os.pread(told, os.fstat(told).st_size, 0)
    os.close(told)
    return raw
