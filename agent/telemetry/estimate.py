"""How many series there will be: counted before anything runs.

Models are made up that say everything they can say, and collected as real ones are: the
estimate cannot forget a metric. Older versions are not in it; they are the last to go,
and there are none on the first day.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

from agent.core.counts import EMPTY
from agent.core.degradation import LadderState, Level, Measure
from agent.core.executors import Executor
from agent.core.installed import Installed
from agent.core.integrity import Checked, IntegrityView
from agent.core.manifest import Manifest
from agent.core.profile import find_reference, parse_profile
from agent.core.readings import BoardIdentity, BoardReadings
from agent.core.snapshot import (
    AgentSnapshot,
    ModelCounts,
    PipelineSnapshot,
    UpdateSnapshot,
)
from agent.core.statistics_block import MAX_LABELS
from agent.core.watching import (
    ANCHORS,
    Alarm,
    AnchorState,
    Detector,
    FeatureDrift,
    ModelWatch,
    Monitored,
    Scope,
    Score,
)
from agent.errors import BundleRefusedError
from agent.settings import MonitorSettings, Settings
from agent.telemetry.budget import OWN_SERIES
from agent.telemetry.collect import collect
from agent.telemetry.families import Families

# Where no model is at hand to be asked: an image has 15 features, a spectrogram 16, and
# the four models this was measured with have 2, 10, 10 and 12 labels.
USUAL_FEATURES = 15
USUAL_LABELS = 12
# What a Raspberry Pi with an eMMC says, and a second sensor.
_BOARD = BoardReadings(
    temperatures=(("cpu", 50.0), ("gpu", 50.0)),
    throttled=tuple((str(k), False) for k in range(4)),
    cpu_frequency_hertz=1.0,
    cpu_frequency_max_hertz=1.0,
    governor="ondemand",
    memory_available_bytes=1.0,
    memory_size_bytes=1.0,
    pressure_seconds=(
        ("cpu", "waiting", 0.0),
        ("memory", "waiting", 0.0),
        ("memory", "stalled", 0.0),
        ("io", "waiting", 0.0),
        ("io", "stalled", 0.0),
    ),
    disk_free_bytes=1.0,
    disk_size_bytes=1.0,
    disk_wear=(("mmcblk0", 0.1),),
    disk_written_bytes=(("mmcblk0", 1.0),),
    cooling=(("cpufreq-cpu0", 0.0), ("pwm-fan", 0.0)),
    clock_synchronised=True,
    identity=BoardIdentity(kernel="6"),
)
# A pipeline that was once too hot, for long, and has come back.
_CHECKED = IntegrityView(
    wanted=True, now=Checked(bytes={"source": 1, "packed": 1}), since_pass_s=0.0
)
_HELD = LadderState(
    measures=tuple(Measure),
    transitions=tuple(
        (level, reason, 1) for level in Level for reason in ("heat", "calm")
    ),
)
_SCOPES: tuple[Scope, ...] = ("input", "output", "all")
_DETECTORS: tuple[Detector, ...] = ("mewma", "etable")


class Content(Protocol):
    """What a bundle says about a model, as far as it is counted here."""

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""

    @property
    def profile(self) -> bytes:
        """Its profile, empty without one."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a pipeline's model will say.

    Attributes:
        labels: Different answers, at most.
        features: What its monitor looks at; 0 for one that is not watched.
    """

    pipeline: str
    model: str
    version: int = 1
    labels: int = USUAL_LABELS
    features: int = USUAL_FEATURES


def expect(pipeline: str, content: Content, variant: str) -> Expected:
    """Return what a model that is known will say.

    Args:
        pipeline: Where it runs.
        content: Its bundle.
        variant: Name of the variant that runs.
    """
    manifest = content.manifest
    labels = min(len(manifest.labels), MAX_LABELS + 1) or USUAL_LABELS
    known = Expected(pipeline, manifest.model, manifest.version, labels, features=0)
    if manifest.monitor.keep == "nothing":
        return known
    return replace(known, features=_count_features(content, variant))


def usual_models(settings: Settings) -> tuple[Expected, ...]:
    """Return what the settings' pipelines will say, whatever their models are."""
    return tuple(Expected(it.name, it.model) for it in settings.pipeline)


def expected_families(models: Iterable[Expected], monitor: MonitorSettings) -> Families:
    """Return a scrape in which every model says everything it can say."""
    shown = tuple(_pipeline(it, monitor) for it in models)
    families = collect(AgentSnapshot("", {}, shown, UpdateSnapshot(), now=1.0), _BOARD)
    families.add("tinyward_monitor_cpu_budget_ratio", monitor.cpu_share)
    families.add("tinyward_scrape_duration_seconds", 0.0)
    return families


def estimate_series(models: Iterable[Expected], monitor: MonitorSettings) -> int:
    """Return about how many series there will be once everything was said."""
    return sum(expected_families(models, monitor).tally().values()) + OWN_SERIES


def _count_features(content: Content, variant: str) -> int:
    """Return how many features a profile names; the usual number without a good one."""
    try:
        profile = parse_profile(content.profile)
        sha256 = content.manifest.variant(variant).sha256
        return len(find_reference(profile, content.manifest, sha256).features)
    except BundleRefusedError:  # there is none, or it is told when the model is loaded
        return USUAL_FEATURES


def _pipeline(model: Expected, monitor: MonitorSettings) -> PipelineSnapshot:
    """Return a pipeline whose model has answered every label, and is watched."""
    labels = 1 if monitor.privacy else model.labels
    answered = replace(
        EMPTY, labels=(*(1,) * labels, *(0,) * (MAX_LABELS + 1 - labels))
    )
    words = tuple(str(k) for k in range(labels))
    executor = Executor("litert", "xnnpack", 1, "")
    installed = Installed(model.model, model.version, "", 0, "", executor)
    watched = monitor.cpu_share > 0 and model.features > 0
    said = _monitored(model.features) if watched else Monitored()
    return PipelineSnapshot(
        name=model.pipeline,
        model=model.model,
        active=installed,
        state="active",
        ready=True,
        reason="",
        counts=(ModelCounts(model.model, model.version, words, answered),),
        restarts={},
        swaps={},
        gap_s=0.0,
        lag_s=0.0,
        sink_dropped={"0": 0},
        watch=(ModelWatch(model.model, model.version, said, window_at=1.0),),
        budgets_ms={model.version: 1.0},
        ladder=_HELD,
        integrity=_CHECKED,
    )


def _monitored(features: int) -> Monitored:
    """Return what a monitor says that compares with both anchors."""
    scores = [Score("shipped", "stuck", "repeat", 0.0)]
    alarms = [Alarm("shipped", "stuck", active=False)]
    for anchor in ANCHORS:
        scores.append(Score(anchor, "prediction", "chi2", 0.0))
        alarms.append(Alarm(anchor, "prediction", active=False))
        alarms += [Alarm(anchor, scope, active=False) for scope in _SCOPES]
        pairs = product(_SCOPES, _DETECTORS)
        scores += [Score(anchor, scope, which, 0.0) for scope, which in pairs]
    names = range(features)
    return Monitored(
        samples=1,
        anchors=tuple(AnchorState(it, valid=True, wanted=1) for it in ANCHORS),
        scores=tuple(scores),
        alarms=tuple(alarms),
        features=tuple(
            FeatureDrift(anchor, f"f{k}", 0.0) for anchor in ANCHORS for k in names
        ),
        accuracy=1.0,
    )
