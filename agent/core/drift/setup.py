"""What a monitor is told as its model is loaded, and the anchors that this gives."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.core.drift.comparison import Comparison
from agent.core.drift.opened import Columns, OpenReference
from agent.core.reasons import Reason
from agent.core.watching import Anchor, AnchorState, Scope


@dataclass(frozen=True, slots=True)
class Setup:
    """What a monitor is told when its model is loaded.

    Attributes:
        names: Of the features, in the order of their columns.
        columns: Columns of the scopes ``input`` and ``output`` (empty arrays allowed).
        classes: Labels of the model, 0 without.
        shipped: The bundle's reference, None without a good one.
        shipped_reason: Why there is none: a ``Reason`` word, and ``shipped_detail``.
        shipped_detail: The same for people.
        site: Bytes of this board's own baseline, empty before it has one.
        site_samples: Samples of a new one.
        latched: Alarms that were active when the last worker ended; ``confirmed``
            those of them that the e-detector had confirmed.
    """

    names: tuple[str, ...]
    columns: Columns
    classes: int
    shipped: OpenReference | None = None
    shipped_reason: str = ""
    shipped_detail: str = ""
    site: bytes = b""
    site_samples: int = 2000
    latched: tuple[tuple[Anchor, Scope], ...] = ()
    confirmed: tuple[tuple[Anchor, Scope], ...] = ()


def compare_with(
    anchor: Anchor,
    reference: OpenReference | None,
    setup: Setup,
    raised: Mapping[Scope, int] | None = None,
) -> Comparison | None:
    """Begin to compare with a reference; alarms count on from those raised before."""
    if reference is None:
        return None
    latched = [scope for name, scope in setup.latched if name == anchor]
    shared = replace(reference, features=setup.names)  # equal; kept once
    found = Comparison(anchor, shared, setup.columns, latched)
    confirmed = [scope for name, scope in setup.confirmed if name == anchor]
    found.resume(confirmed, raised or {})
    return found


def check_shipped(setup: Setup) -> tuple[OpenReference | None, AnchorState]:
    """The shipped reference, if there is something to compare with; what to say."""
    shipped = setup.shipped
    reason, detail = setup.shipped_reason, setup.shipped_detail
    if shipped is not None and shipped.features != setup.names:
        shipped, reason = None, Reason.PROFILE
        detail = "its features are not those of this model"
    if shipped is not None and not shipped.moving.any():
        shipped, reason = None, Reason.PROFILE
        detail = "no feature ever moved in its samples"
    if shipped is None:
        state = AnchorState(
            "shipped", valid=False, reason=reason or Reason.UNWATCHED, detail=detail
        )
        return None, state
    still = [
        name
        for name, moves in zip(shipped.features, shipped.moving, strict=True)
        if not moves
    ]
    left_out = f"never moved, and left out: {', '.join(still)}"[:500] if still else ""
    state = AnchorState(
        "shipped",
        valid=True,
        detail=left_out,
        digest=shipped.digest,
        calibration=shipped.calibration,
    )
    return shipped, state
