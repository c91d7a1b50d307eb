"""A child process and the daemon's end of its control socket.

The rules this module keeps:
 * Started by exec, in isolated mode (``-I``), with nothing inherited but the
   descriptors it is given; its standard error becomes log lines of the daemon.
 * Whatever happens, ``close`` leaves no process and no descriptor behind.
 * Its end is the end of the process, not of the socket: a process that it started
   may hold that open.
 * It locks itself in, and is out of sight then, once the daemon has opened what it will
   want to know of it: its standard input, a pipe, ends.
 * It is not trusted: neither its messages nor its lines can keep the daemon busy.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from agent.core.child_lines import parse_line
from agent.core.messages import (
    MAX_MESSAGE_BYTES,
    FromChild,
    Message,
    parse_from_child,
    render_message,
)
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.supervise.allowance import Allowance
from agent.supervise.figures import ProcessFigures

log = logging.getLogger(__name__)
PROGRAM = (sys.executable, "-I", "-m", "agent.worker")
# A worker's own arithmetic is small; BLAS threads would only compete with the loop.
SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1"}
# Whom the kernel ends when memory is short (proc_pid_oom_score_adj(5)): what only tries
# goes first, then a worker, which is replaced within a second; never the daemon (0, or
# -200 by its unit). 300 weigh as much as 30 % of the memory: more than it ever takes.
OOM_SCORES = {"preflight": 500, "ask": 500, "shadow": 400, "run": 300}
MAX_LINE_BYTES = 16 * 1024  # a traceback line; longer ones are cut by the reader
# 20 lines a second, and enough at once for the tracebacks of a few threads.
LINES, LINES_S = 200, 10.0
# Said by LiteRT at every start, of no use to anyone who reads logs.
CHATTER = ("INFO: ", "WARNING: All log messages before absl::InitializeLog")


class Child:
    """One running child.

    Attributes:
        pid: Its process id.
        figures: What the kernel says of it.
        last_words: The last line it wrote to standard error.
    """

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        exited: asyncio.Future[int],
        errors: "ErrorLines",
        channel: socket.socket,
    ) -> None:
        self._transport = transport
        self._exited = exited
        self._errors = errors
        self._socket = channel
        self._sending = asyncio.Lock()  # a loop keeps one writer of a socket
        self.pid = transport.get_pid()
        self._pidfd = _open_pidfd(self.pid)
        self.figures = ProcessFigures(self.pid)

    @property
    def last_words(self) -> str:
        """The last line it wrote to standard error, or nothing."""
        return self._errors.last

    async def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one record, with descriptors; a child that is gone is no error here.

        Raises:
            DeviceError: It does not fit one record (``internal``), or the kernel has no
                room for it (``memory``).
        """
        record = render_message(message)
        async with self._sending:
            while not self._exited.done():
                try:
                    socket.send_fds(self._socket, [record], list(descriptors))
                except BlockingIOError:
                    loop = asyncio.get_running_loop()
                    await self._changed(loop.add_writer, loop.remove_writer)
                except (BrokenPipeError, ConnectionResetError):
                    return
                except OSError as err:
                    raise DeviceError(
                        f"a message cannot be sent: {err}", reason=Reason.MEMORY
                    ) from err
                else:
                    return

    async def receive(self) -> FromChild | None:
        """Wait for the next record; None when the child has ended and all is read.

        Raises:
            DeviceError: The record is no message (``crash``).
        """
        await asyncio.sleep(0)  # however many it sends, others have their turns
        loop = asyncio.get_running_loop()
        while True:
            try:
                record = self._socket.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                if self._exited.done():
                    return None
                await self._changed(loop.add_reader, loop.remove_reader)
            except ConnectionResetError:
                # Said once, and before what is queued, by a child that ended without
                # having read everything: its last words are behind it.
                continue
            else:
                return parse_from_child(record) if record else None

    async def _changed(
        self,
        watch: Callable[[socket.socket, Callable[[], None]], None],
        forget: Callable[[socket.socket], object],
    ) -> None:
        """Wait until the socket is ready, or the process is gone."""
        changed = asyncio.Event()

        def gone(_: object) -> None:
            changed.set()

        watch(self._socket, changed.set)
        self._exited.add_done_callback(gone)
        try:
            await changed.wait()
        finally:
            forget(self._socket)
            self._exited.remove_done_callback(gone)

    def kill(self) -> None:
        """End the process at once, if it still runs.

        Not through the transport: it would reap a process that has just died, and how
        that ended would be lost.
        """
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait until the process is gone; return its exit code (-N: signal N)."""
        return await asyncio.shield(self._exited)

    async def close(self) -> int:
        """Make sure that the process is gone; return its exit code (-N: signal N)."""
        self.kill()
        code = await self.wait()
        self._transport.close()
        self._socket.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self.figures.close()
        return code


class ErrorLines(asyncio.SubprocessProtocol):
    """Turns a child's standard error into log lines, and sees it exit.

    Args:
        name: Whose lines they are, and ``key`` as what: the name of the field.
        exited: Told the exit code.
        key: See above.

    Attributes:
        last: The text of the last line, cut at 300 characters.
    """

    def __init__(
        self, name: str, exited: asyncio.Future[int], key: str = "child"
    ) -> None:
        self._whose = {key: name}
        self._exited = exited
        self._rest = b""
        self._transport: asyncio.SubprocessTransport | None = None
        self._allowed = Allowance(LINES, LINES_S)
        self._suppressed = 0
        self.last = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the process, to ask it for its exit code."""
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101 - typing
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002
        """Log every whole line; a line without end is cut."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._say(line)

    def process_exited(self) -> None:
        """Say the last words, and let everyone who waits know."""
        self._say_suppressed()
        self._log(self._rest)
        code = self._transport.get_returncode() if self._transport else None
        if not self._exited.done():
            self._exited.set_result(-signal.SIGKILL if code is None else code)

    def _say(self, line: bytes) -> None:
        """Log one line, unless there were too many lately: those are counted."""
        if self._allowed.take():
            self._say_suppressed()
            self._log(line)
        else:
            self._suppressed += 1

    def _say_suppressed(self) -> None:
        """Log how many lines were not logged, once they have an end."""
        if self._suppressed:
            facts = {**self._whose, "lines": self._suppressed}
            log.warning("child.suppressed", extra=facts)
            self._suppressed = 0

    def _log(self, line: bytes) -> None:
        """Log one line as gravely as it was meant, printable characters only."""
        text = "".join(filter(str.isprintable, line.decode("utf-8", "replace"))).strip()
        if not text or text.startswith(CHATTER):
            return
        said = parse_line(text)
        self.last = said.text[:300]
        reason = {"reason": said.reason} if said.reason else {}
        facts = {**self._whose, **reason, "text": self.last}
        log.log(said.level, "child.said", extra=facts)


async def spawn_child(
    mode: Literal["run", "preflight", "shadow", "ask"],
    *,
    name: str,
    readable: Sequence[Path] = (),
    block: int | None = None,
    unlocked: bool = False,
    program: Sequence[str] = PROGRAM,
) -> Child:
    """Start a child of ``agent.worker``.

    Args:
        mode: What it shall be.
        name: What log lines call it.
        readable: Paths it may read beside Python's own.
        block: Descriptor of the statistics block (``run`` only).
        unlocked: Without its locks; only a benchmark asks for that.
        program: What is started; only tests start anything else.

    Raises:
        OSError: No process or descriptor is left.
    """
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[int] = loop.create_future()
    with _gate() as gate:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        passed = [theirs.fileno(), *([block] if block is not None else [])]
        control, *rest = (str(descriptor) for descriptor in passed)
        flags = ["--unlocked"] if unlocked else []
        arguments = [mode, control, str(os.getpid()), *rest, *flags]
        key = "pipeline" if mode == "run" else "child"
        try:
            transport, errors = await loop.subprocess_exec(
                lambda: ErrorLines(name, exited, key),
                *(*program, *arguments),
                *map(str, readable),
                stdin=gate,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=passed,
                env=os.environ | SINGLE_THREADED,
            )
        except BaseException:  # cancelled, too
            ours.close()
            raise
        finally:
            theirs.close()
        _offer(transport.get_pid(), OOM_SCORES[mode])
        return Child(transport, exited, errors, ours)  # and the gate opens


@contextlib.contextmanager
def _gate() -> Iterator[int]:
    """Give a descriptor that ends at the end of the block, and not before."""
    gate, opens = os.pipe()
    try:
        yield gate
    finally:
        os.close(opens)
        os.close(gate)


def _offer(pid: int, score: int) -> None:
    """Offer a child to the kernel, before it has taken any memory."""
    with contextlib.suppress(OSError):  # it has died, or the score is above already
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(score), encoding="ascii")


def _open_pidfd(pid: int) -> int:
    """Return a descriptor of a child, -1 if it is gone already (pidfd_open(2))."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
