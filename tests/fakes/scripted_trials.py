"""Trials whose verdicts are written in advance."""

from collections.abc import Awaitable, Callable

from agent.core.executors import Executor
from agent.core.installed import Installed, PassedOver
from agent.core.opened_bundle import OpenedBundle
from agent.core.trial_verdict import Chosen

EXECUTOR = Executor("litert", "xnnpack", 1, "2.3.0")
PASSED_OVER = (PassedOver("small", EXECUTOR, "golden", "off by 2"),)


class ScriptedTrials:
    """Implements ``agent.update.needs.Trials``.

    Attributes:
        calls: (what, pipeline, version) in the order they came; version 0 where the
            call names none.
        errors: What -> the error that it raises, once.
        pauses: What -> awaited inside the call, before it says anything.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self.errors: dict[str, Exception] = {}
        self.pauses: dict[str, Callable[[], Awaitable[object]]] = {}

    async def examine(self, pipeline: str, bundle: OpenedBundle) -> Chosen:
        """Choose the first variant."""
        await self._take("examine", pipeline, bundle.manifest.version)
        name = bundle.manifest.variants[0].name
        return Chosen(name, EXECUTOR, 0.5, 0.7, 9, "it says so", PASSED_OVER)

    async def shadow(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Shadow live samples."""
        assert bundle.sha256 == installed.sha256
        await self._take("shadow", pipeline, installed.version)

    async def swap_in(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Let the candidate answer."""
        assert bundle.sha256 == installed.sha256
        await self._take("swap_in", pipeline, installed.version)

    async def watch(
        self, pipeline: str, bundle: OpenedBundle, installed: Installed
    ) -> None:
        """Judge what the candidate answers."""
        assert bundle.sha256 == installed.sha256
        await self._take("watch", pipeline, installed.version)

    async def swap_back(self, pipeline: str) -> None:
        """Let the active model answer."""
        await self._take("swap_back", pipeline, 0)

    async def commit(self, pipeline: str, installed: Installed) -> None:
        """Take note."""
        await self._take("commit", pipeline, installed.version)

    async def _take(self, what: str, pipeline: str, version: int) -> None:
        """Write down a call and follow the script."""
        self.calls.append((what, pipeline, version))
        if what in self.pauses:
            await self.pauses[what]()
        if what in self.errors:
            raise self.errors.pop(what)
