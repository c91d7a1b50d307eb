"""What a monitor says as the page shows it: sentences, alarms, what moved most.

The rules this module keeps:
 * JSON only, and numbers of four digits: more are noise.
 * A feature stands beside the anchor that it is compared with, in words.
"""

from math import isfinite

from agent.core.reasons import Reason
from agent.core.trend import highest_score
from agent.core.watching import Anchor, ModelWatch, Monitored
from agent.endpoint.live_words import (
    ANCHORS,
    alarm_level,
    as_sentence,
    explain,
    say_alarm,
    say_anchor,
)
from agent.endpoint.state import Json

SHOWN = 6  # features beside each anchor: what an eye takes in


def short(value: float | None) -> float | None:
    """Return a number in four digits; None for what was never measured.

    >>> short(12.34567), short(float("nan")), short(None)
    (12.35, None, None)
    """
    if value is None:
        return None
    shown = float(f"{value:.4g}")
    return shown if isfinite(shown) else None  # the largest floats round to infinity


def describe_shown_watch(watch: ModelWatch | None) -> Json | None:
    """What a monitor says; None where nothing is watched."""
    if watch is None:
        return None
    said = watch.monitored
    alarms = [it for it in said.alarms if it.active]
    return {
        "score": short(highest_score(watch)),
        "samples": said.samples,
        "interval": said.interval,
        "share": short(said.share),
        "accuracy": short(said.accuracy) if said.accuracy >= 0 else None,
        "repeated": said.repeated,
        "invalid": sum(said.invalid.values()),
        "unwatched": _say_unwatched(said),
        "compares": any(it.valid for it in said.anchors),
        "anchors": [
            {
                "anchor": it.anchor,
                "valid": it.valid,
                "text": say_anchor(it, waits=bool(alarms)),
            }
            for it in said.anchors
        ],
        "alarms": [
            {
                "text": say_alarm(it),
                "level": alarm_level(it),
                "at": watch.last_alarm.get((it.anchor, it.scope), 0.0),
            }
            for it in alarms
        ],
        "moved": [
            {"beside": ANCHORS[anchor], "features": _most_moved(anchor, said)}
            for anchor in dict.fromkeys(it.anchor for it in said.features)
        ],
    }


def _say_unwatched(said: Monitored) -> str:
    """Return why a model is not watched at all, empty where it is."""
    if not said.anchors or any(it.reason != Reason.UNWATCHED for it in said.anchors):
        return ""
    why = said.anchors[0].detail or explain(Reason.UNWATCHED)
    return as_sentence(f"Not watched: {why}")


def _most_moved(anchor: Anchor, said: Monitored) -> list[Json]:
    """Return the features that are farthest from one anchor."""
    rows = [it for it in said.features if it.anchor == anchor]
    rows.sort(key=lambda row: -abs(row.shift))
    return [
        {"feature": it.feature, "shift": short(it.shift), "psi": short(it.psi)}
        for it in rows[:SHOWN]
    ]
