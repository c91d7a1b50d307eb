"""How often a slow model is excused by a slow board: not for ever.

The rules this module keeps:
 * Only excuses for slowness count, not what else a board lacks.
 * What was excused too often is too slow on this board as it is cooled and powered.
   Counts end with the daemon: after a restart a board has its chances again.
"""

from agent.core.quarantine import MAX_ATTEMPTS
from agent.core.reasons import Reason
from agent.errors import AgentError, DeviceError, TrialFailedError

KEPT = 64  # bundles that are excused at a time; more than a board has pipelines


class Patience:
    """Counts excuses by bundle."""

    def __init__(self) -> None:
        self._excused: dict[str, int] = {}

    def judge(self, sha256: str, error: DeviceError) -> AgentError:
        """Return an error that excuses a bundle, or the last word on it.

        >>> patience = Patience()
        >>> slow = DeviceError("p95 12 ms", reason=Reason.UNDER_VOLTAGE)
        >>> [str(patience.judge("a", slow).reason) for _ in range(3)]
        ['under_voltage', 'under_voltage', 'latency']
        """
        times = self._excused.pop(sha256, 0) + 1
        self._excused[sha256] = times
        if len(self._excused) > KEPT:
            del self._excused[next(iter(self._excused))]
        if times < MAX_ATTEMPTS:
            return error
        what = f"{error}; it was so in {times} trials, and is excused no longer"
        return TrialFailedError(what, reason=Reason.LATENCY)

    def forget(self, sha256: str) -> None:
        """Begin anew: it has passed."""
        self._excused.pop(sha256, None)
