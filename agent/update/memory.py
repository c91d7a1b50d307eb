"""What was refused, so that it is neither asked for nor reported twice.

The rules this module keeps:
 * A refusal stands until its key changes: the file that ordered it, its generation,
   or what was signed for the bundle.
 * What may mend itself without such a change (a file that is copied again, a disk that
   gets room, a board that is less busy) is tried again after 1, 3, 7... rounds, at
   most 63; what only a network interrupted after at most 3, for what came of it
   stays, and each try brings it further.
 * It lives as long as the daemon: a restart, with other settings perhaps, asks again.
"""

from collections.abc import Collection, Hashable
from dataclasses import dataclass

from agent.core.desired import Order, Refusal
from agent.core.quarantine import PASSING
from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, DeviceError, TrialFailedError
from agent.update.endings import NETWORK

# The sender mends these by copying the same, rightly signed bytes once more.
MENDABLE = frozenset(
    {
        Reason.DIGEST,
        Reason.LENGTH,
        Reason.TRUNCATED,
        Reason.MISSING_TARGET,
        # An envelope is unsigned: another one may be there without anything signed.
        Reason.ENVELOPE,
        Reason.UNSEAL,
        Reason.WATERMARK,
        *NETWORK,
    }
)
MAX_DOUBLINGS = 6
MAX_DOUBLINGS_AWAY = 2  # of a network: boards at its edge got a bundle after 5 hours


@dataclass(slots=True)
class _Refusal:
    """One subject's last refusal; ``rounds`` to sit out, None for all of them."""

    key: Hashable
    reason: str
    detail: str
    order: Order | None
    sha256: str
    failures: int = 0
    rounds: int | None = 0
    attempts: int = 0


class RefusalMemory:
    """The last refusal of each subject: a pipeline, or a repository."""

    def __init__(self) -> None:
        self._refusals: dict[str, _Refusal] = {}

    def may_try(self, subject: str, key: Hashable) -> bool:
        """Return whether to try now; asking counts as one round."""
        refusal = self._refusals.get(subject)
        if refusal is None or refusal.key != key:
            return True
        if refusal.rounds:
            refusal.rounds -= 1
            return False
        return refusal.rounds is not None

    def remember(
        self,
        subject: str,
        key: Hashable,
        error: AgentError,
        order: Order | None = None,
        sha256: str = "",
    ) -> bool:
        """Keep a refusal and return whether it is news, to be logged and counted."""
        known = self._refusals.get(subject)
        news = known is None or (known.key, known.reason) != (key, error.reason)
        failures = 0 if known is None or news else known.failures
        most = MAX_DOUBLINGS_AWAY if error.reason in NETWORK else MAX_DOUBLINGS
        failures = min(failures + 1, most)
        rounds = 2**failures - 1 if is_mendable(error) else None
        self._refusals[subject] = _Refusal(
            key, error.reason, str(error), order, sha256, failures, rounds
        )
        return news

    def failures(self, subject: str, key: Hashable) -> int:
        """Return how often in a row the same was refused for the same reason."""
        refusal = self._refusals.get(subject)
        return refusal.failures if refusal is not None and refusal.key == key else 0

    def refusals(self) -> dict[str, Refusal]:
        """Return what came of the last orders, by subject."""
        return {
            subject: Refusal(
                it.order, it.reason, it.detail, it.rounds is not None, it.attempts
            )
            for subject, it in self._refusals.items()
            if it.order is not None
        }

    def count_trials(self, subject: str, attempts: int) -> None:
        """Say how many trials there were of the bytes that were refused."""
        self._refusals[subject].attempts = attempts

    def give_up(self, subject: str) -> None:
        """Let a subject's refusal stand until its key changes."""
        self._refusals[subject].rounds = None

    def forgive(self, sha256: str) -> None:
        """Drop every refusal of these bytes: somebody wants to see them tried."""
        for subject, refusal in tuple(self._refusals.items()):
            if refusal.sha256 == sha256:
                del self._refusals[subject]

    def forget_revoked(self, sha256s: Collection[str]) -> None:
        """Drop the refusals of bytes that are revoked no longer."""
        for subject, refusal in tuple(self._refusals.items()):
            if refusal.reason == Reason.REVOKED and refusal.sha256 in sha256s:
                del self._refusals[subject]

    def forget(self, subject: str) -> bool:
        """Drop what was kept about a subject and return whether there was anything."""
        return self._refusals.pop(subject, None) is not None

    def hurry(self) -> None:
        """Let everything that may mend itself be tried in the next round."""
        for refusal in self._refusals.values():
            if refusal.rounds is not None:
                refusal.rounds = 0


def is_mendable(error: AgentError) -> bool:
    """Return whether the same may succeed later: copied again, or with room for it.

    >>> is_mendable(BundleRefusedError("cut", reason=Reason.LENGTH))
    True
    >>> is_mendable(BundleRefusedError("old", reason=Reason.VERSION_FLOOR))
    False
    >>> is_mendable(TrialFailedError("slow", reason=Reason.LATENCY))
    True
    """
    if error.reason == Reason.REQUESTED:
        return False  # somebody ended it, and knows why
    if isinstance(error, BundleRefusedError):
        return error.reason in MENDABLE
    if isinstance(error, TrialFailedError):
        return error.reason in PASSING
    return isinstance(error, DeviceError)
