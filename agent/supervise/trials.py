"""Trials on running pipelines: examine, swap in, swap back, commit.

The rules this module keeps:
 * A candidate is examined in a child before a worker ever sees it.
 * ``swap_in`` and ``swap_back`` name the pipeline; what runs where is known here only.
"""

import os
from collections.abc import Mapping, Sequence

from agent.core.executors import DelegateFile
from agent.core.installed import Installed
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.trial_verdict import Chosen
from agent.errors import TrialFailedError
from agent.supervise.pipeline import Pipeline
from agent.supervise.placing import Placed
from agent.supervise.preflight import Wish, run_preflight


class PipelineTrials:
    """Performs trials for the update runner."""

    def __init__(
        self, pipelines: Mapping[str, Pipeline], delegates: Sequence[DelegateFile]
    ) -> None:
        self._pipelines = pipelines
        self._delegates = delegates
        self._candidates: dict[str, Placed] = {}

    async def examine(self, pipeline: str, bundle: OpenedBundle) -> Chosen:
        """Try a candidate in a child of its own; return what may run it.

        Raises:
            TrialFailedError: Nothing here may run it.
        """
        settings = self._named(pipeline).settings
        wish = Wish(
            threads=settings.threads,
            kernels=settings.kernels,
            delegates=self._delegates,
            cpu_count=len(os.sched_getaffinity(0)),
        )
        report = await run_preflight(bundle, wish)
        if report.chosen is None:
            raise TrialFailedError("nothing was chosen", reason=Reason.INTERNAL)
        return report.chosen

    async def swap_in(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Let a candidate answer live samples.

        Raises:
            TrialFailedError: It was refused, hung or killed its worker.
        """
        placed = Placed(bundle, installed)
        self._candidates[pipeline] = placed
        await self._named(pipeline).swap_in(placed)

    async def swap_back(self, pipeline: str) -> None:
        """Let what is committed answer again."""
        self._candidates.pop(pipeline, None)
        await self._named(pipeline).swap_back()

    async def commit(self, pipeline: str, installed: Installed) -> None:
        """The candidate is durable now."""
        placed = self._candidates.pop(pipeline, None)
        if placed is not None and placed.installed == installed:
            self._named(pipeline).commit(placed)

    def _named(self, pipeline: str) -> Pipeline:
        """Return a pipeline of the settings."""
        try:
            return self._pipelines[pipeline]
        except KeyError as err:
            raise TrialFailedError(
                f"there is no pipeline {pipeline!r}", reason=Reason.SETTINGS
            ) from err
