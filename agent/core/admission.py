"""Whether a signed bundle may run on this board, asked before its first byte.

The rules this module keeps:
 * The order is that of the trust chain: size limit, what was signed (this board? this
   version?), disk; then, once the bytes are verified and open, manifest and memory.
 * Anti-rollback: admissible is a version >= the highest one committed for that model,
   or the very bytes that are this pipeline's durable ``previous``.
 * Refused bytes are the sender's business (``BundleRefusedError``), a full disk is the
   operator's (``DeviceError``).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from agent.core.explanations import EXPLANATIONS
from agent.core.installed import Board, Installed, Slots
from agent.core.manifest import Manifest
from agent.core.reasons import Reason
from agent.core.targets import SignedTarget
from agent.errors import BundleRefusedError, DeviceError

# Room beside the bundle itself: state.db with its journal, metadata, a log line.
RESERVE_BYTES = 1024 * 1024
# File systems need more than the file: ext4 keeps about 5 %, metadata takes some.
RESERVE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Standing:
    """What admission knows about the board and the pipeline that asks.

    Attributes:
        model: The model that the settings name for this pipeline.
        floor: Highest version committed for that model, 0 before the first.
        set_aside: Why these bytes were set aside on this board, or empty.
        revoked: Digests that the owner revoked.
        stored: The bytes are already in the store, so they need no room.
        max_bundle_bytes: The limit of the settings.
    """

    board: Board
    model: str
    slots: Slots
    max_bundle_bytes: int
    floor: int = 0
    set_aside: str = ""
    revoked: Collection[str] = ()
    stored: bool = False


def check_admission(target: SignedTarget, standing: Standing) -> None:
    """Check a target that nothing was fetched of yet.

    Raises:
        BundleRefusedError: ``too_large``, ``mismatch``, ``memory``, ``hardware``,
            ``min_agent``, ``revoked``, ``version_floor``, or the reason for which these
            bytes were set aside.
        DeviceError: ``disk_full``.
    """
    # Unsealed, it lies in memory: that size is the one that counts there.
    size = max(target.length, target.fields.plain_bytes)
    if size > standing.max_bundle_bytes:
        raise _refused(
            target,
            f"has {size} bytes, at most {standing.max_bundle_bytes} allowed",
            Reason.TOO_LARGE,
        )
    _check_identity(target, standing)
    _check_board(target, standing.board)
    if target.sha256 in standing.revoked:
        raise _refused(target, "was revoked by its owner", Reason.REVOKED)
    _check_version(target, standing)
    if standing.set_aside:
        forgive = f"`tinyward update forgive {target.sha256[:12]}` tries it again"
        what = f"was set aside on this board; {forgive}"
        raise _refused(target, what, standing.set_aside)
    if not standing.stored:
        _check_disk(target, standing.board.free_bytes)


def check_contents(target: SignedTarget, manifest: Manifest, board: Board) -> None:
    """Check what verified bytes say about themselves.

    Raises:
        BundleRefusedError: ``mismatch``: another model or version than was signed;
            ``memory``: not even the smallest variant fits this board.
    """
    said = (manifest.model, manifest.version)
    if said != (target.fields.model, target.fields.version):
        raise _refused(
            target, f"calls itself {said[0]} {said[1]} in its manifest", Reason.MISMATCH
        )
    needed = min(variant.size + variant.ram_bytes for variant in manifest.variants)
    if needed > board.ram_bytes:
        raise _refused(
            target,
            f"needs {needed} bytes of memory, this board has {board.ram_bytes}",
            Reason.MEMORY,
        )


def admits_version(target: SignedTarget, floor: int, slots: Slots) -> bool:
    """Return whether anti-rollback lets this target in.

    A version that is installed is admitted with the same bytes only: version numbers
    are never used twice.
    """
    for installed in (slots.active, slots.previous):
        if installed is not None and _same_version(installed, target):
            return installed.sha256 == target.sha256
    return target.fields.version >= floor


def _same_version(installed: Installed, target: SignedTarget) -> bool:
    """Whether both carry one model and version number."""
    fields = target.fields
    return (installed.model, installed.version) == (fields.model, fields.version)


def _check_identity(target: SignedTarget, standing: Standing) -> None:
    """The right model for this pipeline, and bytes that this agent can open."""
    if target.fields.model != standing.model:
        raise _refused(
            target, f"is no {standing.model}, which the settings name", Reason.MISMATCH
        )
    same = target.fields.plain_sha256 == target.sha256
    if same == (target.fields.sealed is not None):
        raise _refused(
            target, "does not say how it is sealed, or that it is not", Reason.MISMATCH
        )


def _check_board(target: SignedTarget, board: Board) -> None:
    """The hardware and the agent that the signed fields ask for, and memory."""
    needed = target.fields.plain_bytes if target.fields.sealed is not None else 0
    if needed > board.ram_bytes:
        what = f"takes {needed} bytes of memory to open, of {board.ram_bytes}"
        raise _refused(target, what, Reason.MEMORY)
    wanted = target.fields.hardware
    if wanted and not set(wanted) & set(board.hardware):
        raise _refused(
            target,
            f"is for {', '.join(wanted)}; this board is {', '.join(board.hardware)}",
            Reason.HARDWARE,
        )
    if _release(target.fields.min_agent) > _release(board.agent):
        raise _refused(
            target,
            f"needs agent {target.fields.min_agent}, this is {board.agent}",
            Reason.MIN_AGENT,
        )


def _check_version(target: SignedTarget, standing: Standing) -> None:
    """Anti-rollback, with a message that tells its two cases apart."""
    if admits_version(target, standing.floor, standing.slots):
        return
    what = (
        f"is older than version {standing.floor}, which was committed here"
        if target.fields.version < standing.floor
        else "was installed with other bytes under the same version"
    )
    raise _refused(target, what, Reason.VERSION_FLOOR)


def _check_disk(target: SignedTarget, free_bytes: int) -> None:
    """Room for the whole bundle, before the first byte."""
    needed = int(target.length * (1 + RESERVE_SHARE)) + RESERVE_BYTES
    if needed > free_bytes:
        raise DeviceError(
            f"{target.path} needs {needed} bytes on disk, {free_bytes} are free",
            reason=Reason.DISK_FULL,
            todo=EXPLANATIONS[Reason.DISK_FULL].todo,
        )


def _release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``1.2.3.dev1`` is (1, 2, 3)."""
    numbers = re.match(r"\d+(\.\d+){0,2}", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else []
    return tuple(parts + [0] * (3 - len(parts)))


def _refused(target: SignedTarget, what: str, reason: str) -> BundleRefusedError:
    """Return the error that refuses a target."""
    known = reason if reason in EXPLANATIONS else Reason.INTERNAL
    return BundleRefusedError(
        f"{target.path} {what}", reason=reason, todo=EXPLANATIONS[Reason(known)].todo
    )
