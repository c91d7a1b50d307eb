"""How much memory this process has: read from the kernel, for the preflight."""

from dataclasses import dataclass
from pathlib import Path

_KB = 1024  # /proc says kB and means KiB


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in bytes: now, and the highest since the process began.

    ``getrusage`` would not do: its peak survives exec, so it begins with the parent's.
    """

    resident_bytes: int
    peak_bytes: int


def read_memory() -> Memory:
    """Return the memory of this process, see proc_pid_status(5)."""
    fields = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if line.startswith(("VmRSS", "VmHWM"))
    )
    resident, peak = (int(fields[key].split()[0]) * _KB for key in ("VmRSS", "VmHWM"))
    return Memory(resident, peak)


def judge_growth(before: Memory, after: Memory) -> int:
    """Return by how many bytes memory grew in between, passing peaks included.

    >>> judge_growth(Memory(100, 120), Memory(110, 120))
    10
    >>> judge_growth(Memory(100, 120), Memory(110, 150))
    50
    """
    reached = after.resident_bytes
    if after.peak_bytes > before.peak_bytes:
        reached = max(reached, after.peak_bytes)
    return max(0, reached - before.resident_bytes)
