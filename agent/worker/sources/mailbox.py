"""One place between a reader thread and the loop: the newest frame, or the next one.

The rules this module keeps:
 * It holds at most one frame. Live, a new one replaces it and ``dropped`` counts;
   otherwise ``put`` waits until it was taken, and so does the program behind the pipe.
 * A frame comes back to the reader (as the result of ``put``) only when the loop has
   taken another one: what the loop looks at is never written.
"""

import threading

from agent.worker.sources.frames import Frame


class Mailbox:
    """Hands frames from one thread to another.

    Attributes:
        dropped: Frames that were replaced before they were taken.
    """

    def __init__(self, *, live: bool) -> None:
        self.dropped = 0
        self._live = live
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._stamp_ns = 0
        self._taken: Frame | None = None
        self._free: list[Frame] = []
        self._finished = False
        self._closed = False

    def put(self, frame: Frame, now_ns: int) -> Frame | None:
        """Leave a frame for the loop; return one that may be written again, if any."""
        with self._changed:
            if not self._live:
                self._changed.wait_for(lambda: self._frame is None or self._closed)
            if self._closed:
                return frame
            if self._frame is not None:
                self.dropped += 1
                self._free.append(self._frame)
            self._frame, self._stamp_ns = frame, now_ns
            self._changed.notify_all()
            return self._free.pop() if self._free else None

    def take(self, timeout_s: float) -> tuple[Frame, int] | None:
        """Return (frame, when it came); None after ``timeout_s``, or at the end."""
        with self._changed:
            if self._frame is None:
                self._changed.wait_for(self._worth_a_look, timeout_s)
            frame = self._frame
            if frame is None:
                return None
            if self._taken is not None:
                self._free.append(self._taken)
            self._taken, self._frame = frame, None
            if not self._live:
                self._changed.notify_all()
            return frame, self._stamp_ns

    @property
    def ended(self) -> bool:
        """Whether no frame is left and none will come."""
        with self._changed:
            return self._finished and self._frame is None

    def finish(self, *, finished: bool = True) -> None:
        """Say that no frame will come, or that frames come again."""
        with self._changed:
            self._finished = finished
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _worth_a_look(self) -> bool:
        """Whether waiting for a frame is over."""
        return self._frame is not None or self._finished or self._closed
