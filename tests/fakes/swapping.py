"""A swap file of our own, and control groups whose pages go there or must not.

The rules this module keeps:
 * It is on for the moment of a test, and a group alone is short of memory, never the
   machine: nobody else's pages are asked for.
 * Both generations of control groups are spoken; a machine that lets us have neither is
   named, and the test is skipped.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SWAP_BYTES = 64 * 1024 * 1024
TREES = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))  # version 1, version 2
PATIENCE_S = 20.0


class Group:
    """A control group, which may swap or not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def _is_second(self) -> bool:
        """Whether it is of version 2."""
        return (self.path / "memory.swap.max").exists()

    @property
    def entering(self) -> str:
        """Words of a shell that enter it."""
        return f"echo $$ > {self.path}/cgroup.procs"

    def forbid_swap(self) -> None:
        """Do what ``MemorySwapMax=0`` of a unit does."""
        file = "memory.swap.max" if self._is_second else "memory.swappiness"
        (self.path / file).write_text("0")

    def squeeze(self) -> None:
        """Let the kernel take back what it can, down to an eighth of the memory."""
        for _ in range(3):
            used = self._used()
            with suppress(OSError):  # not so much could be had
                if self._is_second:
                    (self.path / "memory.reclaim").write_text(str(used // 2))
                else:
                    (self.path / "memory.limit_in_bytes").write_text(str(used // 2))
        if not self._is_second:
            (self.path / "memory.limit_in_bytes").write_text("-1")

    def _used(self) -> int:
        """Bytes of its memory now."""
        file = "memory.current" if self._is_second else "memory.usage_in_bytes"
        return int((self.path / file).read_text())

    def remove(self) -> None:
        """Remove it; its processes have ended, or are about to."""
        deadline = time.monotonic() + PATIENCE_S
        while self.path.exists() and time.monotonic() < deadline:
            with suppress(OSError):
                self.path.rmdir()
            time.sleep(0.02)


def look_anew(path: Path) -> Path:
    """Forget what of a file is cached: the kernel swaps past its cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


@contextmanager
def swap_file(path: Path) -> Iterator[str]:
    """Give "" while a swap file is on; else why there is none."""
    with path.open("wb") as file:
        file.write(bytes(SWAP_BYTES))
        os.fsync(file.fileno())
    path.chmod(0o600)
    why = ""
    for command in (("mkswap", path), ("swapon", path)):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        why = why or done.stderr.strip() * (done.returncode != 0)
    try:
        yield why
    finally:
        if not why:
            command = ("swapoff", path)
            subprocess.run(command, check=True)


@contextmanager
def control_group(name: str) -> Iterator[Group | None]:
    """Give a group of memory; None where none can be made."""
    made = None
    for tree in TREES:
        path = tree / f"tinyward-test-{os.getpid()}-{name}"
        with suppress(OSError):
            path.mkdir()
            if (path / "memory.stat").exists():
                made = Group(path)
                break
            path.rmdir()
    try:
        yield made
    finally:
        if made is not None:
            made.remove()
