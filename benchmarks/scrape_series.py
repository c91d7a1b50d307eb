"""What a scrape of so many series costs the daemon: snapshots made up for it.

The snapshot is there already, as the client's is in its own benchmark: what is measured
is the way from frozen values to bytes, in the daemon's thread.
"""

import time
from collections.abc import Iterator

from agent.core.executors import Executor
from agent.core.histogram import BUCKETS
from agent.core.installed import Installed
from agent.core.readings import BoardReadings
from agent.core.snapshot import (
    AgentSnapshot,
    ModelCounts,
    PipelineSnapshot,
    UpdateSnapshot,
)
from agent.core.statistics_block import (
    MAX_LABELS,
    OUTCOMES,
    STAGES,
    Section,
    StageCounts,
)
from agent.core.watching import (
    Alarm,
    AnchorState,
    FeatureDrift,
    ModelWatch,
    Monitored,
    Scope,
    Score,
)
from agent.settings import MonitorSettings
from agent.telemetry.exposition import Exposition
from benchmarks.rows import Row, median

TARGETS_MS = {200: 2.0, 1_000: 6.0}
FEATURES = 15
SCOPES: tuple[Scope, ...] = ("input", "output", "all")


def measure(rounds: int) -> Iterator[Row]:
    """Yield what rendering costs at each number of series.

    Args:
        rounds: Scrapes to measure; as many again warm up.
    """
    for series, target_ms in TARGETS_MS.items():
        snapshot = snapshot_of(series)
        exposition = Exposition(MonitorSettings(max_series=100_000))
        board = BoardReadings()
        took_ms: list[float] = []
        for _ in range(2 * rounds):
            began = time.perf_counter()
            exposition.render(snapshot, board, "")
            took_ms.append((time.perf_counter() - began) * 1e3)
        middle, spread = median(took_ms[rounds:])
        measure = f"rendering {series:,} series"
        yield Row("scrape", measure, middle, "ms", target_ms, spread=spread)


def snapshot_of(series: int) -> AgentSnapshot:
    """Return a snapshot of about so many series, at least: labels fill it up."""
    pipelines: list[PipelineSnapshot] = []
    while count_series(pipelines) < series:
        pipelines.append(pipeline_of(f"p{len(pipelines)}", MAX_LABELS))
    for labels in range(MAX_LABELS):
        fewer = [*pipelines[:-1], pipeline_of(pipelines[-1].name, labels)]
        if count_series(fewer) >= series:
            return agent_of(fewer)
    return agent_of(pipelines)


def count_series(pipelines: list[PipelineSnapshot]) -> int:
    """Return how many series a scrape of some pipelines has."""
    exposition = Exposition(MonitorSettings(max_series=100_000))
    families = exposition.families(agent_of(pipelines), BoardReadings())
    return sum(families.tally().values())


def agent_of(pipelines: list[PipelineSnapshot]) -> AgentSnapshot:
    """Return an agent with some pipelines."""
    return AgentSnapshot("0", {}, tuple(pipelines), UpdateSnapshot(), now=1.8e9)


def pipeline_of(name: str, labels: int) -> PipelineSnapshot:
    """Return a pipeline with one watched model that has answered so many labels."""
    words = tuple(f"label {k}" for k in range(MAX_LABELS))
    durations = StageCounts(10**9, (7,) * BUCKETS)
    section = Section(
        generation=1,
        received=0,
        outcomes=(10**6,) * len(OUTCOMES),
        stages=(durations,) * len(STAGES),
        labels=(*(12_345,) * labels, *(0,) * (MAX_LABELS + 1 - labels)),
    )
    executor = Executor("litert", "xnnpack", 1, "2")
    return PipelineSnapshot(
        name=name,
        model="kws",
        active=Installed("kws", 1, "ab" * 32, 1, "int8", executor),
        state="active",
        ready=True,
        reason="",
        counts=(ModelCounts("kws", 1, words, section),),
        restarts={},
        swaps={},
        gap_s=0.001,
        lag_s=0.0123,
        sink_dropped={},
        watch=(ModelWatch("kws", 1, _monitored()),),
        budgets_ms={1: 20.0},
    )


def _monitored() -> Monitored:
    """Return what a monitor with both anchors says."""
    anchors = (AnchorState("shipped", valid=True), AnchorState("site", valid=True))
    scores = tuple(Score("shipped", scope, "mewma", 0.123456) for scope in SCOPES)
    alarms = tuple(Alarm("shipped", scope, active=False) for scope in SCOPES)
    features = tuple(
        FeatureDrift("shipped", f"f{k}", 0.123456, 0.0123, 0.0456)
        for k in range(FEATURES)
    )
    return Monitored(
        samples=10**6,
        anchors=anchors,
        scores=scores,
        alarms=alarms,
        features=features,
        confidence=(1_000,) * 10,
        confidence_sum=5_000.25,
    )
