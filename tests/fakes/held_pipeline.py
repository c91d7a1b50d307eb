"""A pipeline of words: what it was told to do less, and what it says it can."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from msgspec.structs import replace as replace_struct

from agent.core.degradation import DegradeSteps, Measure, SafeOutput
from agent.core.flow import CountSink, FilesSource
from agent.core.snapshot import PipelineSnapshot
from agent.errors import AgentError
from agent.settings import PipelineSettings
from agent.supervise.placing import Placed
from tests.fakes.digits import AlteredBundle, placed


def snapshot(name: str = "digits") -> PipelineSnapshot:
    """Return a pipeline that answers."""
    return PipelineSnapshot(
        name=name,
        model="digits",
        active=None,
        state="active",
        ready=True,
        reason="",
        counts=(),
        restarts={},
        swaps={},
        gap_s=0.0,
        lag_s=0.0,
        sink_dropped={},
    )


def with_steps(steps: DegradeSteps) -> Placed:
    """Return a committed model whose manifest says what is done less."""
    first = placed(1)
    whole = first.bundle
    bundle = AlteredBundle(
        replace_struct(whole.manifest, degrade=steps),
        whole.raw_manifest,  # as the worker reads it, which does not ask
        whole.sha256,
        whole.size,
        whole.golden,
        bytes(whole.variant_bytes("int8")),
    )
    return replace(first, bundle=bundle)


@dataclass
class HeldPipeline:
    """Satisfies ``agent.supervise.degrading.Sheddable`` by doing as it is told.

    Attributes:
        lacks: Measures that cannot be had here.
        orders: What it was told, in order.
        error: What the next orders fail with.
        gate: Orders wait for it.
        now: What its snapshot says.
    """

    steps: DegradeSteps | None = None
    committed: Placed | None = None
    lacks: tuple[Measure, ...] = ()
    orders: list[tuple[tuple[Measure, ...], SafeOutput]] = field(default_factory=list)
    error: AgentError | None = None
    gate: asyncio.Event | None = None
    now: PipelineSnapshot = field(default_factory=snapshot)
    holding: tuple[Measure, ...] = ()

    @property
    def settings(self) -> PipelineSettings:
        """Its table, with the steps of now."""
        source = FilesSource("samples.npz")
        return PipelineSettings(
            "digits", "digits", source, (CountSink(),), degrade=self.steps
        )

    def snapshot(self) -> PipelineSnapshot:
        """Return what the test said."""
        return self.now

    async def shed(
        self, measures: Sequence[Measure], safe_output: SafeOutput
    ) -> tuple[Measure, ...]:
        """Do these measures, as far as they can be had."""
        self.orders.append((tuple(measures), safe_output))
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.holding = tuple(it for it in measures if it not in self.lacks)
        return self.holding
