"""The demo's models as opened bundles, and pipelines that run them in real workers.

The rules this module keeps:
 * Waiting means looking until a deadline; deadlines are generous, because no test may
   depend on speed.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ParamSpec

from msgspec.structs import replace

from agent.core.executors import EngineName, Executor
from agent.core.flow import CountSink, FilesSource, SinkSettings, SourceSettings
from agent.core.installed import Installed
from agent.core.manifest import Manifest
from agent.core.opened_bundle import NO_TRIGGERS, OpenedBundle
from agent.core.sealing import Marks
from agent.core.snapshot import PipelineSnapshot
from agent.core.statistics_block import OUTCOMES
from agent.demo.owner import ASSETS
from agent.publish.description import parse_description
from agent.publish.pack import pack
from agent.settings import PipelineSettings, SuperviseSettings
from agent.supervise.child import PROGRAM
from agent.supervise.pipeline import Pipeline
from agent.supervise.placing import Placed
from agent.supervise.receipts import Receipting
from agent.supervise.watching import Monitoring
from agent.trust.bundle import Bundle, open_bundle
from agent.worker.examine import default_examiner
from agent.worker.runtimes import PACKAGES, available_engines

P = ParamSpec("P")
PATIENCE_S = 60.0  # two shared cores with others on them
STREAM = FilesSource(str(ASSETS / "digits-stream.npz"), "images", memory=True)
ENDLESS = replace(STREAM, loop=True)
BRISK = SuperviseSettings(backoff_s=0.05, max_backoff_s=0.2)


@functools.cache
def digits(version: int) -> Bundle:
    """Return a bundle: odd versions are the demo's first model, even its second."""
    folder = ASSETS / f"digits-{2 - version % 2}"
    text = (folder / "pack.toml").read_text(encoding="utf-8")
    own = f"version = {2 - version % 2}\n"
    renumbered = text.replace(own, f"version = {version}\n", 1)
    content = pack(parse_description(renumbered.encode()), folder, default_examiner())
    return open_bundle(content, max_bytes=len(content))


def executor() -> Executor:
    """Return plain kernels on a runtime that is installed here."""
    engine: EngineName
    engine = next(name for name in PACKAGES if name in available_engines())
    return Executor(engine, "plain")


def place(bundle: OpenedBundle, variant: str = "int8") -> Placed:
    """Return a bundle as the store would have it committed."""
    manifest = bundle.manifest
    installed = Installed(
        manifest.model,
        manifest.version,
        bundle.sha256,
        bundle.size,
        variant,
        executor(),
    )
    return Placed(bundle, installed)


@functools.cache
def placed(version: int) -> Placed:
    """Return a version of the demo's model as the store would have it committed."""
    return place(digits(version))


@dataclass(frozen=True, slots=True)
class AlteredBundle:
    """A bundle whose manifest or models were altered after they were verified."""

    manifest: Manifest
    raw_manifest: bytes
    sha256: str
    size: int
    golden: memoryview
    content: bytes
    profile: bytes = b""
    provenance: bytes = b""
    triggers: memoryview = NO_TRIGGERS
    marks: Marks | None = None

    def variant_bytes(self, name: str) -> memoryview:
        """Return the altered model, whichever variant is asked for."""
        del name
        return memoryview(self.content)

    def variant_sha256(self, name: str) -> str:
        """Return what the manifest says: whoever loads the model finds out."""
        return self.manifest.variant(name).sha256


async def until(
    condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S
) -> None:
    """Look until something holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:.0f} s: {what}"
        await asyncio.sleep(0.005)


@dataclass
class Bench:
    """A pipeline with a real worker, and what its crash-loop callback was told."""

    pipeline: Pipeline
    fallen: list[tuple[str, str]] = field(default_factory=list)
    successor: Placed | None = None

    @property
    def now(self) -> PipelineSnapshot:
        """The pipeline at this moment."""
        return self.pipeline.snapshot()

    def outcomes(self, version: int) -> dict[str, int]:
        """Return ok, failed and dropped of one version, and what was received."""
        sums = {"received": 0, "ok": 0, "failed": 0, "dropped": 0}
        for counts in self.now.counts:
            if counts.version == version:
                sums["received"] += counts.section.received
                rows = zip(OUTCOMES, counts.section.outcomes, strict=True)
                for (outcome, _), number in rows:
                    sums[outcome] += number
        return sums

    def reasons(self, version: int) -> dict[str, int]:
        """Return the samples of one version that were not answered, by reason."""
        return {
            reason: number
            for counts in self.now.counts
            if counts.version == version
            for (_, reason), number in zip(
                OUTCOMES, counts.section.outcomes, strict=True
            )
            if number and reason
        }

    def ok(self, version: int) -> int:
        """Return how many samples a version has answered."""
        return self.outcomes(version)["ok"]

    async def ready(self) -> None:
        """Wait until the pipeline is ready."""
        await until(lambda: self.now.ready, "ready")

    async def answers(self, version: int, more: int = 1) -> None:
        """Wait until a version has answered some more samples."""
        wanted = self.ok(version) + more
        await until(lambda: self.ok(version) >= wanted, f"{version} answers")


@asynccontextmanager
async def running(  # noqa: PLR0913 - what a pipeline may be like
    first: Placed | None = None,
    *,
    source: SourceSettings = ENDLESS,
    sinks: Sequence[SinkSettings] = (CountSink(),),
    rules: SuperviseSettings = BRISK,
    deadline_ms: float = 20_000.0,
    program: Sequence[str] = PROGRAM,
    read_board: Callable[[], Sequence[float]] = lambda: (0.0,) * 8,
    monitoring: Monitoring | None = None,
    receipting: Receipting | None = None,
) -> AsyncIterator[Bench]:
    """Run a pipeline; it is stopped in the end, and leaves no process."""
    settings = PipelineSettings(
        "digits", "digits", source, tuple(sinks), deadline_ms=deadline_ms
    )

    async def fall(name: str, reason: str) -> Placed | None:
        bench.fallen.append((name, reason))
        return bench.successor

    pipeline = Pipeline(
        settings,
        rules,
        delegates=(),
        read_board=read_board,
        crash_loop=fall,
        monitoring=monitoring,
        receipting=receipting,
        program=program,
    )
    bench = Bench(pipeline)
    if first is not None:
        pipeline.start_with(first)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pipeline.run())
        try:
            yield bench
        finally:
            await pipeline.stop()
            await asyncio.wait({task}, timeout=PATIENCE_S)
            task.cancel()


def in_loop(case: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Turn an async test into one that pytest runs."""

    @functools.wraps(case)
    def test(*args: P.args, **kwargs: P.kwargs) -> None:
        async def whole() -> None:
            async with asyncio.timeout(2 * PATIENCE_S):
                await case(*args, **kwargs)

        asyncio.run(whole())

    return test
