"""What a board answers, as the command line reads it.

The rules this module keeps:
 * Boards are of all ages: a key that is not known here is passed over, one that is
   not there has a default, and ``null`` means the same as not there.
"""

from msgspec import Struct

from agent.core.reasons import Reason
from agent.core.updates import Decision, Progress, Report, SetAside

IDLE = "IDLE"


class Refusal(Struct, frozen=True):
    """Something that was refused, or that a look stumbled over."""

    reason: str = ""
    message: str = ""


class Active(Struct, frozen=True):
    """The model that answers in a pipeline."""

    model: str
    version: int
    sha256: str = ""
    variant: str = ""
    executor: str = ""


class AnchorAnswer(Struct, frozen=True):
    """What a monitor compares with, or why it does not."""

    anchor: str
    valid: bool = False
    reason: str = ""
    detail: str = ""
    calibration: str = ""
    collected: int = 0
    wanted: int = 0


class ScoreAnswer(Struct, frozen=True):
    """One statistic over its threshold."""

    anchor: str
    scope: str
    detector: str = ""
    ratio: float | None = 0.0


class AlarmAnswer(Struct, frozen=True):
    """One alarm; ``at`` is when it was raised last, Unix seconds, 0 for never."""

    anchor: str
    scope: str
    severity: str = ""
    active: bool = False
    confirmed: bool = False
    raised: int = 0
    at: float | None = 0.0


class FeatureAnswer(Struct, frozen=True):
    """One feature beside its reference."""

    anchor: str
    feature: str
    shift: float | None = 0.0
    psi: float | None = 0.0
    ks: float | None = 0.0


class WatchAnswer(Struct, frozen=True):
    """What the monitor of one model version says; a share is of its worker's time."""

    model: str
    version: int
    samples: int = 0
    interval: int = 1
    autocorrelation: float | None = 0.0
    share: float | None = 0.0
    repeated: int = 0
    invalid: dict[str, int] = {}
    accuracy: float | None = None
    anchors: tuple[AnchorAnswer, ...] = ()
    scores: tuple[ScoreAnswer, ...] = ()
    alarms: tuple[AlarmAnswer, ...] = ()
    features: tuple[FeatureAnswer, ...] = ()


class SamplesAnswer(Struct, frozen=True):
    """Samples of one version by outcome, since its daemon began."""

    ok: int = 0
    failed: int = 0
    dropped: int = 0


class StageAnswer(Struct, frozen=True):
    """Percentiles of one stage in milliseconds, None without a sample."""

    count: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class ModelAnswer(Struct, frozen=True):
    """What one model version answered, and how fast, by stage.

    Attributes:
        budget_ms: The p95 that its bundle declares.
    """

    model: str
    version: int
    samples: SamplesAnswer = SamplesAnswer()
    latency_ms: dict[str, StageAnswer] = {}
    budget_ms: float | None = None


class PassedOverAnswer(Struct, frozen=True):
    """A variant on an executor that was tried, and why it does not run."""

    variant: str
    executor: str = ""
    reason: str = ""
    detail: str = ""


class ChoiceAnswer(Struct, frozen=True):
    """Why this variant on this executor, and what was passed over for it."""

    why: str = ""
    passed_over: tuple[PassedOverAnswer, ...] = ()


class LadderAnswer(Struct, frozen=True):
    """How much a pipeline is held back; ``since`` in Unix seconds, 0 for never."""

    level: str = "normal"
    since: float | None = 0.0
    reasons: tuple[str, ...] = ()
    detail: str = ""
    measures: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


class IntegrityAnswer(Struct, frozen=True):
    """Whether what runs is what was verified: a line, and what was found last."""

    text: str = ""
    mismatches: dict[str, int] | None = None
    last: str = ""
    last_ago_s: float | None = None


class PipelineState(Struct, frozen=True):
    """One pipeline; ``model`` is the one that its settings name."""

    model: str = ""
    state: str = ""
    ready: bool = False
    reason: str = ""
    active: Active | None = None
    ladder: LadderAnswer | None = None
    watch: tuple[WatchAnswer, ...] | None = ()
    models: tuple[ModelAnswer, ...] | None = ()
    choice: ChoiceAnswer | None = None
    integrity: IntegrityAnswer | None = None
    copy: str | None = ""  # whose; empty where copies do not differ
    sealed: bool | None = False
    runs: str | None = ""  # instead of the choice, for a while


class ServerAnswer(Struct, frozen=True):
    """The fleet's server that orders about a board; moments are Unix seconds."""

    url: str | None = ""
    last_poll: float | None = 0.0
    next_poll: float | None = 0.0
    action: str | None = ""
    said: str | None = ""
    download: str | None = ""
    update: str | None = ""
    window_open: bool | None = True
    held: str | None = ""
    outbox: int | None = 0
    trouble: Refusal | None = None


class UpdateState(Struct, frozen=True):
    """The update machine; moments are Unix seconds, None and 0 for never."""

    phase: str = IDLE
    orchestrator: str | None = ""
    decisions: tuple[Decision, ...] | None = ()
    progress: Progress | None = None
    last_refusal: Refusal | None = None
    trouble: Refusal | None = None
    verify_failures: dict[str, int] = {}
    last_look: float | None = 0.0
    next_look: float | None = 0.0
    metadata_expires: dict[str, float] | None = {}
    metadata_issued: float | None = 0.0
    clock_floor: float | None = 0.0
    clock_floor_lag_s: float | None = 0.0
    certificate_expires: float | None = 0.0
    set_aside: int | None = 0
    revoked: int | None = 0
    ddi: ServerAnswer | None = None


class PaidAnswer(Struct, frozen=True):
    """One pipeline beside the meter; one sample in ``every`` where it is thinned."""

    policy: str = ""
    every: int = 1
    allowed: int = 0
    reason: str = ""

    @property
    def is_thinned(self) -> bool:
        """Whether it answers one sample in so many, for want of units."""
        return self.policy == "degrade" and self.reason == Reason.UNPAID


class MeterAnswer(Struct, frozen=True):
    """What is paid for, where a board's inferences are."""

    left: int = 0
    owed: int = 0
    unlimited: bool = False
    trouble: str = ""
    pipelines: dict[str, PaidAnswer] = {}


class LogAnswer(Struct, frozen=True):
    """The log of receipts, where a board gives them."""

    records: int = 0
    lost: int = 0
    unsigned: int = 0
    trouble: str = ""
    aside: int = 0
    gaps: int = 0


class State(Struct, frozen=True):
    """``GET /v1/state``.

    Attributes:
        board: The board's id in the fleet, empty from boards that do not say it.
        now: The board's own clock, Unix seconds; 0 likewise.
    """

    version: str = ""
    ready: bool = False
    board: str | None = ""
    now: float | None = 0.0
    engines: dict[str, str] = {}
    update: UpdateState = UpdateState()
    pipelines: dict[str, PipelineState] = {}
    meter: MeterAnswer | None = None
    audit: LogAnswer | None = None

    def decisions(self) -> dict[str, Decision]:
        """Return the decisions by pipeline."""
        return {each.pipeline: each for each in self.update.decisions or ()}


class EventAnswer(Struct, frozen=True):
    """One line of the board's log; ``at`` by the board's clock, Unix seconds."""

    id: int = 0
    at: float = 0.0
    level: str = "info"
    name: str = ""
    fields: dict[str, str] = {}


class Events(Struct, frozen=True):
    """``GET /v1/events``: what was logged, oldest first, and the newest number."""

    events: tuple[EventAnswer, ...] = ()
    last: int = 0


class Updates(Struct, frozen=True):
    """``GET /v1/updates``: what goes on, what was, and what is not tried again."""

    progress: Progress | None = None
    reports: tuple[Report, ...] = ()
    quarantine: tuple[SetAside, ...] = ()

    def newest_id(self) -> int:
        """Return the number of the newest report, 0 without any."""
        return max((report.id for report in self.reports), default=0)


class Receipt(Struct, frozen=True):
    """What a board has of an upload."""

    offset: int
    complete: bool = False


class Problem(Struct, frozen=True):
    """``application/problem+json`` (RFC 9457), with our reason and what to do."""

    title: str = ""
    detail: str = ""
    reason: str = ""
    todo: str = ""
    error: str = ""  # what a listener without reasons says


class Taken(Struct, frozen=True):
    """What a board says about a request that it took on."""

    phase: str = ""
    pipeline: str = ""
    generation: int = 0
