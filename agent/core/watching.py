"""What a monitor says about its input, its model and itself, as others see it.

The monitor itself lives in the worker (``agent.worker.watch``) and computes with numpy
(``agent.core.drift``); what it says crosses to the daemon in these values, which need
neither. They come from a worker, which is not trusted: every number and length is
bounded.

Words: an *anchor* is what the present is compared with, ``shipped`` (the profile in the
bundle) or ``site`` (what this board saw after its commissioning); a *scope* is what is
compared.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Anchor = Literal["shipped", "site"]
# What is compared: input features, output confidence, all features together, the
# predicted classes, and whether the input moves at all.
Scope = Literal["input", "output", "all", "prediction", "stuck"]
Detector = Literal["mewma", "etable", "chi2", "repeat"]
Severity = Literal["warning", "critical"]
ANCHORS: tuple[Anchor, ...] = ("shipped", "site")
SCOPES: tuple[Scope, ...] = ("input", "output", "all", "prediction", "stuck")
# A stuck camera and a model that has lost its confidence cost answers now; an input
# that merely moved may be a new season.
SEVERITIES: dict[Scope, Severity] = {
    "input": "warning",
    "all": "warning",
    "prediction": "warning",
    "output": "critical",
    "stuck": "critical",
}
# Features of the output; what an inner tensor shows (``axis0``...) is neither, and only
# part of all together. Said here, where no numpy is needed to know it.
OUTPUT_FEATURES = frozenset({"confidence", "entropy", "score", "boxes"})
INNER_PREFIX = "axis"
CONFIDENCE_BUCKETS = 10  # of equal width, from 0 to 1
MAX_FEATURES = 40  # 32 channels of a sensor vector and 8 more

Count = Annotated[int, Meta(ge=0, lt=2**62)]
Ratio = Annotated[float, Meta(ge=0, le=1e9)]
Number = Annotated[float, Meta(ge=-1e9, le=1e9)]
Sum = Annotated[float, Meta(ge=0, lt=2**62)]  # of ratios, as many as a Count may be
FeatureName = Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,32}$(?!\n)")]
Detail = Annotated[str, Meta(max_length=500)]


class AnchorState(Struct, frozen=True):
    """Whether there is something to compare with.

    Attributes:
        valid: Samples are compared with it.
        reason: A ``Reason`` word that says why not; ``detail`` the same for people.
        digest: SHA-256 of the reference, empty without one.
        calibration: How its thresholds were found: ``grouped``, ``iid``, ``table``...
        collected: Site: samples collected so far, of ``wanted``.
    """

    anchor: Anchor
    valid: bool
    reason: Annotated[str, Meta(max_length=64)] = ""
    detail: Detail = ""
    digest: Annotated[str, Meta(max_length=64)] = ""
    calibration: Annotated[str, Meta(max_length=64)] = ""
    collected: Count = 0
    wanted: Count = 0


class Score(Struct, frozen=True):
    """One statistic over its threshold: above 1 it alarms.

    For ``etable`` it is ``log(M) / log(threshold)``.
    """

    anchor: Anchor
    scope: Scope
    detector: Detector
    ratio: Ratio


class Alarm(Struct, frozen=True):
    """One latched alarm.

    Attributes:
        active: Raised and not cleared.
        confirmed: The detector with the theoretical threshold agrees.
        raised: How often it was raised in this worker's life.
        detector: What raised it last, at this ``score``.
        evidence: Score of the detector that confirmed it, as it did so.
    """

    anchor: Anchor
    scope: Scope
    active: bool
    confirmed: bool = False
    raised: Count = 0
    detector: Detector = "mewma"
    score: Ratio = 0.0
    evidence: Ratio = 0.0


class KeptAlarm(Struct, frozen=True, forbid_unknown_fields=True):
    """An active alarm as it is kept for a later daemon.

    Attributes:
        at: Unix seconds at which it was raised last, 0 for unknown.
        confirmed: As in ``Alarm``.
    """

    anchor: Anchor
    scope: Scope
    at: Annotated[float, Meta(ge=0, lt=2**62)] = 0.0
    confirmed: bool = False


class FeatureDrift(Struct, frozen=True):
    """One feature beside its reference; diagnostics, never an alarm.

    Attributes:
        shift: Mean of now less that of the reference, in its standard deviations.
        psi: Population stability index of the last window, see ``agent.core.drift``.
        ks: Kolmogorov-Smirnov distance of the last window.
    """

    anchor: Anchor
    feature: FeatureName
    shift: Number
    psi: Ratio = 0.0
    ks: Ratio = 0.0


class Monitored(Struct, frozen=True):
    """Everything one model's monitor says, counted since its worker loaded it.

    Attributes:
        samples: Samples that were watched.
        interval: One in so many is watched now.
        autocorrelation: Measured lag-1 autocorrelation of watched samples.
        spent_ns: Time that watching took.
        share: Its share of the time since the report before.
        windows: Windows closed, of ``window_samples`` each.
        confidence: Watched answers by confidence, in ``CONFIDENCE_BUCKETS``;
            ``confidence_sum`` their sum.
        repeated: Watched inputs that were bit for bit the one before.
        invalid: What was wrong with inputs (``nan``, ``range``, ``shape``) -> samples.
        accuracy: Estimated share of right answers (ATC), -1 where it is not known.
        predictions: Watched answers by label, as counted when the last window closed.
    """

    samples: Count = 0
    interval: Count = 1
    autocorrelation: Annotated[float, Meta(ge=-1, le=1)] = 0.0
    spent_ns: Count = 0
    share: Ratio = 0.0
    windows: Count = 0
    window_samples: Count = 0
    anchors: Annotated[tuple[AnchorState, ...], Meta(max_length=2)] = ()
    scores: Annotated[tuple[Score, ...], Meta(max_length=32)] = ()
    alarms: Annotated[tuple[Alarm, ...], Meta(max_length=16)] = ()
    features: Annotated[
        tuple[FeatureDrift, ...], Meta(max_length=2 * MAX_FEATURES)
    ] = ()
    confidence: Annotated[tuple[Count, ...], Meta(max_length=CONFIDENCE_BUCKETS)] = (
        0,
    ) * CONFIDENCE_BUCKETS
    confidence_sum: Sum = 0.0
    repeated: Count = 0
    invalid: Annotated[
        dict[Literal["nan", "range", "shape"], Count], Meta(max_length=3)
    ] = {}
    accuracy: Annotated[float, Meta(ge=-1, le=1)] = -1.0
    predictions: Annotated[tuple[Count, ...], Meta(max_length=65)] = ()


class ModelWatch(Struct, frozen=True):
    """One model version's monitor as the daemon knows it: over all its workers.

    Attributes:
        monitored: Counters summed over workers, gauges of the last one.
        last_alarm: (anchor, scope) -> Unix seconds at which it was raised last.
        window_at: Unix seconds at which the last window closed, 0 for never.
    """

    model: str
    version: int
    monitored: Monitored
    last_alarm: dict[tuple[str, str], float] = {}
    window_at: float = 0.0


def is_compared(feature: str, scope: Scope) -> bool:
    """Return whether a feature is part of what a scope compares.

    >>> is_compared("entropy", "output"), is_compared("sd", "output")
    (True, False)
    >>> is_compared("axis0", "input"), is_compared("axis0", "all")
    (False, True)
    """
    if scope == "output":
        return feature in OUTPUT_FEATURES
    if scope == "input":
        inner = feature.startswith(INNER_PREFIX)
        return not inner and feature not in OUTPUT_FEATURES
    return scope == "all"
