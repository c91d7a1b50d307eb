"""Whether what was read of held-out data can be a reference, and what is wrong with it.

Errors are told before anything is calibrated; warnings go to the author's terminal and
into the profile's notes.
"""

import numpy as np
from numpy.typing import NDArray

from agent.cli.profile_held_out import HeldOut, wrong
from agent.cli.profile_reader import Rows
from agent.cli.profile_words import MAX_SAMPLES
from agent.core.drift.calibrate import MIN_SAMPLES, Calibrated
from agent.core.reasons import Reason
from agent.errors import TrialFailedError

FEW_SAMPLES = 500  # below it the tails that thresholds stand in are hardly seen
# More bad samples than that are no accident: the data are not what the model takes.
BAD_SHARE = 0.1
MIN_CLASSES = 2


def check_lengths(held_out: HeldOut, rows: Rows) -> None:
    """Groups and labels are one for each sample.

    Raises:
        SettingsError: ``settings``.
    """
    for option, named in (("groups", held_out.groups), ("labels", held_out.labels)):
        if named is None:
            continue
        count = rows.said.samples
        if len(named) != count and not (rows.said.more and len(named) > count):
            raise wrong(f"--{option}: {len(named)} entries for {count} samples")


def check_rows(rows: Rows, variant: str) -> None:
    """Enough good samples, that differ, with more than one answer.

    Raises:
        TrialFailedError: ``input``, ``not_finite`` or ``profile``.
    """
    said, count = rows.said, len(rows.values)
    good = said.samples - said.failed
    if said.failed > BAD_SHARE * said.samples:
        raise _unfit(
            f"{variant}: {said.failed} of {said.samples} samples do not become the "
            f"model's input; the first: {said.failure}",
            Reason.INPUT,
            "Name data as the board's source gives them: before preprocess, without "
            "NaN and infinity.",
        )
    if said.invalid > BAD_SHARE * good:
        raise _unfit(
            f"{variant}: {said.invalid} of {good} samples hold NaN or infinity",
            Reason.NOT_FINITE,
            "Repair the data: a reference of such samples would call them normal.",
        )
    if count < MIN_SAMPLES:
        raise _unfit(
            f"{variant}: {count} answered samples, {MIN_SAMPLES} needed at least",
            Reason.PROFILE,
            "Take more held-out data: 2,000 samples of 8 or more devices are good.",
        )
    if not _moving(rows).any():
        raise _unfit(
            f"{variant}: all samples look the same: no feature ever moves",
            Reason.PROFILE,
            "Take data in which the input differs as it will on a board.",
        )
    answered = np.unique(rows.index)
    if said.classes >= MIN_CLASSES and len(answered) == 1:
        raise _unfit(
            f"{variant}: all {count} samples were answered with class {answered[0]}",
            Reason.PROFILE,
            "Take data of all classes, in about the shares that boards will see.",
        )


def warn_about(
    rows: Rows, calibrated: Calibrated, held_out: HeldOut
) -> tuple[str, ...]:
    """Return what is not as it could be, for people."""
    said, count = rows.said, len(rows.values)
    found = list(said.notes)
    if count < FEW_SAMPLES:
        found.append(f"{count} samples: below {FEW_SAMPLES} thresholds are rough")
    if said.failed:
        found.append(f"{said.failed} bad samples were left out: {said.failure}"[:200])
    if said.invalid:
        found.append(f"{said.invalid} samples with NaN or infinity were left out")
    if said.more:
        found.append(f"only the first {MAX_SAMPLES} samples were read")
    still = [
        name
        for name, moves in zip(said.names, calibrated.reference.moving, strict=True)
        if not moves
    ]
    if still:
        found.append(f"not watched, as they never moved: {', '.join(still)}"[:200])
    if not said.outputs:
        found.append(
            "no confidence tier: the answers are no probabilities (no softmax), so a "
            "loss of confidence raises no alarm"
        )
    if held_out.labels is not None and calibrated.reference.accuracy < 0:
        found.append("labels unused: accuracy is estimated from confidence only")
    return tuple(found)


def _moving(rows: Rows) -> NDArray[np.bool_]:
    """Return which features differ between samples."""
    moves: NDArray[np.bool_] = np.ptp(rows.values, 0) > 0
    return moves


def _unfit(what: str, reason: Reason, todo: str) -> TrialFailedError:
    """Return the error for data that cannot be a reference."""
    return TrialFailedError(what, reason=reason, todo=todo)
