"""An event loop whose time jumps when nothing is left to do.

The rules this module keeps:
 * Time stands still while anything real goes on: a thread of an update, or a socket
   that has something to say. It jumps to the next timer when nothing does, so that a
   pause of five minutes costs nothing and no request is ever shortened.
 * What takes real time (TLS, hashing, a server that thinks) takes no simulated time:
   rates are those of pauses, and no latency can be read off this clock.
"""

import asyncio
import selectors
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# ``agent.update.threads`` calls its threads so: an update goes on in them.
_AT_WORK = "update"
# A thread that has told its result lives a moment longer; nobody wakes us when it ends.
_LOOK_S = 0.001

# Floats of many simulated days end after a few nanoseconds: who added no more than the
# timeout could stand before its timer for ever.
_STEP_S = 1e-6


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for what is real, and passes pauses over.

    Attributes:
        now_s: Simulated seconds since the loop was made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; without anything, let ``timeout`` have passed."""
        ready = super().select(0)
        while not ready and (timeout is None or timeout > 0):
            if not _is_at_work() and timeout is not None:
                self.now_s += timeout + _STEP_S
                break
            time.sleep(0)  # most threads are about to end: they need the interpreter
            ready = super().select(0 if not _is_at_work() else _LOOK_S)
        return ready


class FleetLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, on simulated time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the simulated seconds since the loop was made."""
        return self._jumping.now_s


def run_simulated(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as ``asyncio.run`` does, on simulated time."""
    with asyncio.Runner(loop_factory=FleetLoop) as runner:
        return runner.run(main)


class Clock:
    """Unix seconds of the simulation: it begins now, and goes as its loop does."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.began = time.time()  # noqa: TID251 - a benchmark is its own composition root
        self.real_s = time.monotonic()

    def __call__(self) -> float:
        """Return the Unix seconds of the simulation."""
        return self.began + self._loop.time()

    def at_s(self) -> float:
        """Return the simulated seconds since the beginning."""
        return self._loop.time()


def _is_at_work() -> bool:
    """Whether a thread of an update runs."""
    return any(thread.name == _AT_WORK for thread in threading.enumerate())
