"""A child's figures, read from where it cannot hide them.

Children let nobody look into them (``agent.worker.locks``, no_trace): where the daemon
sees only what it may trace (ProtectProc=invisible, its own unit), their folders below
/proc are gone for it. What was opened before stays readable.

Source: proc_pid_stat(5), proc_pid_statm(5), tgkill(2).
"""

import contextlib
import ctypes
import os
import resource
from pathlib import Path

_STAT_BYTES = 4096  # 52 numbers and a name of 16 characters: a tenth of it


class ProcessFigures:
    """What the kernel says of a process, for as long as it lives."""

    def __init__(self, pid: int) -> None:
        """Open them; of a process that is gone already nothing is known."""
        self._stat = _open(f"/proc/{pid}/stat")
        self._memory = _open(f"/proc/{pid}/statm")

    def is_stopped(self) -> bool:
        """Whether a signal or a debugger has stopped it (state T)."""
        return _read(self._stat).rpartition(")")[2].split()[:1] in (["T"], ["t"])

    def resident_bytes(self) -> int:
        """Return its resident memory, 0 if it is gone."""
        said = _read(self._memory).split()
        return int(said[1]) * resource.getpagesize() if len(said) > 1 else 0

    def close(self) -> None:
        """Let go of them; from now on nothing is known."""
        opened = self._stat, self._memory
        self._stat = self._memory = -1
        for descriptor in opened:
            if descriptor >= 0:
                os.close(descriptor)


def owns_thread(pid: int, thread: int) -> bool:
    """Return whether a thread is one of a process, whatever /proc shows of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "tgkill"):  # glibc before 2.30, musl
        return Path(f"/proc/{pid}/task/{thread}").exists()
    # Signal 0 only asks; it fails where the thread is none of this process.
    return thread > 0 and libc.tgkill(pid, thread, 0) == 0


def _open(path: str) -> int:
    """Return a descriptor, -1 where there is nothing to open."""
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return -1


def _read(descriptor: int) -> str:
    """Return what stands there now; nothing once the process is gone."""
    if descriptor < 0:
        return ""
    try:
        return os.pread(descriptor, _STAT_BYTES, 0).decode("utf-8", "replace")
    except OSError:  # ESRCH: it is buried
        return ""
