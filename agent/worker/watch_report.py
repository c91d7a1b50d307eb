"""The reporter: a thread that sends what the loop hands to it.

The rules this module keeps:
 * The loop never waits: handing over is one ``SimpleQueue.put``, which takes no lock
   that another thread could hold on to.
 * What says the same thing newer replaces what was not sent yet: counters are
   cumulative, so nothing is lost where the daemon reads slowly. A baseline is said
   once only, and always finds a place.
 * A record is one system call on a SOCK_SEQPACKET socket, so two threads that send
   need no lock between them.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from agent.core.messages import Anchored, Watched
from agent.core.reasons import Reason

log = logging.getLogger(__name__)
Report = Watched | Anchored
# Two minutes of a daemon that reads nothing: it is about to be ended for it, and what
# is not handed over then is said again by the next report.
MAX_WAITING = 128
# A worker that was told to stop has seconds; its last words take microseconds.
CLOSING_S = 1.0


class Reporter:
    """Hands reports from the loop's thread to the channel.

    Args:
        send: Sends one message, and may take its time.
    """

    def __init__(self, send: Callable[[Report], None]) -> None:
        self._send = send
        self._waiting: SimpleQueue[Report | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed = False

    def start(self) -> None:
        """Start the thread, if there is none; a worker that watches nothing has none.

        Raises:
            RuntimeError: No thread can be started.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="reporter", daemon=True)
            thread.start()
            self._thread = thread

    def say(self, report: Report) -> None:
        """Take a report; never waits."""
        if isinstance(report, Anchored) or self._waiting.qsize() < MAX_WAITING:
            self._waiting.put(report)

    def close(self) -> None:
        """Send what is left, as far as that is possible soon, and end."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(CLOSING_S)

    def _run(self) -> None:
        """Send reports until closed."""
        open_ = True
        while open_:
            newest: dict[tuple[type, int], Report] = {}
            report = self._waiting.get()
            while report is not None:
                newest[type(report), report.generation] = report
                if self._waiting.empty():
                    break
                report = self._waiting.get()
            open_ = report is not None
            for it in newest.values():
                self._try(it)

    def _try(self, report: Report) -> None:
        """Send one report; the first that cannot be sent is logged."""
        try:
            self._send(report)
        except Exception as err:  # noqa: BLE001 - the thread's boundary: it is logged
            if not self._failed:
                self._failed = True
                facts = {"reason": Reason.INTERNAL}
                log.warning("reports of the monitor are not sent: %s", err, extra=facts)
