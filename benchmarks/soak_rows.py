"""What a soak comes to: looks, marks and durations -> rows. Pure."""

from collections.abc import Mapping, Sequence
from math import isfinite

from benchmarks.rows import Row, median
from benchmarks.soak_board import DEADLINE_S, FULL, PIPELINES, STEADY
from benchmarks.soak_looks import (
    Look,
    Mark,
    descriptor_growth,
    rss_slope,
    windows,
)

MB_PER_H, KILLED_S, STOPPED_S = 1.0, 1.5, DEADLINE_S + 1.5
HITS = ("kill", "stop")
# An update offered in the last seconds has no time to be committed.
LATE_S = 15.0


def soak_rows(
    looks: Sequence[Look],
    marks: Sequence[Mark],
    replaced_s: Mapping[str, Sequence[float]],
    missed: int,
    warm_up_s: float,
) -> list[Row]:
    """Return everything a soak found out; nothing without two looks."""
    if len(looks) < 2:
        return []
    settled = [look for look in looks if look.at_s >= warm_up_s]
    return [
        *_samples(looks, marks),
        *_updates(looks, marks),
        *_restarts(looks[-1], marks, replaced_s),
        *_memory(settled),
        *_latency(looks),
        _row("scrapes without an answer", missed, "", 0),
        _typical("scrape", [look.scrape_ms for look in looks]),
    ]


def _samples(looks: Sequence[Look], marks: Sequence[Mark]) -> list[Row]:
    """Nothing is lost, and only what was in flight in a worker that died failed."""
    last = looks[-1]
    hits = sum(mark.kind in HITS for mark in marks)
    lower = sum(look.fallen for look in looks)
    return [
        _row("time", last.at_s / 60, "min"),
        _row("samples", last.received, ""),
        _row("samples lost", max(abs(look.lost) for look in looks), "", 0),
        _row("samples not numbered", abs(last.numbered - last.received), "", 0),
        _row("samples failed, beyond one a hit", max(0, last.failed - hits), "", 0),
        _row("counters that fell", lower, "", 0),
    ]


def _updates(looks: Sequence[Look], marks: Sequence[Mark]) -> list[Row]:
    """Each version answers, but for those whose worker was hit on their trial."""
    offered = [mark for mark in marks if mark.kind == "update"]
    committed = {pair for look in looks for pair in look.versions.items()}
    open_ = [it for it in offered if (it.pipeline, it.version) not in committed]
    unhit = [it for it in open_ if not _was_hit(it, marks, looks[-1].at_s)]
    return [
        _row("updates offered", len(offered), ""),
        _row("updates committed", len(offered) - len(open_), ""),
        _row("updates not committed, though nothing hit them", len(unhit), "", 0),
    ]


def _was_hit(update: Mark, marks: Sequence[Mark], end_s: float) -> bool:
    """Whether a worker died, or the soak ended, before the next version was offered.

    A repository that is gone only delays an update.
    """
    later = [it.at_s for it in marks if it.kind == "update" and it.at_s > update.at_s]
    until_s = later[1] if len(later) > 1 else end_s  # the next one of its pipeline
    hit = any(
        mark.kind in HITS
        and mark.pipeline == update.pipeline
        and update.at_s - 1 <= mark.at_s <= until_s
        for mark in marks
    )
    return hit or end_s - update.at_s < LATE_S


def _restarts(
    last: Look, marks: Sequence[Mark], replaced_s: Mapping[str, Sequence[float]]
) -> list[Row]:
    """As many workers were replaced as were hit, and soon."""
    hits = sum(mark.kind in HITS for mark in marks)
    seen = sum(last.restarts.values())
    rows = [
        _row("workers hit", hits, ""),
        _row("workers replaced, beyond those hit", abs(seen - hits), "", 0),
    ]
    targets = {"kill": KILLED_S, "stop": STOPPED_S}
    names = {"kill": "SIGKILL", "stop": "SIGSTOP"}
    for kind, target in targets.items():
        if replaced_s.get(kind):
            value, spread = median(replaced_s[kind])
            name = f"{names[kind]} to an answer of another worker"
            rows.append(_row(name, value, "s", target, spread))
            rows.append(_row(f"{name}, worst", max(replaced_s[kind]), "s"))
    return rows


def _memory(looks: Sequence[Look]) -> list[Row]:
    """Neither memory nor descriptors grow. Short-lived workers tell little of it."""
    targets = {"daemon": MB_PER_H, STEADY: MB_PER_H, FULL: None}
    names = {"daemon": "daemon", STEADY: "worker", FULL: "workers that are replaced"}
    rows = []
    for role, target in targets.items():
        slope, grown = rss_slope(looks, role), descriptor_growth(looks, role)
        if isfinite(slope.mb_per_h):
            name = f"{names[role]}: RSS after warm-up"
            rows.append(_row(name, slope.mb_per_h, "MB/h", target, slope.error))
        if isfinite(grown):
            rows.append(_row(f"{names[role]}: descriptors more", grown, "", 0))
    return rows


def _latency(looks: Sequence[Look]) -> list[Row]:
    """How slow the slowest hundredth was, ten seconds at a time."""
    rows = []
    for pipeline in PIPELINES:
        found = [window.p99_ms for window in windows(looks, pipeline)]
        name = f"{pipeline}: p99 of 10 s"
        if found:
            rows.append(_typical(name, found))
            rows.append(_row(f"{name}, worst", max(found), "ms"))
        third = len(found) // 3
        if third:
            ratio = median(found[-third:])[0] / median(found[:third])[0]
            rows.append(_row(f"{name}, last third / first", ratio, ""))
    return rows


def _typical(measure: str, values_ms: Sequence[float]) -> Row:
    """Return the median of durations."""
    value, spread = median(values_ms)
    return _row(measure, value, "ms", None, spread)


def _row(
    measure: str,
    value: float,
    unit: str,
    target: float | None = None,
    spread: float = 0.0,
) -> Row:
    """Return a row of this benchmark."""
    return Row("soak", measure, value, unit, target, spread=spread)
