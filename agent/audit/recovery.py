"""What of a log can be believed after whatever ended the last life.

The rules this module keeps:
 * Checked at every start are the newest checkpoint's signature, the roots of all full
   segments and each record of the last one, against that checkpoint: 3 ms. All records
   are checked by ``tinyward audit verify``, and each that is proven when it is.
 * Records beyond the newest checkpoint are kept where the machine never went down: what
   was written is in its memory. After a loss of power nobody can tell them from what a
   card makes up, and they are declared lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from agent.audit.files import Folder
from agent.audit.key import verify_ed25519
from agent.audit.log import Grown
from agent.audit.reading import damaged, newest_frames
from agent.core.audit_layout import (
    ROOT,
    ROOT_BYTES,
    ROOTS,
    SEGMENT_LEVEL,
    SEGMENT_RECORDS,
    file_of,
    frames_bytes,
    parse_event_lines,
    parse_file_name,
    segment_of,
)
from agent.core.checkpoint import NO_HEAD, Checkpoint, parse_checkpoint
from agent.core.merkle import EMPTY_ROOT, Tree, leaf_hash
from agent.core.note import NoteKey, open_note
from agent.core.receipts import EVENT, RECORD_BYTES, parse_receipt


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder says at first.

    Attributes:
        checkpoint: The newest one, None in a new log; ``note`` its signed form.
        epoch: The ratchet's when that was made.
        frames_end: Where the frames of its file end that are whole.
    """

    checkpoint: Checkpoint | None = None
    note: str = ""
    epoch: int = 0
    frames_end: int = 0


def recover(
    folder: Folder, key: NoteKey, boot: str, facts: dict[str, object]
) -> tuple[Found, Grown]:
    """Return the newest checkpoint, and the log as it goes on from there.

    Args:
        folder: The log's.
        key: By which its checkpoints are signed; its name is the log's origin.
        boot: This boot of the kernel.
        facts: Takes what is to be said about it in the log.

    Raises:
        BundleRefusedError: ``log``, ``signature``: it is not what was signed.
        OSError: It cannot be read.
    """
    found = _find(folder, key)
    checkpoint = found.checkpoint or Checkpoint(key.name, 0, EMPTY_ROOT, NO_HEAD)
    grown = _rebuild(folder, checkpoint)
    beyond = _beyond(folder, checkpoint.size)
    facts["clean"] = not beyond and (
        found.checkpoint is None or _ended(folder, checkpoint.size)
    )
    touched = {ROOTS} if folder.size(ROOTS) else set()
    if beyond and checkpoint.boot == boot:
        facts["kept"] = len(beyond)
        for record in beyond:
            _grow(folder, grown, record)
        touched.add(ROOTS)
    elif beyond:
        facts |= {"lost": len(beyond), "from": checkpoint.size}
        grown.lost += len(beyond)
    _cut(folder, found, grown.size, touched)
    return found, grown


def _find(folder: Folder, key: NoteKey) -> Found:
    """Return the newest checkpoint that is whole.

    Raises:
        BundleRefusedError: ``signature``, ``malformed``: it is not ours.
    """
    frames = newest_frames(folder)
    if not frames:
        if folder.size(ROOTS):
            raise damaged("all checkpoints are missing")
        return Found()
    last = frames[-1]
    text = open_note(last.note, key, verify_ed25519)
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
        checkpoint.gaps,
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


def _grow(folder: Folder, grown: Grown, record: bytes) -> None:
    """Take over a record that was not signed yet."""
    grown.head = sha256(grown.head + record).digest()
    grown.tail.append(leaf_hash(record))
    grown.inferences += not parse_receipt(record).flags & EVENT
    if grown.tail.size == SEGMENT_RECORDS:
        root, place = grown.tail.root(), grown.tree.size // SEGMENT_RECORDS
        # Whoever wrote the last record may not have come to write this.
        folder.write(ROOTS, place * ROOT_BYTES, ROOT.pack(root, grown.head))
        grown.tree.append_subtree(root, SEGMENT_LEVEL)
        grown.tail = Tree()


def _cut(folder: Folder, found: Found, size: int, touched: set[str]) -> None:
    """Let nothing stay behind the end that could be taken for more of the log."""
    _drop_rests(folder, size // SEGMENT_RECORDS)
    here = segment_of(found.checkpoint.size) if found.checkpoint else 0
    last = size // SEGMENT_RECORDS  # where the next record goes
    for name in folder.names():
        segment, kind = parse_file_name(name) or (-1, "")
        if segment < here:
            continue
        touched.add(name)
        if kind == "events":
            lines = parse_event_lines(folder.read(name))
            folder.cut(name, max((it[2] for it in lines if it[0] < size), default=0))
        elif kind == "records" and segment == last:
            folder.cut(name, size % SEGMENT_RECORDS * RECORD_BYTES)
        elif kind == "notes":
            folder.cut(name, found.frames_end if segment == here else 0)
    if touched & {ROOTS}:
        folder.cut(ROOTS, last * ROOT_BYTES)
    folder.sync(sorted(touched))


def _drop_rests(folder: Folder, last: int) -> None:
    """Remove segments behind the end, and what a segment left that went by quota."""
    parsed = {name: parse_file_name(name) for name in folder.names()}
    kept = [it[0] for it in parsed.values() if it and it[1] == "records"]
    first = min(kept, default=last)
    for name, found in parsed.items():
        if found is not None and not min(first, last) <= found[0] <= last:
            folder.remove(name)
