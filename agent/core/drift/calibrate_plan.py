"""Held-out data, and the most that they can calibrate.

The rules this module keeps:
 * What data cannot say is noted for people, never guessed: without groups nothing is
   known of how boards differ, without order nothing of how fast the input changes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.calibrate_streams import (
    MIN_GROUPS,
    MIN_STRETCH,
    Rows,
    chunk_runs,
    find_interval,
)
from agent.core.drift.fitting import fit_reference
from agent.core.drift.mewma import Whitener
from agent.core.drift.opened import Columns, Floats

IID_TARGET = 0.05  # lag-1 autocorrelation that thresholds stand without a recording
ORDERED_TARGET = 0.3  # and with one: a twentieth of the samples finds as much


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out data as the monitor saw it.

    Attributes:
        features: Names of the ``d`` columns; ``columns`` of the scopes.
        values: (n, d) finite, in the order of time if ``ordered``.
        index: (n) labels that the model answered, -1 for none.
        groups: (n) source of each sample; None if nobody knows.
        classes: Labels of the model, 0 for a task without.
        ordered: Samples follow each other as they do on a board, at full rate.
        confidence: (n) of each answer, and ``right`` (n) whether it was; None if
            nobody knows.
    """

    features: tuple[str, ...]
    columns: Columns
    values: Floats
    index: NDArray[np.intp]
    groups: Rows | None = None
    classes: int = 0
    ordered: bool = False
    confidence: Floats | None = None
    right: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How null streams are made of these data.

    Attributes:
        sources: (n) what halves are made of: groups, parts of a recording, or samples.
        groups: Number of known groups, 0 for none.
        runs: (n) stretches of an ordered recording; None without.
        interval: One in so many samples of the recording is used.
        autocorrelation: Lag-1, of the recording at full rate; -1 without one.
        target: Lag-1 autocorrelation of the streams.
    """

    sources: Rows
    groups: int
    calibration: Literal["grouped", "iid", "ordered"]
    runs: Rows | None = None
    interval: int = 1
    autocorrelation: float = -1.0
    target: float = IID_TARGET
    notes: tuple[str, ...] = ()


def make_plan(held_out: HeldOut) -> Plan:
    """Decide what is the most that these data can calibrate."""
    count = len(held_out.values)
    known = held_out.groups
    groups = 0 if known is None else len(np.unique(known))
    runs = chunk_runs(np.zeros(count, np.intp) if known is None else known)
    few = groups < MIN_GROUPS
    apart = (_grouping_note(groups, ordered=held_out.ordered),) if few else ()
    samples = np.arange(count, dtype=np.intp)
    sources = samples if known is None or few else known
    calibration: Literal["grouped", "iid"] = "iid" if few else "grouped"
    if not held_out.ordered:
        unordered = (
            "no ordered recording: how fast the input changes is not known, so boards"
            f" watch samples that are correlated by {IID_TARGET:g} at most"
        )
        return Plan(sources, groups, calibration, notes=(*apart, unordered))
    whiten = Whitener(fit_reference(held_out.features, held_out.values))
    measured = find_interval(whiten(held_out.values), runs, ORDERED_TARGET)
    if measured is None:
        short = (
            f"runs of the recording are shorter than {MIN_STRETCH} samples: their order"
            " is not used"
        )
        return Plan(sources, groups, calibration, notes=(*apart, short))
    return Plan(
        # Parts of one recording stand in for sources: what changes slowly differs.
        *(runs if few else sources, groups, "ordered"),
        runs=runs,
        interval=measured[1],
        autocorrelation=measured[0],
        target=ORDERED_TARGET,
        notes=apart,
    )


def _grouping_note(groups: int, *, ordered: bool) -> str:
    """Say that too little is known of how sources differ."""
    if ordered:
        return (
            f"{groups} groups found, {MIN_GROUPS} needed: parts of the recording stand"
            " in for sources, and other boards may differ more than these do"
        )
    return (
        f"iid-calibrated, {groups or 'no'} groups found, {MIN_GROUPS} needed:"
        " thresholds assume that boards differ from these data no more than these"
        " samples from each other"
    )
