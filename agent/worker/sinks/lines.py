"""Predictions as JSON lines into a pipe, by writes that never wait.

Who reads the pipe (the daemon, for files and standard output, or a program) decides how
fast it empties; what does not fit is dropped and counted, never waited for.

The rules this module keeps:
 * One ``write`` is one system call at most.
 * A reader only ever sees whole lines. A line of up to ``PIPE_BUF`` (4 kB) goes into a
   pipe whole or not at all; of a longer one the rest is kept and goes out first.
 * A reader that has gone costs its lines, not the worker.
"""

import os
from typing import Protocol

import msgspec

from agent.core.flow import CountSink, SinkSettings
from agent.core.reasons import Reason
from agent.errors import DeviceError


class Sink(Protocol):
    """Where predictions go."""

    def write(self, record: dict[str, object]) -> bool:
        """Take one prediction; False if it was dropped."""

    def close(self) -> None:
        """Let go of the pipe."""


class CountingSink:
    """The ``count`` sink: the statistics block counts, nothing is written."""

    def write(self, record: dict[str, object]) -> bool:
        """Take a prediction and do nothing with it."""
        del record
        return True

    def close(self) -> None:
        """There is nothing to let go of."""


class LineSink:
    """Writes JSON lines into a pipe that it makes non-blocking.

    Attributes:
        dropped: Predictions that did not fit or had no reader.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.dropped = 0
        self._descriptor = descriptor
        self._encoder = msgspec.json.Encoder()
        self._line = bytearray()
        self._tail = b""  # of a line whose beginning is already in the pipe

    def write(self, record: dict[str, object]) -> bool:
        """Write one prediction as a line; False if it was dropped.

        A number that JSON does not have (NaN, infinity) is written as null.
        """
        line = self._line
        self._encoder.encode_into(record, line)
        line.append(0x0A)
        taken = self._send(line)
        if not taken:
            self.dropped += 1
        return taken

    def close(self) -> None:
        """Close the pipe; a kept rest is lost with it."""
        os.close(self._descriptor)

    def _send(self, line: bytearray) -> bool:
        """Send the kept rest and the line; keep what remains of a line begun."""
        tail = self._tail
        pending = tail + line if tail else line
        try:
            sent = os.write(self._descriptor, pending)
        except BlockingIOError:
            return False
        except OSError:
            self._tail = b""  # the reader has gone, and with it the line's beginning
            return False
        if sent <= len(tail):
            self._tail = tail[sent:]
            return False
        self._tail = bytes(pending[sent:])
        return True


def build_sink(settings: SinkSettings, descriptor: int | None) -> Sink:
    """Return the sink that a pipeline's settings describe; it owns the descriptor.

    Raises:
        DeviceError: A sink that writes came without a pipe (``internal``).
    """
    if isinstance(settings, CountSink):
        return CountingSink()
    if descriptor is None:
        raise DeviceError("a sink came without a pipe", reason=Reason.INTERNAL)
    return LineSink(descriptor)
