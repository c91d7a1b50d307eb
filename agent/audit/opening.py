"""Opens the log of a state directory, or begins one.

The rules this module keeps:
 * What the newest checkpoint says is there, or the log is damaged: then it is set aside
   as a whole, as evidence, and another one begins that says so. Inference goes on.
 * The first thing that is signed is how this life began, and what the last one lost.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from agent.audit.files import Folder
from agent.audit.key import AuditKey
from agent.audit.log import MB, AuditLog, Grown, Place
from agent.audit.ratchet import Ratchet, Seal
from agent.audit.reading import damaged, read_identity
from agent.audit.recovery import Found, recover
from agent.audit.writer import Durable, Signer, Writer
from agent.core.audit_events import STARTED
from agent.core.audit_layout import (
    IDENTITY,
    SEALED_KEYS,
    SEGMENT_RECORDS,
    LogIdentity,
    parse_file_name,
)
from agent.core.checkpoint import NO_HEAD, Checkpoint, board_of, origin_of
from agent.core.merkle import EMPTY_ROOT, Tree
from agent.core.protect_settings import AuditSettings
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

log = logging.getLogger(__name__)
LOG_FOLDER, RATCHET_FILE = "audit", "audit.ratchet"


@dataclass(frozen=True, slots=True)
class Opening:
    """By whom and for what a log is opened.

    Attributes:
        state_dir: Where ``audit`` lies, or is made.
        board: The board's id.
        key: Signs; ``seal`` encrypts the ratchet's first key to the owner, if anyone.
        place: Boot, runtime and clocks; its origin is found here.
        folder: Opens a folder; tests pass one that goes wrong.
    """

    state_dir: Path
    board: str
    key: AuditKey
    seal: Seal | None
    place: Place
    folder: Callable[[Path], Folder] = Folder


def open_log(settings: AuditSettings, opening: Opening) -> AuditLog:
    """Open the log of a state directory; the writer's thread runs when this returns.

    Raises:
        DeviceError: The disk does not play along.
    """
    path = opening.state_dir / LOG_FOLDER
    path.mkdir(mode=0o700, exist_ok=True)
    folder = opening.folder(path)
    facts: dict[str, object] = {}
    try:
        identity = _identity(folder, opening, facts)
        found, grown = recover(
            folder, opening.key.named(identity.origin), opening.place.boot, facts
        )
    except BundleRefusedError as err:
        folder, identity = _set_aside(folder, opening, facts, err)
        found, grown = Found(), Grown(Tree(), Tree(), NO_HEAD)
    ratchet = _ratchet(opening, folder, identity.origin, found)
    signer = Signer(opening.key.named(identity.origin), opening.key.sign, ratchet)
    writer = Writer(
        folder,
        signer,
        int(settings.quota_mb * MB),
        _durable(folder, identity.origin, found),
    )
    place = replace(opening.place, origin=identity.origin)
    opened = AuditLog(settings, place, grown, writer)
    opened.ended_well = bool(facts.get("clean", True))
    opened.aside = _count_aside(opening.state_dir)
    writer.start()
    opened.note(STARTED, {"starts": grown.starts, **facts})
    opened.mark()
    return opened


def _identity(
    folder: Folder, opening: Opening, facts: dict[str, object]
) -> LogIdentity:
    """Return which log this is; a new one is given its name.

    Raises:
        BundleRefusedError: ``log``: damaged; ``other_board``: it was brought here.
    """
    identity = read_identity(folder)
    if identity is None:
        if any(name != IDENTITY for name in folder.names()):
            raise damaged(f"{IDENTITY} is missing")
        return _begin(folder, opening)
    if board_of(identity.origin) != opening.board:
        facts["board"] = board_of(identity.origin)
        what = f"this log is that of board {board_of(identity.origin)}"
        raise BundleRefusedError(what, reason=Reason.OTHER_BOARD)
    return identity


def _begin(folder: Folder, opening: Opening) -> LogIdentity:
    """Begin a log."""
    identity = LogIdentity(origin_of(opening.board, os.urandom(4).hex()))
    folder.replace(IDENTITY, msgspec.json.encode(identity))
    return identity


def _set_aside(
    folder: Folder,
    opening: Opening,
    facts: dict[str, object],
    err: BundleRefusedError,
) -> tuple[Folder, LogIdentity]:
    """Keep a log that cannot go on as evidence, and begin another."""
    follows = ""
    facts |= {"reason": err.reason, "detail": str(err)}
    try:
        before = read_identity(folder)
        follows = before.origin if before else ""
    except BundleRefusedError as wrong:
        facts["identity"] = str(wrong)
    folder.close()
    aside = f"{LOG_FOLDER}.{err.reason}-{os.urandom(4).hex()}"
    folder.path.rename(opening.state_dir / aside)
    folder.path.mkdir(mode=0o700)
    facts |= {"follows": follows, "aside": aside}
    said = {"reason": err.reason, "path": aside, "detail": str(err)}
    log.error("audit.set_aside", extra=said)
    return folder, _begin(folder, opening)


def _count_aside(state_dir: Path) -> int:
    """Return how many logs were set aside, and are still there for somebody to see."""
    return sum(1 for it in state_dir.glob(f"{LOG_FOLDER}.*-*") if it.is_dir())


def _ratchet(opening: Opening, folder: Folder, origin: str, found: Found) -> Ratchet:
    """Return the ratchet, with a new first key where there is none to go on with.

    So it is in a new log, and where an owner came after the log: what was sealed to
    nobody, or for another log, opens for nobody.
    """
    ratchet = Ratchet(opening.folder(opening.state_dir), RATCHET_FILE)
    is_whole = ratchet.load() and ratchet.epoch > found.epoch
    ratchet.epoch = max(ratchet.epoch, found.epoch)
    unsealed = opening.seal is not None and not folder.size(SEALED_KEYS)
    if not is_whole or unsealed:
        ratchet.begin(origin, folder, opening.seal)
    return ratchet


def _durable(folder: Folder, origin: str, found: Found) -> Durable:
    """Return what is on the medium."""
    names = folder.names()
    parsed = [parse_file_name(name) for name in names]
    kept = [it[0] for it in parsed if it and it[1] == "records"]
    nothing = Checkpoint(origin, 0, EMPTY_ROOT, NO_HEAD)
    return Durable(
        found.checkpoint or nothing,
        found.note,
        bytes=sum(folder.size(name) for name in names),
        first=min(kept, default=0) * SEGMENT_RECORDS,
    )
