"""Which revocations come next: bundles and operators, added or taken back."""

from collections.abc import Iterable

from agent.core.reasons import Reason
from agent.core.targets import Revocations
from agent.errors import SettingsError

MAX_REVOKED = 4096  # of each kind: what boards read (``agent.core.targets``)


def next_revocations(
    known: Revocations,
    bundles: Iterable[str] = (),
    operators: Iterable[str] = (),
    *,
    undo: bool = False,
) -> Revocations:
    """Return what is revoked after a change; sorted, each entry once.

    Laws: revoking twice is revoking once; undoing what was new restores ``known``.

    Args:
        known: What is revoked now.
        bundles: SHA-256 of bundles.
        operators: Serial numbers of client certificates.
        undo: Take these back instead.

    Raises:
        SettingsError: Something to take back was never revoked, or there are too many.
    """
    return Revocations(
        _changed(known.bundles, bundles, undo=undo),
        _changed(known.operators, operators, undo=undo),
    )


def _changed(
    known: Iterable[str], named: Iterable[str], *, undo: bool
) -> tuple[str, ...]:
    """Return one of the two lists after a change."""
    before, wanted = set(known), set(named)
    if undo and (strangers := wanted - before):
        raise SettingsError(
            f"{', '.join(sorted(strangers))} was never revoked",
            reason=Reason.SETTINGS,
            todo="See `tinyward repo status` for what is revoked.",
        )
    after = before - wanted if undo else before | wanted
    if len(after) > MAX_REVOKED:
        raise SettingsError(
            f"{len(after)} revocations of one kind, boards read {MAX_REVOKED}",
            reason=Reason.SETTINGS,
            todo="Take back (--undo) certificates that expired and bundles that are "
            "old, or rotate the role instead.",
        )
    return tuple(sorted(after))
