"""Receipts that a killed daemon left in its rings, taken before any other.

The rules this module keeps:
 * No inference is counted twice, and none is missed: the log and the rings say how many
   there were. What they count and nobody has is declared as lost.
 * A ring is read when nobody can write it any more: its worker is dead, too.
 * What a file says is believed as far as it can be: it is one of ours, of this boot,
   and each record bears its number.
 * A start that is killed in the middle of it does no harm: the next one finds by their
   content which records are in the log.
"""

import fcntl
import logging
import os
import stat
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.audit.log import BACKLOG, NO_SEQ, AuditLog
from agent.audit.rings import Rings, is_ours, word_of
from agent.core.audit_layout import SEGMENT_RECORDS, file_of
from agent.core.receipt_bounds import may_be_workers
from agent.core.receipts import (
    ANSWERED,
    BOOT,
    HEADER_BYTES,
    HEADER_WORDS,
    LIMIT,
    LOG,
    NUMBER,
    READ,
    RECORD_BYTES,
    RING_BYTES,
    RING_VERSION,
    SLOTS,
    VERSION,
    WORD,
    WRITTEN,
)

log = logging.getLogger(__name__)
HELD_S = 5.0  # what a worker gets to die of its daemon's death; it takes milliseconds
DURABLE_S = 2.0  # what the disk gets to take as much as may wait for it
LOOK_S = 0.005
MAX_ANSWERED = 2**53  # beyond that a signed number could not be read again
BATCH = 1024
# Segments that are searched for what is in the log already: as many as hold the records
# of 16 full rings.
MAX_SEGMENTS = 16 * SLOTS // SEGMENT_RECORDS
OWN = WORD  # a ring's number is the log's seq later: all behind it stays
_WORDS = struct.Struct(f"={HEADER_WORDS}Q")
_WORD = struct.Struct("=Q")
_MONOTONIC = struct.Struct(">8xQ")  # behind the number


@dataclass(frozen=True, slots=True)
class Left:
    """One ring that was left.

    Attributes:
        path: Its file.
        words: Its header.
        records: Those that are whole, without their numbers, in order, up to the last.
    """

    path: Path
    words: tuple[int, ...]
    records: tuple[bytes, ...]

    @property
    def untaken(self) -> int:
        """How many the log was never given."""
        return self.words[WRITTEN] - self.words[READ]


def recover_rings(opened: AuditLog, folder: Path, rings: Rings) -> None:
    """Take what the last life left into a log that was just opened. Blocks.

    Args:
        opened: The log; nobody else uses it yet.
        folder: Where it lies.
        rings: Of this life, which know what the last one left.
    """
    left = [it for path in rings.left if (it := read_ring(path, rings.boot))]
    if len(left) < len(rings.left) or not (opened.ended_well or rings.was_kept):
        opened.miss_moments()  # kept again once that is on the disk
    else:
        rings.keep()
    known = [it for it in left if it.words[LOG] == word_of(opened.origin)]
    others = [it for it in left if it not in known]
    fresh, missing = _of_log(opened, folder, known)
    for ring in others:  # of a log that was set aside: what it was not given
        missing += ring.untaken
        fresh += ring.records[max(0, len(ring.records) - ring.untaken) :]
    # Where there are more than are missing, the log has declared the oldest as lost.
    fresh = sorted(fresh, key=_monotonic)[max(0, len(fresh) - missing) :]
    taken = _take(opened, fresh)
    lost = max(0, missing - len(fresh))
    if left and (fresh or lost):
        opened.note("log.recovered", {"records": taken, "lost": lost})
        said = {"records": taken, "lost": lost}
        log.warning("audit.rings_taken", extra=said)  # the log has it: not twice
    if lost:
        opened.lose(lost, "written by nobody before the agent was killed")
    for ring in left:
        _note_taken(ring, opened)
    opened.mark()
    opened.once_durable(rings.settle)


def read_ring(path: Path, boot: int) -> Left | None:
    """Return a ring that was left, once nobody holds it; None if it is none of ours."""
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            if not is_ours(status, stat.S_IFREG) or status.st_size != RING_BYTES:
                raise ValueError("it is no ring of this user")
            _wait_free(descriptor)
            return _parse(path, os.pread(descriptor, RING_BYTES, 0), boot)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as err:
        said = {"path": str(path), "detail": str(err)}
        log.warning("receipts.ring_passed_over", extra=said)
        return None


def _wait_free(descriptor: int) -> None:
    """Return when the worker is dead that may write a ring.

    Raises:
        OSError: It does not die.
    """
    until = time.monotonic() + HELD_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
        time.sleep(LOOK_S)


def _parse(path: Path, content: bytes, boot: int) -> Left:
    """Return what a ring's bytes say.

    Raises:
        ValueError: What cannot be.
    """
    if len(content) != RING_BYTES:
        raise ValueError("it is cut")
    words = _WORDS.unpack_from(content)
    if (words[VERSION], words[BOOT]) != (RING_VERSION, boot):
        raise ValueError("it is of another agent, or of another boot")
    written, read = words[WRITTEN], words[READ]
    if not read <= written <= words[LIMIT] <= read + SLOTS:
        raise ValueError(f"{written} written, {read} read, of {words[LIMIT]}")
    if words[ANSWERED] > MAX_ANSWERED:  # workers can write there, too
        raise ValueError("it knows of more answers than there can be")
    pipeline = int(path.name.partition("-")[0], 16)
    records: list[bytes] = []
    for number in range(written, max(0, written - SLOTS), -1):
        at = HEADER_BYTES + (number - 1) % SLOTS * RECORD_BYTES
        record = content[at : at + RECORD_BYTES]
        if NUMBER.unpack(record) != (number,) or not may_be_workers(record, pipeline):
            break  # the next one was being written over it; or it says that it is ours
        records.append(record[OWN:])
    return Left(path, words, tuple(reversed(records)))


def _of_log(
    opened: AuditLog, folder: Path, rings: list[Left]
) -> tuple[list[bytes], int]:
    """Return what this log does not have, and how many records it does not know of."""
    if not rings:
        return [], 0
    known = opened.inferences + opened.lost
    answered = max(it.words[ANSWERED] for it in rings)
    missing = max(0, answered - known + sum(it.untaken for it in rings))
    found = [record for it in rings for record in it.records]
    logged = _logged(folder, opened.size, found)
    return [it for it in found if it not in logged], missing


def _logged(folder: Path, size: int, records: Iterable[bytes]) -> set[bytes]:
    """Return which of some records are in the log: among its last ones."""
    sought = set(records)
    oldest = min(map(_monotonic, sought), default=0)
    found: set[bytes] = set()
    last = size // SEGMENT_RECORDS
    for number in range(last, max(-1, last - MAX_SEGMENTS), -1):
        try:
            content = (folder / file_of(number, "records")).read_bytes()
        except FileNotFoundError:
            continue
        here = [
            content[at + OWN : at + RECORD_BYTES]
            for at in range(0, len(content), RECORD_BYTES)
        ]
        found.update(sought.intersection(here))
        if number < last and all(_monotonic(it) < oldest for it in here):
            break
    return found


def _take(opened: AuditLog, records: list[bytes]) -> int:
    """Log records, as fast as the disk takes them; return how many it took."""
    taken = 0
    for first in range(0, len(records), BATCH):
        batch = records[first : first + BATCH]
        if opened.size - opened.durable.checkpoint.size > BACKLOG - 2 * BATCH:
            opened.mark()
            _wait_durable(opened)
        number = bytes(OWN)
        seq = opened.take(b"".join(number + it for it in batch))
        taken += len(batch) * (seq < NO_SEQ)
    return taken


def _wait_durable(opened: AuditLog) -> None:
    """Wait until all is on the disk, but not for ever."""
    until = time.monotonic() + DURABLE_S
    while opened.durable.checkpoint.size < opened.size:
        if time.monotonic() > until:
            return
        time.sleep(LOOK_S)


def _note_taken(ring: Left, opened: AuditLog) -> None:
    """Say in a ring that the log was given all of it, should there be another start."""
    answered = opened.inferences + opened.lost
    words = {LOG: word_of(opened.origin), ANSWERED: answered}
    words[READ] = ring.words[WRITTEN]
    try:
        descriptor = os.open(ring.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for place, value in words.items():
                os.pwrite(descriptor, _WORD.pack(value), place * WORD)
        finally:
            os.close(descriptor)
    except OSError as err:
        said = {"path": str(ring.path), "detail": str(err)}
        log.warning("receipts.ring_passed_over", extra=said)


def _monotonic(record: bytes) -> int:
    """Return when a record without its number was made."""
    found: int = _MONOTONIC.unpack_from(record)[0]
    return found
