"""Programs of ``command`` sources and sinks: started, watched, started again.

The rules this module keeps:
 * Started by the daemon (the worker may not exec), in a process group of their own,
   never by a shell; they die with the daemon.
 * A program that ends is started again, with backoff; its last words are logged.
 * A machine without a process or descriptor left costs a start, never the daemon.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from agent.core.reasons import Reason
from agent.supervise.child import ErrorLines

log = logging.getLogger(__name__)
LAUNCH = Path(__file__).with_name("launch.py")
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
REAP_S = 1.0  # a process that was killed is gone by then, but for a stuck disk
HEALTHY_S = 10.0  # a program that ran so long starts the backoff anew


class Program:
    """Keeps one program running.

    Args:
        name: What log lines call it.
        command: Program and arguments.
        connect: Called before each start; returns the descriptors that become its
            standard input and output (-1: /dev/null), owned by the callee.
        started: Called after each start.

    Attributes:
        reason: Why it does not run; empty while it does.
        pid: Its process id, 0 while there is none.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        connect: Callable[[], tuple[int, int]],
        started: Callable[[], Awaitable[None]],
    ) -> None:
        self._name = name
        self._command = tuple(command)
        self._connect = connect
        self._started = started
        self._transport: asyncio.SubprocessTransport | None = None
        self._asked = Reason.NONE
        self._last_life = asyncio.Event()
        self.reason = Reason.STARTING
        self.last_words = ""
        self.pid = 0

    async def run(self) -> None:
        """Start the program again whenever it ends, until ``let_end`` or cancelled."""
        pause_s = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while not self._last_life.is_set():
            began = loop.time()
            try:
                await self._start()
            except OSError as err:
                self._note(Reason.SOURCE_FAILED, f"no start: {err}")
            if loop.time() - began > HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._last_life.wait(), pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def restart(self, reason: Reason) -> None:
        """End the program for a reason of ours; ``run`` starts it again."""
        if not self.pid:
            return  # it has ended by itself, and its own reason says why
        self.reason = self._asked = reason
        self._kill()

    def let_end(self) -> None:
        """Start it no more; what it does now it may finish."""
        self._last_life.set()

    async def _start(self) -> None:
        """Start the program, if there is one, and wait until it ends.

        Raises:
            OSError: No process or descriptor is left.
        """
        if shutil.which(self._command[0]) is None:
            self._note(Reason.SOURCE_MISSING, f"{self._command[0]} is not installed")
        else:
            await self._one_life()

    async def _one_life(self) -> None:
        """Live with the program until it ends.

        Raises:
            OSError: No process or descriptor is left.
        """
        loop = asyncio.get_running_loop()
        exited: asyncio.Future[int] = loop.create_future()
        stdin, stdout = self._connect()
        null = asyncio.subprocess.DEVNULL
        try:
            transport, errors = await loop.subprocess_exec(
                lambda: ErrorLines(self._name, exited),
                *(sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid())),
                *self._command,
                stdin=null if stdin < 0 else stdin,
                stdout=null if stdout < 0 else stdout,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        finally:
            for descriptor in (stdin, stdout):
                if descriptor >= 0:
                    os.close(descriptor)
        self._transport, self.pid = transport, transport.get_pid()
        try:
            await self._started()
            code = await asyncio.shield(exited)
        finally:
            self._kill()
            await asyncio.wait({exited}, timeout=REAP_S)  # also when cancelled
            transport.close()
            self._transport, self.pid = None, 0
        asked, self._asked = self._asked, Reason.NONE
        self._note(asked or Reason.SOURCE_FAILED, f"exit code {code}; {errors.last}")

    def running(self) -> None:
        """Say that it does its work: whole frames have come."""
        self.reason = Reason.NONE

    def _kill(self) -> None:
        """End the whole process group."""
        if self._transport is not None and self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _note(self, reason: Reason, detail: str) -> None:
        """Log why it does not run, once a start."""
        self.reason, self.last_words = reason, detail
        log.warning(
            "program.ended",
            extra={"program": self._name, "reason": reason, "detail": detail},
        )
