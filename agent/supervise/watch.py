"""Watching a worker that runs: does its loop move, does its source give anything?

The rules this module keeps:
 * Only the block is looked at; a worker is never asked whether it is well.
 * A hang kills the worker; a silent source only starts its program again.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from operator import itemgetter

from agent.core.flow import CommandSource
from agent.core.liveness import Progress, is_hung, note_progress
from agent.core.reasons import Reason
from agent.core.statistics_block import OK, OUTCOME_INDEX, OUTCOMES, Block
from agent.settings import PipelineSettings
from agent.supervise.plumbing import Plumbing
from agent.supervise.worker_process import STUCK, WorkerProcess

log = logging.getLogger(__name__)
ABSTAINED = OUTCOME_INDEX[Reason.ABSTAINED]
WATCH_S = 0.1  # a hang is seen at most this long after its deadline


class Watch:
    """Looks at one worker's block ten times a second.

    Args:
        worker: Which one; ``settings`` and ``plumbing`` are its pipeline's.
        settings: See above.
        plumbing: See above.
        has_model: Whether anything answers.
        holds_back: Whether samples are left where they are on purpose.

    Attributes:
        hung: It was killed because it missed a deadline.
    """

    def __init__(
        self,
        worker: WorkerProcess,
        settings: PipelineSettings,
        plumbing: Plumbing,
        has_model: Callable[[], bool],
        holds_back: Callable[[], bool] = bool,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._plumbing = plumbing
        self._has_model = has_model
        self._holds_back = holds_back
        self._progress: Progress | None = None
        self._seq = 0
        self._moved_ns = time.monotonic_ns()
        self.hung = False

    async def run(self) -> None:
        """Watch until the worker hangs, which ends it, or until cancelled."""
        while not self.hung:
            await asyncio.sleep(WATCH_S)
            block, now_ns = self._worker.block.read(), time.monotonic_ns()
            if block is None or not self._has_model():
                self._progress, self._moved_ns = None, now_ns
                continue
            self._look_at_loop(block, now_ns)
            self._look_at_source(block, now_ns)

    def _look_at_loop(self, block: Block, now_ns: int) -> None:
        """Kill a worker whose sample, or look at its source, takes too long."""
        self._progress = note_progress(
            self._progress,
            seq=block.next_seq,
            turn_ns=block.turn_ns,
            busy_since_ns=block.busy_since_ns,
            now_ns=now_ns,
        )
        deadline_ns = int(self._settings.deadline_ms * 1e6)
        if is_hung(self._progress, now_ns=now_ns, deadline_ns=deadline_ns):
            log.warning("worker.hung", extra={"pipeline": self._settings.name})
            self.hung = True
            if not block.busy_since_ns and not self._worker.is_stopped():
                self._worker.source = STUCK  # no sample in hand: it reads its source
            self._worker.kill()

    def _look_at_source(self, block: Block, now_ns: int) -> None:
        """Start a program again that has given no frame for too long."""
        if block.next_seq != self._seq:
            self._seq, self._moved_ns = block.next_seq, now_ns
            self._plumbing.saw_sample()
            return
        if self._holds_back():  # a source whose samples nobody takes is not silent
            self._moved_ns = now_ns
            return
        source = self._settings.source
        if not isinstance(source, CommandSource):
            return
        if now_ns - self._moved_ns > source.silent_s * 1e9:
            self._moved_ns = now_ns
            self._plumbing.silent()


def answered(block: Block | None) -> int:
    """Return how many samples this worker has answered."""
    return sum(section.outcomes[OK] for section in block.sections) if block else 0


def abstained(block: Block | None) -> int:
    """Return how many samples this worker has ended without asking its model."""
    return sum(it.outcomes[ABSTAINED] for it in block.sections) if block else 0


def failing(block: Block | None) -> Reason:
    """Return what most samples of this worker have failed of, or nothing."""
    failures: Counter[Reason] = Counter()
    for section in block.sections if block else ():
        for (outcome, reason), number in zip(OUTCOMES, section.outcomes, strict=True):
            failures[reason] += number if outcome == "failed" else 0
    reason, number = max(failures.items(), key=itemgetter(1), default=(Reason.NONE, 0))
    return reason if number else Reason.NONE
