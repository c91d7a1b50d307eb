"""Disks that go wrong on purpose, at a step that the test chooses."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.store.atomic import Disk


@contextmanager
def fast_directory() -> Iterator[Path]:
    """Give a directory in memory where there is one: syncs cost nothing there.

    For tests that look at what a death leaves, not at what a power cut does.
    """
    memory = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
    where = memory if os.access(memory, os.W_OK) else None
    with TemporaryDirectory(dir=where) as name:
        yield Path(name)


class SteppedDisk(Disk):
    """A real disk that tells about each step.

    Attributes:
        steps: What was done, in order.
        before: Called before each step with its number, from 1; it may raise.
        after: Called after each step with its number.
    """

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.before: Callable[[int], None] = lambda _number: None
        self.after: Callable[[int], None] = lambda _number: None

    def create(self, path: Path, length: int) -> int:
        """Create a file."""
        self._begin(f"create {path.parent.name}")
        descriptor = super().create(path, length)
        self.after(len(self.steps))
        return descriptor

    def write(self, descriptor: int, content: memoryview) -> None:
        """Write."""
        self._begin("write")
        super().write(descriptor, content)
        self.after(len(self.steps))

    def seal(self, descriptor: int) -> None:
        """Make read-only."""
        self._begin("seal")
        super().seal(descriptor)
        self.after(len(self.steps))

    def sync(self, descriptor: int) -> None:
        """Sync a file."""
        self._begin("sync")
        super().sync(descriptor)
        self.after(len(self.steps))

    def rename(self, source: Path, target: Path) -> None:
        """Rename."""
        self._begin(f"rename {source.parent.name} {target.parent.name}")
        super().rename(source, target)
        self.after(len(self.steps))

    def sync_directory(self, path: Path) -> None:
        """Sync a directory."""
        self._begin(f"sync_directory {path.name}")
        super().sync_directory(path)
        self.after(len(self.steps))

    def remove(self, path: Path) -> None:
        """Remove."""
        self._begin(f"remove {path.parent.name}")
        super().remove(path)
        self.after(len(self.steps))

    def _begin(self, step: str) -> None:
        """Write a step down, then let the test interfere."""
        self.steps.append(step)
        self.before(len(self.steps))


def fail_at(number: int, error: int, *, ever_after: bool) -> Callable[[int], None]:
    """Return a ``before`` that raises this errno at one step, or from there on."""

    def raise_there(step: int) -> None:
        if step == number or (ever_after and step > number):
            raise OSError(error, os.strerror(error))

    return raise_there


def kill_at(number: int) -> Callable[[int], None]:
    """Return an ``after`` that kills this very process after one step."""

    def kill_there(step: int) -> None:
        if step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill_there
