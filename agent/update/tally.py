"""How updates ended: the counters behind ``tinyward_updates_total`` and its sisters."""

from collections import Counter
from dataclasses import dataclass, field

from agent.core.reasons import Reason
from agent.core.snapshot import UpdateSnapshot
from agent.errors import AgentError, BundleRefusedError


@dataclass(slots=True)
class Tally:
    """Counts since the daemon started; they only rise.

    Attributes:
        results: (result, reason) -> updates that ended so; a refusal that repeats
            itself counts once, until something changes.
        verify_failures: reason -> verifications that failed, each time.
        fetched_bytes: Bytes that came in by way of whole bundles.
        last_refusal: (reason, message) of the last refusal, or None.
    """

    results: Counter[tuple[str, str]] = field(default_factory=Counter)
    verify_failures: Counter[str] = field(default_factory=Counter)
    fetched_bytes: int = 0
    last_refusal: tuple[str, str] | None = None

    def count_verification(self, error: AgentError | None) -> None:
        """Count what did not verify; a repository out of reach verified nothing."""
        refused = isinstance(error, BundleRefusedError)
        if error is not None and refused and error.reason != Reason.UNREACHABLE:
            self.verify_failures[str(error.reason)] += 1

    def count_result(self, result: str, error: AgentError | None) -> None:
        """Count an update that ended."""
        self.results[result, str(error.reason) if error else ""] += 1
        if error is not None and result == "refused":
            self.last_refusal = (str(error.reason), str(error))

    def snapshot(self, phase: str, clock_floor_lag_s: float) -> UpdateSnapshot:
        """Return the counts as they are now."""
        return UpdateSnapshot(
            phase=phase,
            results=dict(self.results),
            verify_failures=dict(self.verify_failures),
            bytes={"full": self.fetched_bytes},
            last_refusal=self.last_refusal,
            clock_floor_lag_s=clock_floor_lag_s,
        )


def result_of(error: AgentError) -> str:
    """Return ``refused`` where the sender has to act, else ``failed``."""
    refused = isinstance(error, BundleRefusedError)
    return "refused" if refused and error.reason != Reason.UNREACHABLE else "failed"
