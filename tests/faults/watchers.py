"""What may happen at a call: a copy of the state, an error, a signal, a long wait."""

import errno
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.syscalls import Call
from tests.faults.tracer import WHERE, Watcher

# What fails once a file system is out of order for writing; reading goes on.
FRAME = re.compile(rb'File "([^"]+)", line (\d+) in (\w+)')


@dataclass(slots=True)
class Copies(Watcher):
    """Keeps a copy of the folder as it is after each call: what kill -9 would leave.

    Attributes:
        folder: Watched; copies go to numbered folders below ``into``.
        kept: The calls, in the order of their copies.
    """

    folder: Path
    into: Path
    kept: list[Call] = field(default_factory=list)

    def left(self, call: Call) -> int:
        """Copy; the process stands still meanwhile."""
        self.kept.append(call)
        shutil.copytree(self.folder, self.into / str(call.number))
        return 0


@dataclass(slots=True)
class Fails(Watcher):
    """Answers one call with an error, or every call from there on.

    Attributes:
        number: Which call.
        error: The errno.
        sticky: Also those that follow, as a full disk and a broken one do.
        spare: Calls that go through although it is sticky: removing makes room, and
            needs none.
    """

    number: int
    error: int
    sticky: bool = False
    spare: frozenset[str] = frozenset()

    def entering(self, call: Call) -> int:
        """Fail where it is time to."""
        if call.number == self.number:
            return self.error
        later = self.sticky and call.number > self.number
        return self.error if later and call.name not in self.spare else 0


@dataclass(slots=True)
class Signals(Watcher):
    """Sends a signal after one call."""

    number: int
    signal: int = signal.SIGKILL

    def left(self, call: Call) -> int:
        """Send it where it is time to."""
        return self.signal if call.number == self.number else 0


@dataclass(slots=True)
class Waits(Watcher):
    """Makes every call of some names take longer, as a slow card does."""

    names: frozenset[str]
    seconds: float
    waited: int = 0

    def left(self, call: Call) -> int:
        """Take the time."""
        if call.name in self.names:
            self.waited += 1
            time.sleep(self.seconds)
        return 0


@dataclass(slots=True)
class Looks(Watcher):
    """Calls something after each call, while the process stands still."""

    look: Callable[[Call], None]

    def left(self, call: Call) -> int:
        """Look."""
        self.look(call)
        return 0


class Asks(Watcher):
    """Asks the thread where in our code it is, after each call."""

    def left(self, call: Call) -> int:
        """Let ``faulthandler`` write down the stack, by a signal that it waits for."""
        del call
        return WHERE


def parse_stacks(raw: bytes) -> list[tuple[str, ...]]:
    """Return the stacks that ``faulthandler`` wrote: our own lines, innermost first."""
    stacks = []
    for text in raw.split(b"Stack (most recent call first):")[1:]:
        frames = (match.groups() for match in FRAME.finditer(text))
        ours = [
            f"{path.partition(b'/agent/')[2].decode()}:{int(line)} {name.decode()}"
            for path, line, name in frames
            if b"/agent/" in path
        ]
        stacks.append(tuple(ours))
    return stacks


ERRORS = {
    "ENOSPC": errno.ENOSPC,
    "EIO": errno.EIO,
    "EDQUOT": errno.EDQUOT,
    "EROFS": errno.EROFS,
    "EMFILE": errno.EMFILE,
}
