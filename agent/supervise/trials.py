"""Trials on running pipelines: examine, shadow, swap in, watch, swap back, commit.

The rules this module keeps:
 * A candidate is examined in a child before a worker ever sees it.
 * Calls name the pipeline; what runs where is known here only.
 * A slow board excuses a slow candidate, but not for ever.
 * Every wait may be cancelled, and leaves nothing of it behind but the candidate that
   answers, which ``swap_back`` takes away.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from agent.core.degradation import LadderState
from agent.core.executors import DelegateFile
from agent.core.installed import Installed
from agent.core.opened_bundle import OpenedBundle
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.slowness import HOT_C, excuse
from agent.core.snapshot import PipelineSnapshot
from agent.core.trial_verdict import Chosen
from agent.errors import DeviceError, TrialFailedError
from agent.supervise.asking import Asked
from agent.supervise.own_copy import check_own_copy, refuse_unmarked
from agent.supervise.patience import Patience
from agent.supervise.pipeline import Pipeline
from agent.supervise.placing import Placed
from agent.supervise.preflight import Wish, run_preflight
from agent.supervise.probation import Probation
from agent.supervise.shadow import Shadowing

log = logging.getLogger(__name__)
PROGRESS_S = 10.0  # between two log lines about a trial that goes on


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What was swapped in, and its pipeline just before."""

    placed: Placed
    before: PipelineSnapshot


class PipelineTrials:
    """Performs trials for the update runner.

    Args:
        pipelines: By name.
        delegates: Libraries that candidates may load.
        read_board: The board's newest readings.
        read_ladder: How much a pipeline is held back.
        read_hot_c: From where on heat slows the board down.
        board_id: This board, whose own copy a marked model has to be.

    Attributes:
        seen: Pipeline -> (samples so far, samples wanted) of the trial under way.
    """

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        delegates: Sequence[DelegateFile],
        read_board: Callable[[], BoardReadings] = BoardReadings,
        read_ladder: Callable[[str], LadderState] = lambda _: LadderState(),
        read_hot_c: Callable[[], float] = lambda: HOT_C,
        board_id: str = "",
    ) -> None:
        self._board_id = board_id
        self._pipelines = pipelines
        self._delegates = delegates
        self._read_board = read_board
        self._read_ladder = read_ladder
        self._read_hot_c = read_hot_c
        self._patience = Patience()
        self._candidates: dict[str, _Candidate] = {}
        self.seen: dict[str, tuple[int, int]] = {}

    async def examine(self, pipeline: str, bundle: OpenedBundle) -> Chosen:
        """Try a candidate in a child of its own; return what may run it.

        Raises:
            TrialFailedError: Nothing here may run it.
            BundleRefusedError: ``watermark``: it is another board's copy, or nobody's.
            DeviceError: It is too slow here, and so was the board: ``heat``,
                ``throttled`` or ``under_voltage``.
        """
        refuse_unmarked(bundle, None)  # its triggers say so; seals are looked at later
        settings = self._named(pipeline).settings
        board, hot_c = self._read_board(), self._read_hot_c()
        wish = Wish(
            threads=settings.threads,
            kernels=settings.kernels,
            delegates=self._delegates,
            cpu_count=len(os.sched_getaffinity(0)),
            available_bytes=board.memory_available_bytes,
        )
        try:
            report = await run_preflight(bundle, wish)
        except TrialFailedError as err:
            found = excuse(err, (board, self._read_board()), hot_c)
            if isinstance(found, DeviceError):
                found = self._patience.judge(bundle.sha256, found)
            raise found from err
        if report.chosen is None:
            raise TrialFailedError("nothing was chosen", reason=Reason.INTERNAL)
        chosen = report.chosen
        asked = Asked(bundle, chosen.variant, chosen.executor, self._delegates)
        await check_own_copy(asked, self._board_id)
        return chosen

    async def shadow(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Let a candidate answer copies of live samples, if its manifest wants that.

        Raises:
            TrialFailedError: It differs, fails, is slow, crashed or hung.
            DeviceError: ``source_silent``: there were too few samples; ``memory``.
        """
        if not bundle.manifest.trial.shadow_samples:
            return
        placed = Placed(bundle, installed)
        tell = self._tell("shadow.progress", pipeline)
        try:
            await Shadowing(
                self._named(pipeline),
                placed,
                self._delegates,
                tell,
                read_board=self._read_board,
                read_ladder=lambda: self._read_ladder(pipeline),
                read_hot_c=self._read_hot_c,
                excuse=partial(self._patience.judge, bundle.sha256),
            ).run()
        finally:
            self.seen.pop(pipeline, None)

    async def swap_in(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Let a candidate answer live samples.

        Raises:
            TrialFailedError: It was refused, hung or killed its worker.
            BundleRefusedError: ``watermark``: it should be marked, and is not.
            DeviceError: There is no worker.
        """
        refuse_unmarked(bundle, installed.sealed)
        placed, runs = Placed(bundle, installed), self._named(pipeline)
        before = runs.snapshot()
        self._candidates[pipeline] = _Candidate(placed, before)
        await runs.swap_in(placed)
        # Deaths are counted from here: no await has passed since it answers, and all
        # workers before this one are buried.
        before = replace(before, restarts=runs.snapshot().restarts)
        self._candidates[pipeline] = _Candidate(placed, before)

    async def watch(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Watch a candidate that was swapped in, if its manifest wants that.

        Raises:
            TrialFailedError: ``failures``, ``latency``, ``drift``, or what ended its
                worker.
            DeviceError: Nobody can tell, or another model was given (``superseded``).
        """
        rules = bundle.manifest.trial
        candidate = self._candidates.get(pipeline)
        if not (rules.probation_s or rules.probation_samples) or candidate is None:
            return
        if candidate.placed.installed != installed:
            raise TrialFailedError("it was not swapped in", reason=Reason.INTERNAL)
        tell = self._tell("probation.progress", pipeline)
        try:
            await Probation(
                self._named(pipeline),
                candidate.placed,
                candidate.before,
                self._read_board,
                tell,
                lambda: self._read_ladder(pipeline),
                self._read_hot_c,
                partial(self._patience.judge, bundle.sha256),
            ).run()
        finally:
            self.seen.pop(pipeline, None)

    async def swap_back(self, pipeline: str) -> None:
        """Let what is committed answer again."""
        self._candidates.pop(pipeline, None)
        await self._named(pipeline).swap_back()

    async def commit(self, pipeline: str, installed: Installed) -> None:
        """The candidate is durable now."""
        self._patience.forget(installed.sha256)
        candidate = self._candidates.pop(pipeline, None)
        if candidate is not None and candidate.placed.installed == installed:
            self._named(pipeline).commit(candidate.placed)

    def _tell(self, event: str, pipeline: str) -> Callable[[int, int], None]:
        """Return what keeps a trial's progress, and logs it now and then."""
        said_s = time.monotonic()

        def tell(done: int, wanted: int) -> None:
            nonlocal said_s
            self.seen[pipeline] = (done, wanted)
            if time.monotonic() - said_s >= PROGRESS_S:
                said_s = time.monotonic()
                facts = {"pipeline": pipeline, "samples": done, "wanted": wanted}
                log.info(event, extra=facts)

        return tell

    def _named(self, pipeline: str) -> Pipeline:
        """Return a pipeline of the settings."""
        try:
            return self._pipelines[pipeline]
        except KeyError as err:
            raise TrialFailedError(
                f"there is no pipeline {pipeline!r}", reason=Reason.SETTINGS
            ) from err
