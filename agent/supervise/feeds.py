"""Pipes between a worker and the world: prediction lines out, board readings in.

The rules this module keeps:
 * Disk and terminal writes happen in a thread of each pump, never in the event loop; a
   write that blocks for ever holds up neither the loop nor the end of the daemon.
 * A slow reader fills the pipe; then the worker drops and counts. Nobody waits.
 * Whole lines only: a file that takes half a line is cut back to the last whole one.
 * A sink's path is opened without waiting; a FIFO or a socket is refused.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import stat
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from agent.core.file_kinds import no_file
from agent.core.flow import FileSink
from agent.core.reasons import Reason
from agent.errors import DeviceError

log = logging.getLogger(__name__)
CHUNK_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024  # 10,000 lines: rides out a card that stalls for a second
MAX_LINE_BYTES = 1024 * 1024  # no prediction has so much: outputs stop at 4,096 values
MB = 1024 * 1024
# A FIFO without a reader is not waited for, nor is a terminal without a line.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Writer(Protocol):
    """Where whole lines go; called in a thread."""

    def write(self, lines: bytes) -> None:
        """Write lines; may block.

        Raises:
            OSError: They, or some of them, could not be written.
        """

    def close(self) -> None:
        """Let go of what was opened."""


class StdoutWriter:
    """Lines to the daemon's standard output, those of one pipeline at a time.

    Written without Python's own buffer: its lock would be held by a write that blocks
    for ever, and the interpreter could not end.
    """

    _turn = threading.Lock()

    def __init__(self) -> None:
        self._descriptor = sys.stdout.fileno()

    def write(self, lines: bytes) -> None:
        """Write lines; may block.

        Raises:
            OSError: Nobody reads them any more.
        """
        rest = memoryview(lines)
        with self._turn:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        """Standard output is not ours to close."""


class RotatingWriter:
    """Lines to a file that becomes ``path.1``, ``path.2``... when it is full.

    Raises:
        DeviceError: ``permission``: the file cannot be opened.
    """

    def __init__(self, sink: FileSink) -> None:
        self._path = Path(sink.path).expanduser()
        self._keep = sink.keep
        self._max_bytes = int(sink.max_mb * MB)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as err:
            raise _not_writable(sink, err) from err

    def write(self, lines: bytes) -> None:
        """Write lines; may block and rotate.

        Raises:
            OSError: They could not be written; the file ends with a whole line.
        """
        if self._file.closed:  # the last rotation failed
            self._open()
        if self._size and self._size + len(lines) > self._max_bytes:
            self._rotate()
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError:
            with contextlib.suppress(OSError):  # a device has no length
                self._file.truncate(self._size)
            raise
        self._size += len(lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        """Open the newest file to append to it."""
        self._file = os.fdopen(_open_to_append(self._path), "ab", buffering=0)
        self._size = self._file.tell()

    def _rotate(self) -> None:
        """Number the older files one higher, drop the last, begin a new one."""
        self._file.close()
        names = [self._path, *(self._numbered(n + 1) for n in range(self._keep))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        if not self._keep:
            self._path.unlink()
        self._open()

    def _numbered(self, number: int) -> Path:
        """Return the path of an older file."""
        return self._path.with_name(f"{self._path.name}.{number}")


def check_file(sink: FileSink) -> None:
    """Check that a sink's file can be written; nothing is left behind by it.

    Raises:
        DeviceError: ``permission``: it cannot be opened, or made.
    """
    path = Path(sink.path).expanduser()
    try:
        try:
            os.close(_open_to_append(path, create=False))
        except FileNotFoundError:
            _check_folder(Path(os.path.realpath(path)))
    except OSError as err:
        raise _not_writable(sink, err) from err


def _check_folder(path: Path) -> None:
    """Make a file without a name where that of ``path`` would be made."""
    import tempfile

    folder = next(it for it in path.parents if it.exists())
    tempfile.TemporaryFile(dir=folder).close()


def _open_to_append(path: Path, *, create: bool = True) -> int:
    """Open a file, or a device such as ``/dev/null``, and never wait for it.

    Raises:
        OSError: It cannot be opened, or is neither: ``strerror`` says what it is.
    """
    with contextlib.suppress(FileNotFoundError):
        _refuse_other(path.stat().st_mode)
    descriptor = os.open(path, _APPEND | (os.O_CREAT if create else 0), 0o666)
    try:
        _refuse_other(os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    os.set_blocking(descriptor, True)  # writing has a thread that may wait
    return descriptor


def _refuse_other(mode: int) -> None:
    """Nobody knows how long a FIFO without a reader would have to be waited for."""
    if (what := no_file(mode)) and not stat.S_ISCHR(mode):
        raise OSError(errno.EINVAL, what)


def _not_writable(sink: FileSink, err: OSError) -> DeviceError:
    """Return the error for a sink whose file cannot be opened."""
    return DeviceError(
        f"sink file {sink.path}: {err.strerror}",
        reason=Reason.PERMISSION,
        todo="Let the daemon's user write there, or name another path.",
    )


class Pump:
    """Moves lines from a pipe to a writer, until every write end is closed.

    Attributes:
        lost: Lines that could not be written.
    """

    def __init__(self, reader: int, writer: Writer, name: str) -> None:
        self.lost = 0
        self._reader = reader
        self._writer = writer
        self._name = name
        self._rest = b""
        self._cut = False
        self._failing = False
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def finish(self, timeout_s: float) -> bool:
        """Wait until all is written, a while at most; True if it is."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout_s)
        return self._ended.is_set()

    def _run(self) -> None:
        """Move lines, in a thread of its own."""
        try:
            while chunk := os.read(self._reader, CHUNK_BYTES):
                lines = self._whole_lines(chunk)
                if lines:
                    self._write(lines)
        finally:
            os.close(self._reader)
            self._writer.close()
            with contextlib.suppress(RuntimeError):  # the loop has ended before us
                self._loop.call_soon_threadsafe(self._ended.set)

    def _whole_lines(self, chunk: bytes) -> bytes:
        """Return the lines that are whole now; an endless one is cut away."""
        whole, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
        if newline and self._cut:
            _, _, whole = whole.partition(b"\n")
            self._cut = False
            newline = newline if whole else b""
        if len(self._rest) > MAX_LINE_BYTES:
            self.lost += not self._cut
            self._rest, self._cut = b"", True
        return whole + newline

    def _write(self, lines: bytes) -> None:
        """Write lines, or count them as lost; the first failure of a row is logged."""
        try:
            self._writer.write(lines)
        except OSError as err:
            self.lost += lines.count(b"\n")
            if not self._failing:
                log.warning(
                    "sink.failed", extra={"sink": self._name, "detail": str(err)}
                )
            self._failing = True
        else:
            self._failing = False


def open_pipe() -> tuple[int, int]:
    """Return (read end, write end) of a pipe that holds a megabyte where allowed.

    Raises:
        OSError: No descriptor is left.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except PermissionError:
        # Above /proc/sys/fs/pipe-max-size, or over the user's quota: 64 kB will do.
        log.debug("pipe.small")
    return reader, writer


async def feed_board(
    writer: int, rate: float, read: Callable[[], Sequence[float]]
) -> None:
    """Write the board's readings as float32 frames, ``rate`` times a second.

    The write end is closed when the task is cancelled.
    """
    os.set_blocking(writer, False)
    try:
        while True:
            values = read()
            frame = struct.pack(f"<{len(values)}f", *values)
            try:
                os.write(writer, frame)
            except BlockingIOError:
                log.debug("board.pipe_full")
            await asyncio.sleep(1 / rate)
    finally:
        os.close(writer)
