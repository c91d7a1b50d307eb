"""Sources that are a pipe: the frames of a program, or the board's own readings.

One reader thread owns the descriptor. It waits in ``poll`` for bytes or for a word from
``replace`` and ``close``, and hands whole frames to the loop through a ``Mailbox``;
frames become samples on the loop's own thread, and only those that are taken.

The rules this module keeps:
 * Live sources keep the newest frame and count the others as ``dropped``; otherwise
   the pipe fills up and the program waits.
 * Half a frame at the end of a stream counts as ``partial``.
 * A stream without frames costs bounded memory and yields nothing, quietly: who
   supervises the source notices its silence.
"""

import contextlib
import fcntl
import os
import select
import threading
import time

from agent.core.flow import BoardSource, CommandSource
from agent.worker.samples import Sample
from agent.worker.sources.frames import (
    Decoder,
    Framing,
    build_decoder,
    build_framing,
)
from agent.worker.sources.mailbox import Mailbox

# The most an unprivileged process may ask for: a picture then comes in a few reads.
PIPE_BYTES = 1024 * 1024
JOIN_S = 2.0  # the reader is woken at once; only a stuck kernel takes longer


class PipeSource:
    """Samples from a pipe; see ``Source`` for its attributes."""

    def __init__(
        self, descriptor: int, framing: Framing, decode: Decoder, *, live: bool
    ) -> None:
        self.ready_ns = 0
        self.dropped = 0
        self.partial = 0
        self.ended = False
        self._decode = decode
        self._framing = framing
        self._mailbox = Mailbox(live=live)
        self._waking, self._wake = os.pipe()
        self._lock = threading.Lock()  # of the two below, which three threads share
        self._next: list[int] = [descriptor]
        self._newest = _identity(descriptor)
        self._closing = False
        self._reader = threading.Thread(target=self._run, name="source", daemon=True)
        self._reader.start()

    def take(self, timeout_s: float) -> Sample | None:
        """Return the newest frame (live) or the next one as a sample.

        Raises:
            InputError: The frame is whole but its content is damaged (``mjpeg``).
        """
        taken = self._mailbox.take(timeout_s)
        self.dropped, self.partial = self._mailbox.dropped, self._framing.partial
        if taken is None:
            self.ended = self._mailbox.ended
            return None
        frame, self.ready_ns = taken
        return self._decode(frame)

    def replace(self, descriptor: int) -> None:
        """Go on with the pipe of a program that was started again.

        The pipe that is read already is no new one: it goes on within its frame.
        """
        identity = _identity(descriptor)
        if identity == self._newest:
            os.close(descriptor)
            return
        self._newest = identity
        with self._lock:
            self._next.append(descriptor)
            self._mailbox.finish(finished=False)
            self.ended = False
        os.write(self._wake, b"r")

    def close(self) -> None:
        """End the reader thread and close every descriptor."""
        with self._lock:
            self._closing = True
        self._mailbox.close()
        os.write(self._wake, b"c")
        self._reader.join(JOIN_S)
        for descriptor in (*self._next, self._wake, self._waking):
            os.close(descriptor)
        self._next.clear()

    def _run(self) -> None:
        """The reader thread: one stream after the other, until closed."""
        while not self._closing:
            with self._lock:
                descriptor = self._next.pop(0) if self._next else None
                if descriptor is None:
                    self._mailbox.finish()
            if descriptor is None:
                os.read(self._waking, 1)
                continue
            try:
                self._drain(descriptor)
            finally:
                self._framing.abandon()
                os.close(descriptor)

    def _drain(self, descriptor: int) -> None:
        """Read one stream to its end, or until another one takes its place."""
        with contextlib.suppress(OSError):  # no pipe, or above the user's quota
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        waiting.register(self._waking, select.POLLIN)
        leaving = False
        while not self._closing:
            ready = {number for number, _ in waiting.poll(0 if leaving else None)}
            if descriptor in ready:
                if not self._read(descriptor):
                    return
            elif leaving:
                return  # a look after the word came: nothing is left in the old pipe
            else:
                os.read(self._waking, 1)  # may be the word of a pipe already taken
                leaving = bool(self._next)

    def _read(self, descriptor: int) -> bool:
        """Read once and hand over what is whole; False at the end of the stream."""
        try:
            count = os.readv(descriptor, [self._framing.space()])
        except OSError:
            return False  # a device that was unplugged ends like a program that died
        for frame in self._framing.filled(count):
            self._framing.reuse(self._mailbox.put(frame, time.perf_counter_ns()))
        return count > 0


def _identity(descriptor: int) -> tuple[int, int]:
    """Return what tells one pipe from another (fstat(2))."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def open_pipe(settings: CommandSource | BoardSource, descriptor: int) -> PipeSource:
    """Return the source of a ``command`` or ``board`` table; it owns the descriptor.

    Raises:
        DeviceError: The format needs Pillow, which is not installed (``input``).
    """
    live = isinstance(settings, BoardSource) or settings.live
    framing, decode = build_framing(settings), build_decoder(settings)
    return PipeSource(descriptor, framing, decode, live=live)
