"""How much memory this process has: read from the kernel, for the preflight."""

from dataclasses import dataclass
from pathlib import Path

_KB = 1024  # /proc says kB and means KiB


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in bytes.

    Attributes:
        own_bytes: What nobody shares: private memory, and memfds that are mapped. The
            runtime's code, read from its file, is not counted: it serves all models.
        resident_bytes: Everything, now; ``peak_bytes`` at most, since the process
            began. (``getrusage`` would not do: its peak survives exec.)
    """

    own_bytes: int
    resident_bytes: int
    peak_bytes: int


def read_memory() -> Memory:
    """Return the memory of this process, see proc_pid_status(5)."""
    fields = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if line.startswith(("Rss", "VmRSS", "VmHWM"))
    )
    private, mapped, resident, peak = (
        int(fields[key].split()[0]) * _KB
        for key in ("RssAnon", "RssShmem", "VmRSS", "VmHWM")
    )
    return Memory(private + mapped, resident, peak)


def judge_growth(before: Memory, after: Memory) -> int:
    """Return by how many bytes memory grew in between, a passing peak included.

    >>> judge_growth(Memory(50, 100, 120), Memory(60, 130, 120))
    10
    >>> judge_growth(Memory(50, 100, 120), Memory(60, 130, 150))
    30
    """
    passing = 0
    if after.peak_bytes > before.peak_bytes:
        passing = max(0, after.peak_bytes - after.resident_bytes)
    return max(0, after.own_bytes - before.own_bytes + passing)
