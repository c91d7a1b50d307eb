"""Runs a child under ptrace and stops it around every call that may change a folder.

strace counts a call per thread, so that no number means "the seventh fsync of this
update"; here all threads share one count, and whoever watches may look, answer with an
error instead of the kernel, send a signal, or take its time.

The rules this module keeps:
 * Each call is told twice: before the kernel sees it, and after.
 * What was injected is recorded where it happened: a fault that did not fire shows.
"""

import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from tests.faults import ptrace
from tests.faults.syscalls import Call, may_change, named_path, shapes_by_number

STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
# Asks the one thread that made a call where it is; others concern the whole process.
WHERE = signal.SIGUSR1
CRASHED = 70  # exit code of a child that raised


class Watcher:
    """Told about each call; looks and does nothing."""

    def entering(self, call: Call) -> int:
        """Return an errno to answer with instead of performing the call, or 0."""
        del call
        return 0

    def left(self, call: Call) -> int:
        """Return a signal for the thread, or 0; all of its process is as it was."""
        del call
        return 0


@dataclass(slots=True)
class Trace:
    """What one traced life did.

    Attributes:
        calls: In their order.
        failed: Numbers of the calls that were answered with an error.
        signalled: Numbers of the calls after which a signal was sent.
        status: As ``os.waitpid`` gives it.
    """

    calls: list[Call] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    signalled: list[int] = field(default_factory=list)
    status: int = 0

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        killed = os.WIFSIGNALED(self.status)
        return killed and os.WTERMSIG(self.status) == signal.SIGKILL


def trace(child: Callable[[], None], folder: Path, watcher: Watcher) -> Trace:
    """Fork, do ``child`` there, and watch what it does to ``folder``.

    Raises:
        OSError: Tracing is forbidden here.
    """
    gate = os.pipe()
    process = os.fork()
    if process == 0:
        os.read(gate[0], 1)
        _live(child)
    try:
        ptrace.seize(process)
        os.write(gate[1], b".")
        return _Tracing(process, folder.resolve(), watcher).follow()
    except BaseException:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, ptrace.WALL)
        raise
    finally:
        os.close(gate[0])
        os.close(gate[1])


def may_trace() -> str:
    """Return why no process may be traced here, or an empty string."""
    try:
        shapes_by_number()
        trace(lambda: None, Path("/nowhere"), Watcher())
    except KeyError as err:
        return f"the numbers of the system calls of {err}"
    except OSError as err:
        return f"ptrace ({err.strerror})"
    return ""


def _live(child: Callable[[], None]) -> NoReturn:
    """Be the child, with nothing of what its parent does about signals."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        child()
    except BaseException:  # noqa: BLE001 - shown, and told by the exit code
        traceback.print_exc()
        os._exit(CRASHED)
    os._exit(0)


class _Tracing:
    """One tracee and its threads."""

    def __init__(self, process: int, folder: Path, watcher: Watcher) -> None:
        self._process = process
        self._folder = folder
        self._watcher = watcher
        self._shapes = shapes_by_number()
        self._trace = Trace()
        # thread -> the call it is in, and the errno that it will be answered with
        self._inside: dict[int, tuple[Call, int]] = {}

    def follow(self) -> Trace:
        """Go from stop to stop until the process has ended."""
        while True:
            thread, status = os.waitpid(-1, ptrace.WALL)
            if not os.WIFSTOPPED(status):
                if thread == self._process:
                    self._trace.status = status
                    return self._trace
                continue
            self._stopped(thread, os.WSTOPSIG(status), status >> 16)

    def _stopped(self, thread: int, number: int, event: int) -> None:
        """Look at one stop and let the thread go on."""
        if number == ptrace.AT_CALL:
            self._at_call(thread)
            ptrace.resume(thread)
        elif event == ptrace.EVENT_STOP and number in STOPPING:
            ptrace.listen(thread)
        elif event:  # a new thread, or our own interruption
            ptrace.resume(thread)
        else:
            ptrace.resume(thread, number)

    def _at_call(self, thread: int) -> None:
        """Look at the entry or exit of a call."""
        where, number, arguments = ptrace.call_info(thread)
        if where == ptrace.ENTRY:
            self._enter(thread, number, arguments)
        elif thread in self._inside:
            self._leave(thread)

    def _enter(self, thread: int, number: int, arguments: tuple[int, ...]) -> None:
        """Take note of a call that may change the folder."""
        shape = self._shapes.get(number)
        if shape is None or not may_change(shape, arguments):
            return
        path = named_path(thread, shape, arguments)
        if not path.is_relative_to(self._folder):
            return
        relative = str(path.relative_to(self._folder))
        call = Call(len(self._trace.calls) + 1, shape.name, relative, thread)
        self._trace.calls.append(call)
        error = self._watcher.entering(call)
        if error:
            ptrace.skip_call(thread)
        self._inside[thread] = (call, error)

    def _leave(self, thread: int) -> None:
        """Answer in the kernel's place, or let others look at what it did."""
        call, error = self._inside.pop(thread)
        if error:
            ptrace.answer(thread, error)
            self._trace.failed.append(call.number)
        number = self._watcher.left(call)
        if number:
            self._trace.signalled.append(call.number)
            if number == WHERE:
                ptrace.send_to_thread(self._process, thread, number)
            else:
                os.kill(self._process, number)
