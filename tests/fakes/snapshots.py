"""Snapshots with something in every place, for listeners and metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.core.events import Event
from agent.core.executors import Executor
from agent.core.histogram import BUCKETS, bucket_index
from agent.core.installed import Installed
from agent.core.readings import BoardIdentity, BoardReadings
from agent.core.reasons import Reason
from agent.core.snapshot import (
    AgentSnapshot,
    ModelCounts,
    PipelineSnapshot,
    UpdateSnapshot,
)
from agent.core.statistics_block import (
    MAX_LABELS,
    OK,
    OUTCOME_INDEX,
    OUTCOMES,
    STAGES,
    Section,
    StageCounts,
)
from agent.core.targets import Wanted
from agent.core.trend import TrendPoint
from agent.core.updates import Decision
from agent.telemetry.exposition import Exposition

NOW = 1_795_000_000.0
HOUR_S = 3600.0
LITERT = Executor("litert", "xnnpack", 1, "2.3.0")
BOARD = BoardReadings(
    cpu_frequency_hertz=1.5e9,
    temperatures=(("cpu", 48.5), ("gpu", 51.0)),
    throttled=(("under_voltage", True), ("throttled", False)),
    memory_available_bytes=5e8,
    memory_size_bytes=1e9,
    memory_stalled_percent=0.5,
    pressure_seconds=(
        ("cpu", "waiting", 8.0),
        ("cpu", "stalled", 0.0),
        ("memory", "waiting", 0.5),
        ("memory", "stalled", 0.1),
        ("io", "waiting", 3.0),
        ("io", "stalled", 2.0),
    ),
    cpu_frequency_max_hertz=1.8e9,
    governor="ondemand",
    disk_free_bytes=2e9,
    disk_size_bytes=8e9,
    disk_wear=(("mmcblk0", 0.2),),
    disk_written_bytes=(("mmcblk0", 3e9),),
    cooling=(("pwm-fan", 0.25),),
    device_hertz=(("gpu", 3e8),),
    power_mode="15W",
    clock_synchronised=True,
    identity=BoardIdentity("raspberry_pi", "Raspberry Pi 4", "6.6", "Debian"),
)


def stage_of(durations_ns: list[int]) -> StageCounts:
    """Return the counts of some durations."""
    buckets = [0] * BUCKETS
    for duration in durations_ns:
        buckets[bucket_index(duration)] += 1
    return StageCounts(sum(durations_ns), tuple(buckets))


def section(durations_ns: list[int], *, dropped: int = 0, label: int = 0) -> Section:
    """Return a section with an ok sample for each duration."""
    outcomes = [0] * len(OUTCOMES)
    outcomes[OK] = len(durations_ns)
    outcomes[OUTCOME_INDEX[Reason.OVERRUN]] = dropped
    labels = [0] * (MAX_LABELS + 1)
    labels[label] = len(durations_ns)
    return Section(
        generation=1,
        received=sum(outcomes),
        outcomes=tuple(outcomes),
        stages=(stage_of(durations_ns),) * len(STAGES),
        labels=tuple(labels),
    )


def pipeline(
    name: str = "door", *, ready: bool = True, reason: str = ""
) -> PipelineSnapshot:
    """Return a pipeline whose model was swapped once."""
    return PipelineSnapshot(
        name=name,
        model="kws",
        active=Installed("kws", 2, "ab" * 32, 1_000, "int8", LITERT),
        state="active",
        ready=ready,
        reason=reason,
        counts=(
            ModelCounts("kws", 1, ("yes", "no"), section([60_000] * 3, dropped=2)),
            ModelCounts("kws", 2, ("yes", "no"), section([55_000, 70_000], label=1)),
        ),
        restarts={"crash": 1},
        swaps={("ok", ""): 1},
        gap_s=0.0004,
        lag_s=0.012,
        sink_dropped={"0_stdout": 3},
        worker_pid=4711,
        worker_rss_bytes=50_000_000,
        worker_locks={"seccomp": "", "landlock": "not in this kernel"},
        seq=8,
    )


def decision(name: str) -> Decision:
    """Return the decision that a pipeline's next model waits for its window."""
    return Decision(
        pipeline=name,
        state="waits",
        desired=Wanted("kws", 3),
        source="fleet/groups/all",
        generation=12,
        reason="window",
        detail="waits for window until 2026-11-18 22:00 UTC",
        until=NOW + HOUR_S,
    )


def agent(*pipelines: PipelineSnapshot) -> AgentSnapshot:
    """Return an agent that once refused an update."""
    return AgentSnapshot(
        version="0.1.0",
        engines={"litert": "2.3.0"},
        pipelines=pipelines,
        update=UpdateSnapshot(
            phase="PREFLIGHT",
            results={("committed", ""): 2, ("refused", "signature"): 1},
            verify_failures={"signature": 1},
            bytes={"full": 12_345},
            last_refusal=("signature", "not one of ours"),
            decisions=tuple(decision(shown.name) for shown in pipelines),
            last_look=NOW - 90,
            next_look=NOW + 210,
            metadata_expires={"timestamp": NOW + 24 * HOUR_S, "root": NOW - HOUR_S},
            metadata_issued=NOW - 2 * HOUR_S,
            set_aside=1,
            revoked=2,
            certificate_expires=NOW + 48 * HOUR_S,
        ),
        daemon_rss_bytes=45_000_000,
        now=NOW,
    )


@dataclass
class FixedFacts:
    """Facts that stay as a test has set them."""

    shown: AgentSnapshot = field(default_factory=lambda: agent(pipeline()))
    exposition: Exposition = field(default_factory=Exposition)
    logged: list[Event] = field(default_factory=list)
    points: dict[str, Sequence[TrendPoint]] = field(default_factory=dict)
    board: BoardReadings = BOARD

    def snapshot(self) -> AgentSnapshot:
        """Return the agent."""
        return self.shown

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """Return a scrape of it."""
        return self.exposition.render(self.shown, BOARD, accept)

    def events(self, after: int) -> Sequence[Event]:
        """Return what was logged after a number."""
        return [event for event in self.logged if event.id > after]

    def trends(self) -> Mapping[str, Sequence[TrendPoint]]:
        """Return the last minutes."""
        return self.points

    def readings(self) -> BoardReadings:
        """Return the board's readings."""
        return self.board
