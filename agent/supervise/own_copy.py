"""Whether a candidate is this board's own copy, found out by asking it.

The rules this module keeps:
 * Asked once, between preflight and everything that follows it; what was committed has
   passed this, and a start does not ask again: its bytes are hashed.
 * Refused with ``watermark``: a copy that answers with another board's codeword, marks
   that were made for another board, and a bundle whose owner marks copies without any:
   its signed fields say that, or that it brings triggers, which are for marked copies.
 * Which bits were wrong is said to nobody, only how many.
"""

import logging

from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.sealing import Sealed
from agent.core.snapshot import CopyState
from agent.core.watermark import judge_copy
from agent.errors import BundleRefusedError
from agent.supervise.asking import Asked, ask_model

log = logging.getLogger(__name__)


def describe_copy(bundle: OpenedBundle, variant: str, *, asked: bool) -> CopyState:
    """Return what is known of a copy that was placed.

    Args:
        bundle: Opened, its marks applied.
        variant: Which of its variants runs.
        asked: Preflight chose this variant, and then it was asked.

    Returns:
        ``own``: it answered with this board's codeword when it was activated;
        ``marked``: it has marks, and nobody has asked it.
    """
    if bundle.marks is None or variant not in bundle.marks.results:
        return ""
    return "own" if asked and bundle.manifest.watermark is not None else "marked"


def refuse_unmarked(bundle: OpenedBundle, sealed: Sealed | None) -> None:
    """Check that a bundle whose owner marks copies is a marked one.

    One with triggers that came without a seal was published by mistake: its triggers
    lie in clear wherever it lies, and nobody's copy would run.

    Raises:
        BundleRefusedError: ``watermark``.
    """
    wanted = sealed is not None and bool(sealed.sealing.marks)
    wanted = wanted or bundle.manifest.watermark is not None
    if wanted and bundle.marks is None:
        raise _refused("its owner marks every copy, and this one is not marked")


async def check_own_copy(asked: Asked, board: str) -> None:
    """Ask a candidate for its codeword; nothing happens without marks and triggers.

    Args:
        asked: The candidate, as preflight chose to run it.
        board: This board's id.

    Raises:
        BundleRefusedError: ``watermark``: it is another board's copy.
        TrialFailedError: It could not be asked; see ``ask_model``.
        DeviceError: ``memory``.
    """
    marks, mark = asked.bundle.marks, asked.bundle.manifest.watermark
    if marks is None:
        return
    if marks.board != board:
        raise _refused(f"its marks were made for {marks.board!r}, not for this board")
    if mark is None:
        return
    if asked.variant not in marks.results:
        raise _refused(f"variant {asked.variant!r} has no marks")
    answers = await ask_model(asked, asked.bundle.triggers, most=mark.bits)
    commitment = (marks.salt, board, marks.commitment)
    try:
        verdict = judge_copy(answers, mark, marks.codeword, commitment)
    except ValueError as err:
        raise _refused(f"its triggers are not the declared ones: {err}") from err
    if not verdict.own:
        what = f"{verdict.errors} of {mark.bits} bits differ, {mark.threshold} may"
        raise _refused(f"it is another board's copy: {what}")
    facts = {"model": asked.bundle.manifest.model, "errors": verdict.errors}
    log.info("watermark.own", extra=facts | {"bits": mark.bits})


def _refused(what: str) -> BundleRefusedError:
    """Return the error for a copy that is not this board's."""
    return BundleRefusedError(f"watermark: {what}", reason=Reason.WATERMARK)
