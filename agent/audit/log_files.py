"""The files of a log as they are verified: nothing in them but what belongs there."""

from collections.abc import Iterator
from dataclasses import dataclass

from agent.audit.files import Folder
from agent.audit.key import verify_ed25519
from agent.core.audit_events import parse_event
from agent.core.audit_layout import (
    ROOT_BYTES,
    ROOTS,
    SEALED_KEYS,
    SEGMENT_RECORDS,
    Frame,
    file_of,
    frames_bytes,
    parse_event_lines,
    parse_file_name,
    parse_frames,
    parse_sealed_keys,
)
from agent.core.checkpoint import Checkpoint, parse_checkpoint
from agent.core.log_proof import OLDER
from agent.core.note import NoteKey, open_note
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

# A reason's own advice is for who updates, or to verify: somebody has just done that.
TODOS = {
    Reason.LOG: "Keep the folder as it is: it is evidence. Compare with another copy "
    "of it.",
    Reason.SIGNATURE: "Name the verifier key of the board whose log this is: "
    "`tinyward audit key` there prints it.",
    Reason.REPLAYED: OLDER,
}


class LogFaultError(BundleRefusedError):
    """A log is not what its key signed.

    Attributes:
        evidence: Signed notes that prove it to others.
    """

    def __init__(
        self,
        message: str,
        reason: Reason = Reason.LOG,
        *evidence: str,
        todo: str = "",
    ) -> None:
        super().__init__(message, reason=reason, todo=todo or TODOS.get(reason, ""))
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint whose signature was verified, and the frame it lay in."""

    checkpoint: Checkpoint
    frame: Frame

    @property
    def note(self) -> str:
        """Its signed form."""
        return self.frame.note.decode()


class LogFiles:
    """A log's folder; every method raises ``LogFaultError`` or ``OSError``.

    Args:
        folder: Where it lies.
        key: By which its checkpoints are signed.
    """

    def __init__(self, folder: Folder, key: NoteKey) -> None:
        self._folder = folder
        self._key = key

    def segments(self) -> set[int]:
        """Return the segments whose records are there.

        Raises:
            LogFaultError: One is missing between others.
        """
        found = {parse_file_name(name) for name in self._folder.names()} - {None}
        kept = {it[0] for it in found if it and it[1] == "records"}
        for number in range(min(kept, default=0), max(kept, default=-1)):
            if number not in kept:
                raise LogFaultError(f"segment {number} is missing between others")
        # Of a segment that goes for the quota a loss of power may leave the rest.
        stray = {it[0] for it in found if it and it[0] >= min(kept, default=0)} - kept
        if stray:
            raise LogFaultError(f"segment {max(stray)} has lost its records")
        return kept

    def roots(self, first: int, last: int) -> bytes:
        """Return the roots of full segments.

        Raises:
            LogFaultError: There are fewer than segments, or more.
        """
        roots = self._folder.read(ROOTS)
        count, rest = divmod(len(roots), ROOT_BYTES)
        if rest or count < max(first, last) or count > last + 1:
            raise LogFaultError(f"{ROOTS} has {count} roots for {last + 1} segments")
        try:
            parse_sealed_keys(self._folder.read(SEALED_KEYS))
        except ValueError as err:
            raise LogFaultError(f"{SEALED_KEYS}: {err}") from err
        return roots

    def checkpoints(self, number: int) -> dict[int, list[Signed]]:
        """Return the checkpoints of a segment by size, the earliest first."""
        name = file_of(number, "notes")
        raw = self._folder.read(name)
        frames = parse_frames(raw)
        if frames_bytes(frames) != len(raw):
            rest = len(raw) - frames_bytes(frames)
            what = f"{name}: {rest} bytes that are no checkpoint: torn, or changed"
            raise LogFaultError(what)
        found: dict[int, list[Signed]] = {}
        for frame in frames:
            text = open_note(frame.note, self._key, verify_ed25519)
            checkpoint = parse_checkpoint(text)
            found.setdefault(checkpoint.size, []).append(Signed(checkpoint, frame))
        low = number * SEGMENT_RECORDS
        for size in found:
            if not low < size <= low + SEGMENT_RECORDS:
                raise LogFaultError(f"{name}: a checkpoint of {size} records")
        return found

    def events(self, number: int) -> dict[int, bytes]:
        """Return the events of a segment."""
        name = file_of(number, "events")
        raw = self._folder.read(name)
        lines = list(parse_event_lines(raw))
        if raw and (not lines or lines[-1][2] != len(raw)):
            raise LogFaultError(f"{name}: a line that is no event: torn, or changed")
        events = {seq: text for seq, text, _ in lines}
        low = number * SEGMENT_RECORDS
        inside = all(low <= seq < low + SEGMENT_RECORDS for seq in events)
        if len(events) != len(lines) or not inside:
            raise LogFaultError(f"{name}: events that are not of this segment")
        return events

    def newest(self) -> str:
        """Return the newest note that this key signed here.

        Raises:
            LogFaultError: ``signature``: there is none.
        """
        for note in reversed([it.note for it in self._all_frames()]):
            try:
                open_note(note, self._key, verify_ed25519)
            except BundleRefusedError:
                continue
            return note.decode()
        raise LogFaultError("another key signed this log", Reason.SIGNATURE)

    def follows(self) -> str:
        """Return which log came before this one, as its first event says."""
        lines = parse_event_lines(self._folder.read(file_of(0, "events")))
        text = next((it[1] for it in lines if it[0] == 0), b"{}")
        try:
            return str(parse_event(text).facts.get("follows", ""))
        except ValueError:
            return ""

    def _all_frames(self) -> Iterator[Frame]:
        """Yield all checkpoints that can be read."""
        for name in self._folder.names():
            found = parse_file_name(name)
            if found and found[1] == "notes":
                yield from parse_frames(self._folder.read(name))
