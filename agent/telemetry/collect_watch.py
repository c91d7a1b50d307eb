"""From what the monitors say to families.

The rules this module keeps:
 * It came from a worker, which is not trusted: a label's value is a word that is known,
   a digest, or a feature's name of bounded form.
 * Gauges are shown of the model that answers; of others the last alarm would never
   clear. Counters are shown of all, and start at 0.
 * Where nothing is compared or watched yet a gauge is absent: 0 would be good news.
"""

import re
from collections.abc import Container
from itertools import accumulate

from agent.core.reasons import Reason
from agent.core.watching import (
    CONFIDENCE_BUCKETS,
    AnchorState,
    ModelWatch,
    Monitored,
    Score,
)
from agent.telemetry.families import Families, Part
from agent.telemetry.ranks import Rank

INVALID = ("nan", "range", "shape")
REASONS = frozenset(map(str, Reason))
CALIBRATIONS = frozenset({"grouped", "iid", "ordered", "site", "table", ""})
_STEPS = range(1, CONFIDENCE_BUCKETS + 1)
_BOUNDS = (*(step / CONFIDENCE_BUCKETS for step in _STEPS), float("inf"))
_DIGEST = re.compile(r"[0-9a-f]{64}")
Who = tuple[str, str, str]


def collect_watch(
    families: Families, pipeline: str, watch: ModelWatch, age: int
) -> None:
    """Add what one model's monitor says.

    Args:
        families: Where to.
        pipeline: Whose model it is.
        watch: What it says.
        age: Its rank; 0 is the model that answers.
    """
    who = (pipeline, watch.model, str(watch.version))
    families.part = Part(pipeline, age)
    _add_counters(families, who, watch.monitored)
    if age == Rank.ESSENTIAL:
        _add_state(families, who, watch)
        _add_scores(families, who, watch)
    families.part = Part(pipeline, Rank.FEATURES)
    _add_confidence(families, who, watch.monitored)
    if age == Rank.ESSENTIAL:
        _add_features(families, who, watch.monitored)


def _add_counters(families: Families, who: Who, monitored: Monitored) -> None:
    """What only rises."""
    families.add("tinyward_drift_samples_total", monitored.samples, *who)
    families.add("tinyward_input_repeated_total", monitored.repeated, *who)
    invalid: dict[str, int] = dict.fromkeys(INVALID, 0) | monitored.invalid
    for reason, count in invalid.items():
        families.add("tinyward_input_invalid_total", count, *who, reason)
    families.add("tinyward_monitor_seconds_total", monitored.spent_ns / 1e9, *who)
    # Whatever is compared can alarm, and has not yet.
    raised = {(score.anchor, score.scope): 0 for score in monitored.scores}
    raised |= {(alarm.anchor, alarm.scope): alarm.raised for alarm in monitored.alarms}
    for (anchor, scope), count in raised.items():
        families.add("tinyward_drift_alarms_total", count, *who, anchor, scope)


def _add_state(families: Families, who: Who, watch: ModelWatch) -> None:
    """How the monitor works now, and what it compares with."""
    now = watch.monitored
    if now.samples:
        families.add("tinyward_drift_sampling_interval", now.interval, *who)
        families.add("tinyward_drift_autocorrelation_ratio", now.autocorrelation, *who)
        families.add("tinyward_monitor_cpu_share_ratio", now.share, *who)
    if now.accuracy >= 0:
        families.add("tinyward_estimated_accuracy_ratio", now.accuracy, *who, "atc")
    if watch.window_at:
        families.add("tinyward_drift_window_timestamp_seconds", watch.window_at, *who)
    for anchor in now.anchors:
        _add_anchor(families, who, anchor)


def _add_anchor(families: Families, who: Who, state: AnchorState) -> None:
    """One reference: which it is, whether it can be used, how much of it is there."""
    reason = _known(state.reason, REASONS)
    families.add(
        "tinyward_drift_reference_valid",
        float(state.valid),
        *who,
        state.anchor,
        reason,
    )
    if state.valid:
        families.add_info(
            "tinyward_drift_reference_info",
            *who,
            state.anchor,
            _known(state.calibration, CALIBRATIONS),
            state.digest if _DIGEST.fullmatch(state.digest) else "",
        )
    if state.wanted:
        collected = min(1.0, state.collected / state.wanted)
        families.add("tinyward_drift_collected_ratio", collected, *who, state.anchor)


def _add_scores(families: Families, who: Who, watch: ModelWatch) -> None:
    """Scores over their thresholds, and the alarms they raised."""
    now = watch.monitored
    compared = _compared(now)
    for score in compared:
        labels = (*who, score.anchor, score.scope, score.detector)
        families.add("tinyward_drift_score_ratio", score.ratio, *labels)
    scopes = {(score.anchor, score.scope) for score in compared}
    for alarm in now.alarms:
        # One that is active was compared: it is told whatever became of its reference.
        if not alarm.active and (alarm.anchor, alarm.scope) not in scopes:
            continue
        where = (*who, alarm.anchor, alarm.scope)
        families.add("tinyward_drift_active", float(alarm.active), *where)
        families.add("tinyward_drift_confirmed", float(alarm.confirmed), *where)
    for scope, raised_at in watch.last_alarm.items():
        name = "tinyward_drift_last_alarm_timestamp_seconds"
        families.add(name, raised_at, *who, *scope)


def _compared(monitored: Monitored) -> tuple[Score, ...]:
    """Return the scores that something was compared for.

    Whether the input moves at all is compared with the sample before: that needs no
    reference, only a sample.
    """
    if not monitored.samples:
        return ()
    valid = {state.anchor for state in monitored.anchors if state.valid}
    return tuple(
        score
        for score in monitored.scores
        if score.scope == "stuck" or score.anchor in valid
    )


def _add_features(families: Families, who: Who, monitored: Monitored) -> None:
    """What explains a drift."""
    valid = {state.anchor for state in monitored.anchors if state.valid}
    for one in monitored.features:
        if one.anchor not in valid:
            continue
        labels = (*who, one.anchor, one.feature)
        families.add("tinyward_drift_feature_psi", one.psi, *labels)
        families.add("tinyward_drift_feature_ks", one.ks, *labels)
        families.add("tinyward_drift_feature_shift_stddevs", one.shift, *labels)


def _add_confidence(families: Families, who: Who, monitored: Monitored) -> None:
    """Answers by confidence: above 1 there is nothing, and the format wants +Inf."""
    missing = (0,) * (CONFIDENCE_BUCKETS - len(monitored.confidence))
    counts = accumulate((*monitored.confidence, *missing, 0))
    families.add_histogram(
        "tinyward_output_confidence_ratio",
        list(zip(_BOUNDS, counts, strict=True)),
        monitored.confidence_sum,
        *who,
    )


def _known(word: str, words: Container[str]) -> str:
    """Return a word if it is one of those that are known."""
    return word if word in words else "other"
