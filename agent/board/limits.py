"""What the control groups (version 2) above this process allow it.

Every group on the way up to the root may set a limit; the tightest one holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 2**63 - 1  # what the kernel itself stands for with "max"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the control groups; ``UNLIMITED`` and infinity where there is none.

    Attributes:
        memory_bytes: Most memory of the group, its caches included.
        tasks: Most processes and threads.
        cpus: Share of processors, 1.5 for one and a half.
    """

    memory_bytes: int = UNLIMITED
    tasks: int = UNLIMITED
    cpus: float = float("inf")


def read_limits(root: Path = Path("/")) -> Limits:
    """Return the tightest limits on the way up."""
    memory, tasks, cpus = UNLIMITED, UNLIMITED, float("inf")
    for group in _groups(root):
        memory = min(memory, _limit(group / "memory.max"))
        tasks = min(tasks, _limit(group / "pids.max"))
        cpus = min(cpus, _share(group / "cpu.max"))
    return Limits(memory, tasks, cpus)


def memory_left(root: Path = Path("/")) -> int:
    """Return how many bytes the control groups still allow."""
    left = UNLIMITED
    for group in _groups(root):
        limit = _limit(group / "memory.max")
        if limit < UNLIMITED:
            used = _limit(group / "memory.current")
            left = min(left, max(0, limit - used))
    return left


def _groups(root: Path) -> Iterator[Path]:
    """Yield the directories of this process's group and of all groups above it."""
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("0::/"):
            parts = Path(line[4:]).parts
            for depth in range(len(parts), -1, -1):
                yield top.joinpath(*parts[:depth])


def _limit(path: Path) -> int:
    """Read ``max`` or a number; no file is no limit."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return UNLIMITED


def _share(path: Path) -> float:
    """Read ``quota period`` of cpu.max as a number of processors."""
    try:
        quota, period = path.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")
