"""Opens the log: what of it can be believed after whatever ended the last life.

The rules this module keeps:
 * Checked at every start are the newest checkpoint's signature, the roots of all full
   segments and each record of the last one, against that checkpoint: 3 ms. All records
   are checked by ``tinyward audit verify``, and each that is proven when it is.
 * What the newest checkpoint says is there, or the log is damaged: then it is set aside
   as a whole, and another one begins that says so.
 * Records beyond it are kept where the machine never went down: what was written is
   in its memory. After a loss of power nobody can tell them from what a card makes up,
   and they are declared lost.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from agent.audit.files import Folder
from agent.audit.key import AuditKey, verify_ed25519
from agent.audit.log import AuditLog, Grown, Place
from agent.audit.ratchet import Ratchet, Seal, open_ratchet
from agent.audit.writer import Durable, Signer, Writer
from agent.core.audit_events import STARTED
from agent.core.audit_layout import (
    IDENTITY,
    KINDS,
    ROOT,
    ROOT_BYTES,
    ROOTS,
    SEGMENT_LEVEL,
    SEGMENT_RECORDS,
    Frame,
    LogIdentity,
    file_of,
    frames_bytes,
    parse_event_lines,
    parse_file_name,
    parse_frames,
    segment_of,
)
from agent.core.checkpoint import (
    NO_HEAD,
    Checkpoint,
    board_of,
    origin_of,
    parse_checkpoint,
)
from agent.core.merkle import EMPTY_ROOT, Tree, leaf_hash
from agent.core.note import open_note
from agent.core.protect_settings import AuditSettings
from agent.core.reasons import Reason
from agent.core.receipts import EVENT, RECORD_BYTES, parse_receipt
from agent.errors import BundleRefusedError

LOG_FOLDER, RATCHET_FILE = "audit", "audit.ratchet"
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds.

    Attributes:
        checkpoint: The newest one, None in a new log; ``note`` its signed form.
        epoch: The ratchet's when that was made.
        frames_end: Where the frames of its file end that are whole.
    """

    checkpoint: Checkpoint | None = None
    note: str = ""
    epoch: int = 0
    frames_end: int = 0


@dataclass(frozen=True, slots=True)
class Opening:
    """By whom and for what a log is opened.

    Attributes:
        state_dir: Where ``audit`` lies, or is made.
        board: The board's id.
        key: Signs; ``seal`` encrypts the ratchet's first key to the owner, if anyone.
        place: Boot, runtime and clocks; its origin is found here.
    """

    state_dir: Path
    board: str
    key: AuditKey
    seal: Seal | None
    place: Place


def open_log(settings: AuditSettings, opening: Opening) -> AuditLog:
    """Open the log of a state directory; the writer's thread runs when this returns.

    Raises:
        DeviceError: The disk does not play along.
    """
    path = opening.state_dir / LOG_FOLDER
    path.mkdir(mode=0o700, exist_ok=True)
    folder = Folder(path)
    facts: dict[str, object] = {}
    try:
        identity = _identity(folder, opening, facts)
        found, grown = _recover(folder, opening, identity, facts)
    except BundleRefusedError as err:
        folder, identity = _set_aside(folder, opening, facts, err)
        found, grown = Found(), Grown(Tree(), Tree(), NO_HEAD)
    ratchet = _ratchet(opening, folder, found)
    signer = Signer(opening.key.named(identity.origin), opening.key.sign, ratchet)
    writer = Writer(
        folder,
        signer,
        int(settings.quota_mb * MB),
        _durable(folder, identity.origin, found, grown),
    )
    place = opening.place
    log = AuditLog(
        settings,
        Place(identity.origin, place.boot, place.runtime, place.clock),
        grown,
        writer,
    )
    writer.start()
    # The first thing that is signed: how this life began, and what the last one lost.
    log.note(STARTED, {"starts": grown.starts, **facts})
    log.mark()
    return log


def read_identity(folder: Folder) -> LogIdentity | None:
    """Return whose log a folder is; None where there is none.

    Raises:
        BundleRefusedError: ``log``: it is damaged.
    """
    raw = folder.read(IDENTITY, 0, 4096)
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw, type=LogIdentity)
    except msgspec.MsgspecError as err:
        raise damaged(f"{IDENTITY}: {err}") from err


def newest_note(folder: Folder) -> tuple[int, list[Frame]]:
    """Return the last segment that has checkpoints, and those of it that are whole."""
    found = [parse_file_name(name) for name in folder.names()]
    segments = sorted({it[0] for it in found if it and it[1] == "notes"}, reverse=True)
    for segment in segments:
        frames = parse_frames(folder.read(file_of(segment, "notes")))
        if frames:
            return segment, frames
    return 0, []


def damaged(what: str) -> BundleRefusedError:
    """Return the error for a log that is not what was signed."""
    return BundleRefusedError(what, reason=Reason.LOG)


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
        return _begin(folder, opening, "")
    if board_of(identity.origin) != opening.board:
        facts["board"] = board_of(identity.origin)
        what = f"this log is that of board {board_of(identity.origin)}"
        raise BundleRefusedError(what, reason=Reason.OTHER_BOARD)
    return identity


def _begin(folder: Folder, opening: Opening, follows: str) -> LogIdentity:
    """Begin a log."""
    identity = LogIdentity(origin_of(opening.board, os.urandom(4).hex()), follows)
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
    return folder, _begin(folder, opening, follows)


def _ratchet(opening: Opening, folder: Folder, found: Found) -> Ratchet:
    """Return the ratchet, with a new first key where the old one is gone."""
    ratchet = open_ratchet(opening.state_dir / RATCHET_FILE)
    if not ratchet.load() or ratchet.epoch <= found.epoch:
        ratchet.begin(found.epoch, folder, opening.seal)
    return ratchet


def _durable(folder: Folder, origin: str, found: Found, grown: Grown) -> Durable:
    """Return what is on the medium."""
    names = folder.names()
    parsed = [parse_file_name(name) for name in names]
    kept = [it[0] for it in parsed if it and it[1] == "records"]
    nothing = Checkpoint(origin, 0, EMPTY_ROOT, NO_HEAD)
    del grown
    return Durable(
        found.checkpoint or nothing,
        found.note,
        bytes=sum(folder.size(name) for name in names),
        first=min(kept, default=0) * SEGMENT_RECORDS,
    )


# --- what can be believed


def _recover(
    folder: Folder, opening: Opening, identity: LogIdentity, facts: dict[str, object]
) -> tuple[Found, Grown]:
    """Return the newest checkpoint and the log that it speaks of.

    Raises:
        BundleRefusedError: ``log``, ``signature``: it is not what was signed.
    """
    found = _find(folder, opening.key, identity)
    checkpoint = found.checkpoint or Checkpoint(
        identity.origin, 0, EMPTY_ROOT, NO_HEAD, starts=0
    )
    grown = _rebuild(folder, checkpoint)
    same_boot = found.checkpoint is not None and checkpoint.boot == opening.place.boot
    beyond = _beyond(folder, checkpoint.size)
    if same_boot:
        for record in beyond:
            _grow(grown, record)
        if beyond:
            facts["kept"] = len(beyond)
    elif beyond:
        grown.lost += len(beyond)
        facts |= {"lost": len(beyond), "from": checkpoint.size}
    clean = found.checkpoint is None or _ended(folder, checkpoint.size)
    facts["clean"] = clean and not beyond
    _cut(folder, found, grown.size)
    return found, grown


def _find(folder: Folder, key: AuditKey, identity: LogIdentity) -> Found:
    """Return the newest checkpoint that is whole.

    Raises:
        BundleRefusedError: ``signature``, ``malformed``: it is not ours.
    """
    _, frames = newest_note(folder)
    if not frames:
        if folder.size(ROOTS):
            raise damaged("all checkpoints are missing")
        return Found()
    last = frames[-1]
    text = open_note(last.note, key.named(identity.origin), verify_ed25519)
    return Found(
        parse_checkpoint(text), last.note.decode(), last.epoch, frames_bytes(frames)
    )


def _rebuild(folder: Folder, checkpoint: Checkpoint) -> Grown:
    """Return the log at a checkpoint, hashed from what is on the disk.

    Raises:
        BundleRefusedError: ``log``: it is not what the checkpoint says.
    """
    full = checkpoint.size // SEGMENT_RECORDS
    roots = folder.read(ROOTS, 0, full * ROOT_BYTES)
    if len(roots) != full * ROOT_BYTES:
        raise damaged(f"{ROOTS} is shorter than {full} segments")
    tree, head = Tree(), NO_HEAD
    for root, head in ROOT.iter_unpack(roots):  # noqa: B007 - the last one counts
        tree.append_subtree(root, SEGMENT_LEVEL)
    tail = checkpoint.size % SEGMENT_RECORDS
    raw = folder.read(file_of(full, "records"), 0, tail * RECORD_BYTES)
    grown = Grown(
        tree,
        Tree(),
        head,
        checkpoint.inferences,
        checkpoint.lost,
        checkpoint.starts + 1,
    )
    for place in range(0, len(raw), RECORD_BYTES):
        record = raw[place : place + RECORD_BYTES]
        grown.tail.append(leaf_hash(record))
        grown.head = sha256(grown.head + record).digest()
    said = (checkpoint.size, checkpoint.root, checkpoint.head)
    if (grown.size, grown.root(), grown.head) != said:
        raise damaged(
            f"the newest checkpoint is not of these {checkpoint.size} records"
        )
    return grown


def _beyond(folder: Folder, size: int) -> list[bytes]:
    """Return the whole records that follow a checkpoint.

    A record says its number, and an event what it is the hash of: the first that does
    not belong there ends them.
    """
    said = _said_events(folder, size)
    records: list[bytes] = []
    while True:
        seq = size + len(records)
        place = seq % SEGMENT_RECORDS * RECORD_BYTES
        name = file_of(seq // SEGMENT_RECORDS, "records")
        raw = folder.read(name, place)
        for start in range(0, len(raw) - RECORD_BYTES + 1, RECORD_BYTES):
            record = raw[start : start + RECORD_BYTES]
            if not _belongs(record, size + len(records), said):
                return records
            records.append(record)
        if (size + len(records)) % SEGMENT_RECORDS or not raw:
            return records


def _belongs(record: bytes, seq: int, said: Mapping[int, bytes]) -> bool:
    """Whether a record is number ``seq`` of a log."""
    receipt = parse_receipt(record)
    if receipt.seq != seq or not receipt.monotonic_ns:
        return False
    text = said.get(seq, b"")
    return not receipt.flags & EVENT or sha256(text).digest() == receipt.output


def _said_events(folder: Folder, size: int) -> dict[int, bytes]:
    """Return what events beyond a size say."""
    said: dict[int, bytes] = {}
    for name in folder.names():
        found = parse_file_name(name)
        if found and found[1] == "events" and found[0] >= size // SEGMENT_RECORDS:
            said.update(
                (at, text) for at, text, _ in parse_event_lines(folder.read(name))
            )
    return said


def _ended(folder: Folder, size: int) -> bool:
    """Whether the last record says that the log was closed."""
    name = file_of(segment_of(size), "events")
    said = {seq: text for seq, text, _ in parse_event_lines(folder.read(name))}
    return b'"log.stopped"' in said.get(size - 1, b"")


def _grow(grown: Grown, record: bytes) -> None:
    """Take over a record that was not signed yet."""
    grown.head = sha256(grown.head + record).digest()
    grown.tail.append(leaf_hash(record))
    grown.inferences += not parse_receipt(record).flags & EVENT
    if grown.tail.size == SEGMENT_RECORDS:
        grown.tree.append_subtree(grown.tail.root(), SEGMENT_LEVEL)
        grown.tail = Tree()


def _cut(folder: Folder, found: Found, size: int) -> None:
    """Let nothing stay behind the end that could be taken for more of the log."""
    last = segment_of(size + 1)  # where the next record goes
    for name in folder.names():
        parsed = parse_file_name(name)
        if parsed is None:
            continue
        segment, kind = parsed
        if segment > last:
            folder.remove(name)
        elif kind == "events" and segment >= size // SEGMENT_RECORDS:
            ends = [
                it[2] for it in parse_event_lines(folder.read(name)) if it[0] < size
            ]
            folder.cut(name, max(ends, default=0))
    name = file_of(size // SEGMENT_RECORDS, "records")
    folder.cut(name, size % SEGMENT_RECORDS * RECORD_BYTES)
    checkpoint = found.checkpoint
    if checkpoint is not None:
        folder.cut(file_of(segment_of(checkpoint.size), "notes"), found.frames_end)
    folder.sync(name for name in folder.names() if name.endswith(KINDS))
