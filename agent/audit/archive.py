"""Reads a log's folder: records, events, nodes of its tree, proofs.

The rules this module keeps:
 * It reads files alone, and only what a checkpoint covers; so it may work in any thread
   beside the writer, on a copy that lies anywhere, and its errors are about the disk.
 * A proof is judged before it is handed out: a bit that the disk turned is found here,
   not by who asked.
 * What the quota has removed is said to be gone. Its segments' roots stay.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from agent.audit.files import Folder
from agent.core.audit_layout import (
    ROOT,
    ROOT_BYTES,
    ROOTS,
    SEGMENT_LEVEL,
    SEGMENT_RECORDS,
    file_of,
    parse_event_lines,
    parse_file_name,
)
from agent.core.checkpoint import Checkpoint
from agent.core.merkle import (
    Nodes,
    leaf_hash,
    levels_of,
    node_hash,
    prove_consistency,
    prove_inclusion,
    range_root,
    verify_consistency,
    verify_inclusion,
)
from agent.core.reasons import Reason
from agent.core.receipts import EVENT, RECORD_BYTES, parse_receipt
from agent.errors import BundleRefusedError, RequestRefusedError

KEPT_SEGMENTS = 2  # whose nodes are kept in memory: 130 kB each
MAX_RECORDS = 256  # that are read at once


class GoneError(RequestRefusedError):
    """What is asked for is not in the log, or not any more."""


class Archive:
    """A log on a disk.

    Args:
        path: Its folder.
    """

    def __init__(self, path: Path) -> None:
        self._folder = Folder(path)
        self._levels: OrderedDict[tuple[int, int], list[list[bytes]]] = OrderedDict()

    def first(self) -> int:
        """Return the oldest record that is still there."""
        found = [parse_file_name(name) for name in self._folder.names()]
        kept = [it[0] for it in found if it and it[1] == "records"]
        return min(kept, default=0) * SEGMENT_RECORDS

    def records(self, start: int, count: int, size: int) -> list[bytes]:
        """Return some records of a log of ``size``, fewer where it or a segment ends.

        Raises:
            GoneError: ``request``: there is no such record, or it is gone.
        """
        if not 0 <= start < size:
            raise _absent(f"there is no record {start} among {size}")
        count = min(count, MAX_RECORDS, size - start)
        count = min(count, SEGMENT_RECORDS - start % SEGMENT_RECORDS)
        place = start % SEGMENT_RECORDS * RECORD_BYTES
        name = file_of(start // SEGMENT_RECORDS, "records")
        raw = self._folder.read(name, place, count * RECORD_BYTES)
        if len(raw) != count * RECORD_BYTES:
            raise self._missing(start)
        starts = range(0, len(raw), RECORD_BYTES)
        return [raw[at : at + RECORD_BYTES] for at in starts]

    def event(self, record: bytes) -> bytes:
        """Return what a record's event says; b"" for inferences."""
        receipt = parse_receipt(record)
        if not receipt.flags & EVENT:
            return b""
        return dict(self.events(receipt.seq // SEGMENT_RECORDS)).get(receipt.seq, b"")

    def events_of(self, index: int) -> Sequence[tuple[int, bytes]]:
        """Return the events of the segment that a record is in."""
        return self.events(index // SEGMENT_RECORDS)

    def events(self, segment: int) -> Sequence[tuple[int, bytes]]:
        """Return the events of a segment: their number, and what they say."""
        raw = self._folder.read(file_of(segment, "events"))
        return [(seq, text) for seq, text, _ in parse_event_lines(raw)]

    def prove(self, index: int, checkpoint: Checkpoint) -> tuple[bytes, list[bytes]]:
        """Return a record and its path to a checkpoint's root.

        Raises:
            GoneError: ``request``: there is no such record, or it is gone.
            BundleRefusedError: ``log``: the log is damaged.
        """
        (record,) = self.records(index, 1, checkpoint.size)
        path = prove_inclusion(index, checkpoint.size, self.nodes(checkpoint.size))
        leaf = leaf_hash(record)
        if not verify_inclusion(leaf, index, checkpoint.size, path, checkpoint.root):
            raise BundleRefusedError(
                f"record {index} is not what was signed", reason=Reason.LOG
            )
        return record, path

    def grow(self, old: int, checkpoint: Checkpoint) -> list[bytes]:
        """Return the proof that a checkpoint's log begins with its first ``old``.

        Raises:
            GoneError: ``request``: it has no such beginning, or it is gone.
            BundleRefusedError: ``log``: the log is damaged.
        """
        size = checkpoint.size
        if not 0 <= old <= size:
            raise _absent(f"there are no {old} records among {size}")
        node = self.nodes(size)
        path = prove_consistency(old, size, node)
        before = self.root(old)
        if not verify_consistency(old, size, before, checkpoint.root, path):
            raise BundleRefusedError(
                "the log is not what was signed", reason=Reason.LOG
            )
        return path

    def root(self, size: int) -> bytes:
        """Return the root over the first ``size`` records.

        Raises:
            GoneError: ``request``: what it takes is gone.
        """
        return range_root(0, size, self.nodes(size))

    def nodes(self, size: int) -> Nodes:
        """Return the source of nodes of the log of ``size`` records."""
        roots = self._upper(size // SEGMENT_RECORDS)

        def node(level: int, index: int) -> bytes:
            if level >= SEGMENT_LEVEL:
                return roots[level - SEGMENT_LEVEL][index]
            segment, inside = divmod(index << level, SEGMENT_RECORDS)
            leaves = min(SEGMENT_RECORDS, size - segment * SEGMENT_RECORDS)
            return self._lower(segment, leaves)[level][inside >> level]

        return node

    def _upper(self, full: int) -> list[list[bytes]]:
        """Return the full subtrees over full segments, those themselves first."""
        raw = self._folder.read(ROOTS, 0, full * ROOT_BYTES)
        if len(raw) != full * ROOT_BYTES:
            raise BundleRefusedError(f"{ROOTS} is too short", reason=Reason.LOG)
        levels = [[root for root, _ in ROOT.iter_unpack(raw)]]
        while len(below := levels[-1]) > 1:
            pairs = zip(below[::2], below[1::2], strict=False)
            levels.append([node_hash(a, b) for a, b in pairs])
        return levels

    def _lower(self, segment: int, count: int) -> list[list[bytes]]:
        """Return the full subtrees within a segment: 4 ms for a full one."""
        key = (segment, count)
        if key not in self._levels:
            raw = self._folder.read(
                file_of(segment, "records"), 0, count * RECORD_BYTES
            )
            if len(raw) != count * RECORD_BYTES:
                raise self._missing(segment * SEGMENT_RECORDS)
            starts = range(0, len(raw), RECORD_BYTES)
            leaves = [leaf_hash(raw[at : at + RECORD_BYTES]) for at in starts]
            self._levels[key] = levels_of(leaves)
            while len(self._levels) > KEPT_SEGMENTS:
                self._levels.popitem(last=False)
        return self._levels[key]

    def _missing(self, index: int) -> GoneError:
        """Return the error for a record that has to be there and is not."""
        if index < self.first():
            return _absent(
                f"record {index} is gone: the log keeps {self.first()} and later",
                "Raise `audit.quota_mb` to keep more.",
            )
        raise BundleRefusedError(f"record {index} is missing", reason=Reason.LOG)


def _absent(what: str, todo: str = "") -> GoneError:
    """Return the error for what is not here."""
    return GoneError(what, reason=Reason.REQUEST, todo=todo)
