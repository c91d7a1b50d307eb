"""One pipeline's integrity: what its workers are to check, and what follows of it.

The rules this module keeps:
 * A worker that says that it runs something else than was verified is believed, and
   replaced: from the verified bytes the first time; what repeats sets the model aside,
   as a crash loop does. A worker could as well end itself: it gains nothing by lying.
 * A stand-in, and whatever else runs because the board must do less, is not audited.
 * Each mismatch is one line of the log with its evidence, so that it is in the journal,
   among the events and in the board's own log.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable

from agent.core.integrity import (
    Answer,
    Check,
    Evidence,
    IntegrityView,
    add_counts,
    answer_mismatch,
)
from agent.core.messages import Anchored, Inspect, Inspected, Watched
from agent.core.protect_settings import IntegritySettings
from agent.core.reasons import Reason
from agent.supervise.figures import owns_thread
from agent.supervise.placing import Placed
from agent.supervise.worker_process import Report, WorkerProcess

log = logging.getLogger(__name__)
LOWEST = 19  # nice: it gets what nobody else wants
OFF = IntegritySettings(rehash_mbps=0, known_answers=False, audit_one_in=0)
KEPT = 16  # loads, and models whose mismatches are remembered


class Integrity:
    """Orders checks, and judges what they find.

    Args:
        pipeline: Its name, for log lines.
        settings: What to check; may be changed, for the loads that follow.

    Attributes:
        gives_up: The worker's model is to be set aside: its mismatch was not the first.
    """

    def __init__(self, pipeline: str, settings: IntegritySettings = OFF) -> None:
        self._pipeline = pipeline
        self.settings = settings
        self.gives_up = False
        self._told = False  # workers were told to check something
        self._loads: dict[int, Placed] = {}
        self._found_s: dict[str, float] = {}  # digest of a bundle -> its last mismatch
        self._now: Inspected | None = None
        self._heard_s = 0.0
        self._checks: dict[Check, int] = {}
        self._mismatches: dict[Check, int] = {}
        self._last: Evidence | None = None
        self._last_s = 0.0
        self._answer = ""

    def follow(self, settings: IntegritySettings | None) -> bool:
        """Take other settings; return whether what answers is to be loaded anew."""
        if settings is None or settings == self.settings:
            return False
        self.settings = settings
        return True

    def order(self, generation: int, placed: Placed) -> Inspect | None:
        """Return how the model of a load is to be checked.

        None where nothing is, and nothing was: a worker is told what it does not know.
        """
        self._loads[generation] = placed
        for old in sorted(self._loads)[:-KEPT]:
            del self._loads[old]
        wanted = self.settings
        if wanted == OFF and not self._told:
            return None
        self._told = True
        one_in = 0 if placed.stands_in else wanted.audit_one_in
        return Inspect(wanted.rehash_mbps, wanted.known_answers, one_in)

    def hear(
        self, worker: WorkerProcess, others: Callable[[Watched | Anchored], None]
    ) -> Callable[[Report], None]:
        """Return who hears what a worker says of its checks, and of all else."""

        def heard(said: Report) -> None:
            if isinstance(said, Inspected):
                self.take(worker, said)
            else:
                others(said)

        return heard

    def take(self, worker: WorkerProcess, said: Inspected) -> None:
        """Keep what a worker says; end it if it runs something else than it should."""
        self._count(said)
        _stand_back(worker.pid, said.checked.thread)
        if said.evidence is None or worker.condemned:
            return
        now_s = time.monotonic()
        placed = self._loads.get(said.generation)
        digest = placed.installed.sha256 if placed else ""
        answer = answer_mismatch(self._found_s.get(digest), now_s)
        self._found_s[digest] = now_s
        while len(self._found_s) > KEPT:
            del self._found_s[min(self._found_s, key=self._found_s.__getitem__)]
        self._last, self._last_s, self._answer = said.evidence, now_s, answer
        self.gives_up = answer is Answer.ROLL_BACK
        log.error("integrity.mismatch", extra=self._facts(said.evidence, placed))
        worker.condemn(Reason.INTEGRITY)

    def ended(self) -> bool:
        """A worker has ended; return whether its model is to be set aside."""
        self._fold()
        gives_up, self.gives_up = self.gives_up, False
        return gives_up

    def view(self) -> IntegrityView:
        """Return what others see of it."""
        now_s = time.monotonic()
        said = self._now
        checks, mismatches = self._checks, self._mismatches
        since_s = None
        if said is not None:
            checks = add_counts(checks, said.checked.checks)
            mismatches = add_counts(mismatches, said.checked.mismatches)
            if said.checked.pass_s is not None:
                since_s = said.checked.pass_s + now_s - self._heard_s
        return IntegrityView(
            wanted=self.settings != OFF,
            now=said.checked if said else None,
            checks=checks,
            mismatches=mismatches,
            last=self._last,
            last_ago_s=now_s - self._last_s if self._last else 0.0,
            answer=self._answer,
            since_pass_s=since_s,
        )

    def _count(self, said: Inspected) -> None:
        """Keep the newest word on each load; counters never fall."""
        if self._now is not None and self._now.generation != said.generation:
            self._fold()
        self._now, self._heard_s = said, time.monotonic()

    def _fold(self) -> None:
        """Keep what a load that is over has counted."""
        if self._now is not None:
            checked = self._now.checked
            self._checks = add_counts(self._checks, checked.checks)
            self._mismatches = add_counts(self._mismatches, checked.mismatches)
            self._now = None

    def _facts(self, evidence: Evidence, placed: Placed | None) -> dict[str, object]:
        """Return the fields of the line about a mismatch."""
        facts: dict[str, object] = {
            "pipeline": self._pipeline,
            "reason": Reason.INTEGRITY,
            "check": evidence.check,
            "what": evidence.what,
            "place": evidence.place,
            "expected": evidence.expected,
            "found": evidence.found,
            "difference": evidence.difference,
            "answer": self._answer,
        }
        if placed is not None:
            facts["model"] = placed.installed.model
            facts["version"] = placed.installed.version
        return facts


def _stand_back(pid: int, thread: int) -> None:
    """Give the thread that checks the lowest priority; its own locks forbid it that."""
    # Only a thread of this worker: the number is the worker's word.
    if thread and owns_thread(pid, thread):
        with contextlib.suppress(OSError):  # it only costs more
            if os.getpriority(os.PRIO_PROCESS, thread) < LOWEST:
                os.setpriority(os.PRIO_PROCESS, thread, LOWEST)
