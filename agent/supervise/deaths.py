"""Counting a pipeline's deaths: why, how many in a row, how long to wait.

The rules this module keeps:
 * Only deaths that the committed model is to blame for count towards setting it aside:
   a source that is missing, a candidate on trial or a board without memory is not its
   fault (what the model itself takes is limited when it is placed).
 * A worker that lived for ``healthy_s`` ends the row.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.core.reasons import Reason
from agent.settings import SuperviseSettings

SIGKILLED = -9


def oom_kills() -> int:
    """Return how many processes the kernel has killed for memory (proc_vmstat).

    Raises:
        OSError: No descriptor is left to read it.
    """
    for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def death_reason(code: int, *, hung: bool, oom: bool) -> Reason:
    """Return why a worker ended, from its exit code and what was seen.

    >>> death_reason(-9, hung=False, oom=True)
    <Reason.OOM: 'oom'>
    """
    if hung:
        return Reason.HANG
    if code == SIGKILLED and oom:
        return Reason.OOM
    return Reason.CRASH


@dataclass(frozen=True, slots=True)
class Death:
    """Why a worker ended; ``with_model`` if the committed model is to blame."""

    reason: Reason
    with_model: bool = False


def most_telling(*reasons: Reason) -> Reason:
    """Return the first that says more than that something starts.

    >>> most_telling(Reason.NONE, Reason.STARTING, Reason.CRASH)
    <Reason.CRASH: 'crash'>
    """
    told = (it for it in reasons if it not in (Reason.NONE, Reason.STARTING))
    return next(told, Reason.STARTING)


class Deaths:
    """One pipeline's deaths.

    Args:
        rules: Limits and pauses; may be changed.
        read_kills: How many processes the kernel has killed for memory so far.

    Attributes:
        last: Why the last worker ended; empty if none has.
    """

    def __init__(
        self, rules: SuperviseSettings, read_kills: Callable[[], int] = oom_kills
    ) -> None:
        self.rules = rules
        self._read_kills = read_kills
        self._counts: dict[str, int] = {}
        self._row = 0  # deaths, for the pause; and those that the model is blamed for
        self._blamed = 0
        self._born_s = time.monotonic()
        self._kills: int | None = 0
        self.last = Reason.NONE

    def began(self) -> None:
        """A new worker starts now."""
        self._born_s = time.monotonic()
        self._kills = self._count_kills()

    def judge(
        self, code: int, *, hung: bool, source: Reason, unwanted: bool, blamed: bool
    ) -> Death:
        """Say what the end of the worker that began last is counted as.

        Args:
            code: Its exit code.
            hung: It missed a deadline.
            source: What was wrong with its source so that it left, or nothing.
            unwanted: It was ended for no fault of its own.
            blamed: The committed model was the last that was placed in it.
        """
        if unwanted:
            return Death(Reason.REQUESTED)
        if source:
            return Death(source)
        before, now = self._kills, self._count_kills()
        oom = before is not None and now is not None and now > before
        reason = death_reason(code, hung=hung, oom=oom)
        return Death(reason, with_model=blamed and reason is not Reason.OOM)

    def note(self, death: Death) -> tuple[float, bool]:
        """Count a death; return the pause before the next worker and "too many"."""
        self.last = reason = death.reason
        self._counts[reason] = self._counts.get(reason, 0) + 1
        if time.monotonic() - self._born_s >= self.rules.healthy_s:
            self._row = self._blamed = 0
        self._row += 1
        pause_s = self.rules.backoff_s * 2.0 ** min(self._row - 1, 30)
        self._blamed += death.with_model
        too_many = death.with_model and self._blamed >= self.rules.crash_limit
        return min(pause_s, self.rules.max_backoff_s), too_many

    def _count_kills(self) -> int | None:
        """Return the kernel's count; None where it cannot be read."""
        # A daemon that is out of descriptors goes on without knowing: a death that is
        # not the model's fault may be blamed on it, which a restart of the row mends.
        try:
            return self._read_kills()
        except OSError:
            return None

    def forgive(self) -> None:
        """Another model is committed: it starts afresh."""
        self._row = self._blamed = 0

    def counts(self) -> dict[str, int]:
        """Return the deaths by reason."""
        return dict(self._counts)
