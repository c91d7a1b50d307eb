"""How updates ended: the counters behind ``tinyward_updates_total`` and its sisters."""

from collections import Counter
from dataclasses import dataclass, field

from agent.errors import AgentError, BundleRefusedError
from agent.update.endings import NETWORK


@dataclass(slots=True)
class Tally:
    """Counts since the daemon started; they only rise.

    Attributes:
        results: (result, reason) -> updates that ended so; a refusal that repeats
            itself counts once, until something changes.
        verify_failures: reason -> verifications that failed, each time.
        bytes: kind -> bytes of bundles: ``full`` came in, ``delta`` came in their
            stead, ``resumed`` were here from an interrupted fetch and did not have to.
        last_refusal: (reason, message) of the last refusal, or None.
    """

    results: Counter[tuple[str, str]] = field(default_factory=Counter)
    verify_failures: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(
        default_factory=lambda: Counter({"full": 0, "delta": 0, "resumed": 0})
    )
    last_refusal: tuple[str, str] | None = None

    def count_verification(self, error: AgentError | None) -> None:
        """Count what did not verify; a repository out of reach verified nothing."""
        refused = isinstance(error, BundleRefusedError)
        if error is not None and refused and error.reason not in NETWORK:
            self.verify_failures[str(error.reason)] += 1

    def count_result(self, result: str, error: AgentError | None) -> None:
        """Count an update that ended."""
        self.results[result, str(error.reason) if error else ""] += 1
        if error is not None and result == "refused":
            self.last_refusal = (str(error.reason), str(error))
