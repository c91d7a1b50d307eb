"""What monitors say, as JSON: the part ``watch`` of ``/v1/state``.

The rules this module keeps:
 * Answers by label and by confidence are left out: metrics show them as far as privacy
   allows.
"""

from agent.core.watching import SEVERITIES, Alarm, ModelWatch

Json = dict[str, object]


def describe_watch(watch: ModelWatch) -> Json:
    """Return what one model version's monitor says; features that moved most first."""
    said = watch.monitored
    moved = sorted(said.features, key=lambda it: -abs(it.shift))
    return {
        "model": watch.model,
        "version": watch.version,
        "samples": said.samples,
        "interval": said.interval,
        "autocorrelation": said.autocorrelation,
        "spent_ms": said.spent_ns / 1e6,
        "share": said.share,
        "windows": said.windows,
        "window_samples": said.window_samples,
        "window_at": watch.window_at,
        "repeated": said.repeated,
        "invalid": said.invalid,
        "accuracy": said.accuracy if said.accuracy >= 0 else None,
        "anchors": said.anchors,
        "scores": said.scores,
        "alarms": [_describe_alarm(it, watch) for it in said.alarms],
        "features": moved,
    }


def _describe_alarm(alarm: Alarm, watch: ModelWatch) -> Json:
    """One alarm, with how grave it is and when it was raised last."""
    return {
        "anchor": alarm.anchor,
        "scope": alarm.scope,
        "severity": SEVERITIES[alarm.scope],
        "active": alarm.active,
        "confirmed": alarm.confirmed,
        "raised": alarm.raised,
        "detector": alarm.detector,
        "at": watch.last_alarm.get((alarm.anchor, alarm.scope), 0.0),
    }
