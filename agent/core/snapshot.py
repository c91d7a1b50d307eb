"""Frozen sums of what happened: the only thing that crosses to metrics and pages."""

from dataclasses import dataclass, field
from typing import Literal

from agent.core.counts import EMPTY
from agent.core.degradation import LadderState
from agent.core.installed import Installed
from agent.core.integrity import IntegrityView
from agent.core.log_view import LogView
from agent.core.meter_status import MeterStatus
from agent.core.statistics_block import Section
from agent.core.updates import Decision, Progress
from agent.core.watching import ModelWatch

# Whose copy of a model runs, as far as the board knows; empty: copies do not differ.
CopyState = Literal["", "marked", "own"]


@dataclass(frozen=True, slots=True)
class ModelCounts:
    """Everything one model version answered in one pipeline, over all its workers.

    ``labels`` names the words of ``section.labels``; the last of those is ``other``.
    ``stand_ins`` is the part of ``section`` that was answered by what ran instead of
    the pair that is committed.
    """

    model: str
    version: int
    labels: tuple[str, ...]
    section: Section
    stand_ins: Section = EMPTY


@dataclass(frozen=True, slots=True)
class PipelineSnapshot:
    """One pipeline at one moment.

    Attributes:
        active: What answers now; None before the first model.
        state: ``active``, ``candidate`` (on trial) or ``none``.
        ready: It has answered with a verified model and its worker lives;
            ``reason`` says why not.
        counts: By model version, what answered last at the end; version 0 sums up
            those before the newest 8.
        restarts: Deaths of workers by reason.
        swaps: (result, reason) -> number.
        gap_s: Longest pause of the loop around the last swap.
        lag_s: Age of the newest sample when it was taken.
        sink_dropped: Predictions that a sink (its index and kind) could not take.
        worker_pid: The worker, 0 while there is none; ``worker_rss_bytes`` its memory.
        worker_locks: Layer -> "" if it holds, else why not.
        in_flight: Samples taken and not ended.
        seq: Number of the next sample.
        watch: What the monitors say, by model version, in the order in which they
            began; after a rollback that of the model that answers is not the last.
        busy_s: How long the sample in flight has taken so far; 0 without one.
        budgets_ms: Version -> the p95 budget of its manifest.
        ladder: How much it is held back, and why.
        runs: Variant and executor that answer now where the ladder chose others than
            ``active`` says: ``small on litert 2.3.0 / xnnpack / 1``; else empty.
        stand_in: The same as preflight knows it; None where ``active`` runs.
        integrity: Whether what runs is still what was verified.
        stand_in_deaths: Deaths among ``restarts`` that a stand-in is blamed for.
        copy: ``own``: it is marked, and answered with this board's codeword when it
            was activated; ``marked``: only the first; empty: copies do not differ.
    """

    name: str
    model: str
    active: Installed | None
    state: str
    ready: bool
    reason: str
    counts: tuple[ModelCounts, ...]
    restarts: dict[str, int]
    swaps: dict[tuple[str, str], int]
    gap_s: float
    lag_s: float
    sink_dropped: dict[str, int]
    worker_pid: int = 0
    worker_rss_bytes: int = 0
    worker_locks: dict[str, str] = field(default_factory=dict)
    in_flight: int = 0
    seq: int = 1
    watch: tuple[ModelWatch, ...] = ()
    busy_s: float = 0.0
    budgets_ms: dict[int, float] = field(default_factory=dict)
    ladder: LadderState = field(default_factory=LadderState)
    runs: str = ""
    stand_in: Installed | None = None
    stand_in_deaths: int = 0
    integrity: IntegrityView = field(default_factory=IntegrityView)
    copy: CopyState = ""

    def active_watch(self) -> ModelWatch | None:
        """Return what the monitor of the model that answers says, if it has one."""
        if self.active is None:
            return None
        answers = (self.active.model, self.active.version)
        found = (it for it in self.watch if (it.model, it.version) == answers)
        return next(found, None)


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """The fleet's server that orders about this board, as its client sees it.

    Attributes:
        url: Its address.
        last_poll: Unix seconds of the last poll that was answered, 0 before the first.
        next_poll: Unix seconds of the next one, 0 while one is under way.
        action: Id of the open action, or empty; ``said`` is what was said of it last.
        download: Whether bytes may come: ``forced``, ``attempt``, ``skip``; empty
            without an action. ``update`` likewise, for the trial.
        window_open: The server's maintenance window is open, or there is none.
        held: Why this board had better not begin, or empty.
        outbox: How much the server has not been told yet.
        trouble: (reason, message) of what the last round stumbled over, or None.
        requests: ``ok``, ``unchanged``, ``refused`` or ``failed`` -> requests that
            were answered so, or not at all.
    """

    url: str
    last_poll: float = 0.0
    next_poll: float = 0.0
    action: str = ""
    said: str = ""
    download: str = ""
    update: str = ""
    window_open: bool = True
    held: str = ""
    outbox: int = 0
    trouble: tuple[str, str] | None = None
    requests: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UpdateSnapshot:
    """The update machine at one moment.

    Attributes:
        phase: Name of the phase it is in.
        results: (result, reason) -> updates that ended so.
        verify_failures: reason -> verifications that failed.
        bytes: kind (``full``, ``delta``, ``resumed``) -> bytes fetched.
        last_refusal: (reason, message) of the last refusal, or None.
        clock_floor_lag_s: Seconds the system clock is behind the clock floor, 0 if not.
        clock_floor: The clock floor itself, Unix seconds.
        orchestrator: Who writes the desired state: ``tuf``, ``push`` or ``ddi``.
        decisions: What is wanted of each pipeline, and why it does not run yet.
        progress: The update that is under way, or None.
        last_look: Unix seconds at which the repository was looked at with success.
        next_look: Unix seconds of the next look, 0 while one is under way.
        metadata_expires: Role -> Unix seconds at which its metadata expires.
        metadata_issued: Signed issue time of the newest metadata, Unix seconds.
        set_aside: Bundles that are not tried again here.
        revoked: Bundles that the owner revoked.
        trouble: (reason, message) of what the last look stumbled over, None where it
            succeeded.
        certificate_expires: Unix seconds at which this board's own certificate ends,
            0 without one.
        ddi: The fleet's server, where one orders about this board (``ddi``).
    """

    phase: str = "IDLE"
    results: dict[tuple[str, str], int] = field(default_factory=dict)
    verify_failures: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    last_refusal: tuple[str, str] | None = None
    clock_floor_lag_s: float = 0.0
    clock_floor: float = 0.0
    orchestrator: str = "tuf"
    decisions: tuple[Decision, ...] = ()
    progress: Progress | None = None
    last_look: float = 0.0
    next_look: float = 0.0
    metadata_expires: dict[str, float] = field(default_factory=dict)
    metadata_issued: float = 0.0
    set_aside: int = 0
    revoked: int = 0
    certificate_expires: float = 0.0
    trouble: tuple[str, str] | None = None
    ddi: ServerSnapshot | None = None


@dataclass(frozen=True, slots=True)
class AgentSnapshot:
    """The whole agent at one moment.

    Attributes:
        version: The agent's version.
        engines: Engine name -> version, of those its workers reported.
        daemon_rss_bytes: Resident memory of the daemon.
        now: When it was taken, Unix seconds by the board's clock; 0 where nobody said,
            and then no age of anything is known.
        board: The board's id in the fleet, empty where nobody said.
        log: The log of receipts; None where none are given.
        meter: What is paid for, where inferences are metered.
    """

    version: str
    engines: dict[str, str]
    pipelines: tuple[PipelineSnapshot, ...]
    update: UpdateSnapshot
    daemon_rss_bytes: int = 0
    now: float = 0.0
    board: str = ""
    log: LogView | None = None
    meter: MeterStatus | None = None
