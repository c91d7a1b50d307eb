"""Files on their way to a board: in pieces, resumed where a connection broke.

The rules this module keeps:
 * What the board has is asked, never assumed: an upload goes on at the board's offset.
 * The last byte is always sent, also of what is there already: with it the board gives
   the file its place in the slice, and two paths may share their bytes.
 * Pieces take about a second each, so that little is lost and progress is seen.
 * ``TRIES`` failures in a row without a new byte end it, and nothing else does.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.cli.board_link import BoardLink
from agent.cli.slice_files import Slice
from agent.core.reasons import Reason
from agent.errors import AgentError, DeviceError

FIRST_PIECE_BYTES = 64 * 1024
MIN_PIECE_BYTES = 16 * 1024
MAX_PIECE_BYTES = 1024 * 1024  # what a board takes in one request
QUICK_S, SLOW_S = 0.5, 2.0
NOT_ASKED = -1
TRIES = 5
BACKOFF_S = 1.0  # doubled each time: 15 s in all, a router's restart takes longer
# What passes by itself; everything else is said at once.
PASSING = {Reason.UNREACHABLE, Reason.TOO_SLOW}


@dataclass(slots=True)
class Sent:
    """What went over, and what did not have to.

    Attributes:
        files: How many were given their place.
        sent_bytes: Bytes that were sent and kept.
        kept_bytes: Bytes that were there already.
        resumed: How often it went on after a connection broke.
    """

    files: int = 0
    sent_bytes: int = 0
    kept_bytes: int = 0
    resumed: int = 0

    @property
    def done_bytes(self) -> int:
        """What the board has."""
        return self.sent_bytes + self.kept_bytes


@dataclass(slots=True)
class Upload:
    """Sends files of a slice to one board.

    Attributes:
        tell: Is told the bytes that the board has, after each piece.
        pause: Waits some seconds; raises to break off.
        clock: Monotonic seconds.
    """

    link: BoardLink
    files: Slice
    tell: Callable[[int], None]
    pause: Callable[[float], None]
    clock: Callable[[], float] = time.monotonic
    sent: Sent = field(default_factory=Sent)
    _piece_bytes: int = FIRST_PIECE_BYTES
    _offset: int = NOT_ASKED  # of the file that is on its way

    def send(self, paths: Sequence[str]) -> Sent:
        """Send files in this order.

        Raises:
            AgentError: The board refused one, or was lost for too long.
        """
        for path in paths:
            self.pause(0.0)  # a chance to break off between small files
            self._offset = NOT_ASKED
            self._send_file(path)
            self.sent.files += 1
        return self.sent

    def _send_file(self, path: str) -> None:
        """Send one file, going on while that brings it further."""
        failures, best = 0, NOT_ASKED
        while True:
            try:
                self._send_rest(path)
            except AgentError as err:
                failures = failures + 1 if self._offset <= best else 1
                best = max(best, self._offset)
                if err.reason not in PASSING or failures >= TRIES:
                    raise
                self._piece_bytes = MIN_PIECE_BYTES
                self.pause(BACKOFF_S * 2 ** (failures - 1))
                self.sent.resumed += 1
            else:
                return

    def _send_rest(self, path: str) -> None:
        """Send what the board does not have of a file, and its last byte."""
        sha256, total = self.files.digest(path), self.files.sizes[path]
        self._take_note(self.link.offset(sha256))
        while True:
            before = self._offset
            first = max(0, min(before, total - 1))
            part = self.files.read(path, first, self._piece_bytes)
            began_s = self.clock()
            receipt = self.link.upload(sha256, path, part, first, total)
            self._adapt(self.clock() - began_s)
            self._take_note(receipt.offset)
            if receipt.complete:
                return
            if receipt.offset <= before:
                raise DeviceError(
                    f"{self.link.where}: it takes no more of {path}",
                    reason=Reason.REQUEST,
                    todo="Look into the log of the board's daemon.",
                )

    def _take_note(self, offset: int) -> None:
        """Count what the board has of the file now; at first nothing of it was sent."""
        if self._offset == NOT_ASKED:
            self.sent.kept_bytes += offset
        else:
            self.sent.sent_bytes += offset - self._offset
        self._offset = offset
        self.tell(self.sent.done_bytes)

    def _adapt(self, took_s: float) -> None:
        """Make the next piece larger or smaller."""
        if took_s < QUICK_S:
            self._piece_bytes = min(self._piece_bytes * 2, MAX_PIECE_BYTES)
        elif took_s > SLOW_S:
            self._piece_bytes = max(self._piece_bytes // 2, MIN_PIECE_BYTES)
