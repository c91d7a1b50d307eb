"""Pipes between a worker and the world: prediction lines out, board readings in.

The rules this module keeps:
 * Disk and terminal writes happen in a thread, never in the event loop.
 * A slow reader fills the pipe; then the worker drops and counts. Nobody waits.
"""

import asyncio
import fcntl
import logging
import logging.handlers
import os
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from agent.core.flow import FileSink
from agent.core.reasons import Reason
from agent.errors import DeviceError

log = logging.getLogger(__name__)
CHUNK_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024  # 10,000 lines: rides out a card that stalls for a second
MB = 1024 * 1024


class Writer(Protocol):
    """Where whole lines go; called in a thread."""

    def write(self, lines: bytes) -> None:
        """Write lines; may block."""


class StdoutWriter:
    """Lines to the daemon's standard output."""

    def write(self, lines: bytes) -> None:
        """Write lines; may block."""
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()


class RotatingWriter:
    """Lines to a file that the standard library's handler rotates."""

    def __init__(self, sink: FileSink) -> None:
        try:
            Path(sink.path).parent.mkdir(parents=True, exist_ok=True)
            self._file = logging.handlers.RotatingFileHandler(
                sink.path, maxBytes=int(sink.max_mb * MB), backupCount=sink.keep
            )
        except OSError as err:
            raise DeviceError(
                f"sink file {sink.path}: {err.strerror}", reason=Reason.PERMISSION
            ) from err
        self._file.terminator = ""

    def write(self, lines: bytes) -> None:
        """Write lines; may block and rotate."""
        text = lines.decode("utf-8", "replace")
        record = logging.LogRecord("", logging.INFO, "", 0, text, None, None)
        self._file.emit(record)


def open_pipe() -> tuple[int, int]:
    """Return (read end, write end) of a pipe that holds a megabyte where allowed."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except PermissionError:
        # Above /proc/sys/fs/pipe-max-size, or over the user's quota: 64 kB will do.
        log.debug("pipe.small")
    return reader, writer


async def pump_lines(reader: int, writer: Writer, name: str) -> None:
    """Move lines from a pipe to a writer until every write end is closed."""
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream),
        os.fdopen(reader, "rb", buffering=0),
    )
    rest = b""
    failing = False
    try:
        while chunk := await stream.read(CHUNK_BYTES):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if not newline:
                continue
            try:
                await asyncio.to_thread(writer.write, whole + newline)
                failing = False
            except OSError as err:
                if not failing:
                    log.warning("sink.failed", extra={"sink": name, "detail": str(err)})
                failing = True
    finally:
        transport.close()


async def feed_board(
    writer: int, rate: float, read: Callable[[], Sequence[float]]
) -> None:
    """Write the board's readings as float32 frames, ``rate`` times a second."""
    os.set_blocking(writer, False)
    while True:
        values = read()
        frame = struct.pack(f"<{len(values)}f", *values)
        try:
            os.write(writer, frame)
        except BlockingIOError:
            log.debug("board.pipe_full")
        await asyncio.sleep(1 / rate)
