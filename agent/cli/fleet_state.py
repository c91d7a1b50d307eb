"""The file of a rollout: what is durable of it, who works on it, what others ask.

The rules this module keeps:
 * A file is replaced whole and synced before anything that it says is done.
 * It carries a checksum and what it belongs to: a file that was edited by hand, or is
   another rollout's, is refused and never guessed at.
 * One process works on it, by ``flock`` on a file beside it, since it is replaced
   itself; others leave an order beside it, which that process takes within a moment.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from agent.core.disk_reasons import disk_error
from agent.core.mistakes import describe_mistake
from agent.core.reasons import Reason
from agent.core.targets import GroupFile
from agent.core.waves import Course, Phase
from agent.errors import DeviceError, SettingsError

FORMAT = 1
MAX_BYTES = 64 * 1024 * 1024  # ten thousand boards with all their figures take 8 MB
Mode = Literal["push", "repository"]


class Strict(Struct, frozen=True, forbid_unknown_fields=True):
    """Base: immutable, strict when read back."""


class Kept(Strict, frozen=True):
    """A rollout as it is kept.

    Attributes:
        assign: Pipeline -> (model, version); an empty model is the pipeline's own.
        mode: Boards are told by us (``push``), or by signed group files.
        salt: Draws the boards of shares.
        waves: (name, boards that no wave before has).
        course: How far it has come.
        id: Says which rollout this is, in reports.
        files: Group files by group, as we published them last or found them.
    """

    assign: dict[str, tuple[str, int]]
    mode: Mode
    salt: str
    waves: tuple[tuple[str, tuple[str, ...]], ...]
    course: Course
    id: str = ""
    files: dict[str, GroupFile] = {}

    @property
    def is_open(self) -> bool:
        """Whether it has neither come to its end nor was ended."""
        return self.course.phase in {Phase.RUNNING, Phase.PAUSED}

    def title(self) -> str:
        """Return what it brings: ``door = kws 8``."""
        rows = sorted(self.assign.items())
        return ", ".join(
            f"{name} = {f'{model} ' if model else ''}{version}"
            for name, (model, version) in rows
        )


class Envelope(Strict, frozen=True):
    """The file: a rollout, and the digest of its canonical spelling."""

    format: int
    checksum: str
    rollout: Kept


class Asked(Strict, frozen=True):
    """What another terminal asks of the process that rolls out.

    Attributes:
        back: Boards that were updated go back; only with ``abort``.
        by: Who asked, for people.
    """

    order: Literal["pause", "abort"]
    back: bool = False
    by: str = ""


class StateFile:
    """One rollout's file, and those beside it.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = path.with_name(f"{path.name}.lock")
        self._asked = path.with_name(f"{path.name}.order")

    def load(self) -> Kept | None:
        """Return the rollout; None where there is no file.

        Raises:
            SettingsError: ``rollout``: the file is damaged, or was edited.
            DeviceError: It cannot be read.
        """
        raw = _read(self.path)
        if raw is None:
            return None
        if len(raw) > MAX_BYTES:
            raise self._wrong(f"it has more than {MAX_BYTES} bytes")
        try:
            found = msgspec.json.decode(raw, type=Envelope)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
            raise self._wrong(describe_mistake(str(err))) from err
        if found.format != FORMAT:
            raise self._wrong(f"its format is {found.format}, not {FORMAT}")
        if found.checksum != checksum_of(found.rollout):
            raise self._wrong("it was changed by somebody else: its checksum is wrong")
        self._check(found.rollout)
        return found.rollout

    def save(self, kept: Kept) -> None:
        """Replace the file, durably.

        Raises:
            DeviceError: It could not be written; the old one is still there.
        """
        sealed = Envelope(FORMAT, checksum_of(kept), kept)
        content = msgspec.json.encode(sealed, order="sorted") + b"\n"
        aside = self.path.with_name(f"{self.path.name}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with _disk():
            with os.fdopen(os.open(aside, flags, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only one who works on this rollout.

        Raises:
            DeviceError: ``locked``: another process does; ``permission``...
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with _disk():
            descriptor = os.open(self._lock, flags, 0o600)
        try:
            self._take(descriptor)
            yield
        finally:
            os.close(descriptor)

    def is_held(self) -> bool:
        """Return whether a process works on this rollout now."""
        try:
            with self.held():
                return False
        except DeviceError as err:
            if err.reason != Reason.LOCKED:
                raise
            return True

    def ask(self, asked: Asked) -> None:
        """Leave an order for the process that works on this rollout.

        Raises:
            DeviceError: It cannot be written.
        """
        aside = self._asked.with_name(f"{self._asked.name}.{os.getpid()}")
        with _disk():
            aside.write_bytes(msgspec.json.encode(asked))
            aside.replace(self._asked)

    def asked(self) -> Asked | None:
        """Return the order that was left, if there is one.

        Raises:
            SettingsError: ``rollout``: it is not understood.
        """
        raw = _read(self._asked)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=Asked)
        except (msgspec.MsgspecError, UnicodeDecodeError) as err:
            raise _rollout(f"{self._asked}: {err}", f"Remove {self._asked}.") from err

    def is_asked(self) -> bool:
        """Return whether an order waits to be taken."""
        return self._asked.exists()

    def forget_asked(self) -> None:
        """Remove the order, once what it asks for is durable."""
        with _disk():
            self._asked.unlink(missing_ok=True)

    def _take(self, descriptor: int) -> None:
        """Take the lock, or name its holder."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace")
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise DeviceError(
                f"{self.path}: {who} works on this rollout already",
                reason=Reason.LOCKED,
                todo="Watch it there; `tinyward fleet pause` or `abort` stops it.",
            ) from err
        # A courtesy only: where there is no room for the number, the lock holds anyway.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)

    def _check(self, kept: Kept) -> None:
        """Check that the parts of a rollout fit each other.

        Raises:
            SettingsError: ``rollout``.
        """
        drawn = [board for _, boards in kept.waves for board in boards]
        course = kept.course
        fits = sorted(drawn) == sorted(course.boards) and kept.assign
        if not fits or not 0 <= course.wave < len(kept.waves):
            raise self._wrong("its waves and its boards do not fit together")

    def _wrong(self, what: str) -> SettingsError:
        """Return the error for a file that cannot be relied on."""
        return _rollout(
            f"{self.path}: {what}",
            "Restore the file. Or remove it: then ask `tinyward fleet status` what "
            "boards run, and begin another rollout.",
        )


def checksum_of(kept: Kept) -> str:
    """Return the digest of a rollout's canonical spelling."""
    spelled = msgspec.json.encode(kept, order="sorted")
    return hashlib.sha256(spelled).hexdigest()


def check_belongs(saved: Kept, asked: Kept) -> None:
    """Check that a saved rollout is the one that is asked for.

    Raises:
        SettingsError: ``rollout``; the message says what is another.
    """
    if (saved.assign, saved.mode) != (asked.assign, asked.mode):
        raise _rollout(
            f"another rollout is under way: {saved.title()}, by {saved.mode}",
            "Finish it with its own command, or `tinyward fleet abort` it first.",
        )
    before, now = set(saved.course.boards), set(asked.course.boards)
    if before != now:
        news = [f"+{name}" for name in sorted(now - before)]
        news += [f"-{name}" for name in sorted(before - now)]
        some = ", ".join(news[:5]) + (", ..." if len(news) > 5 else "")
        raise _rollout(
            f"the inventory has other boards than this rollout began with: {some}",
            "Put them back until it is done, or `tinyward fleet abort` it.",
        )
    if (saved.waves, saved.salt) != (asked.waves, asked.salt):
        names = " ".join(f"--wave {name}" for name, _ in saved.waves)
        raise _rollout(
            f"this rollout began with other waves or groups: {names}",
            "Say the same waves again, or `tinyward fleet abort` it.",
        )


def _read(path: Path) -> bytes | None:
    """Return a file's content, up to its limit; None where there is no file."""
    with _disk():
        try:
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None


@contextmanager
def _disk() -> Iterator[None]:
    """Report trouble with the operator's disk.

    Raises:
        DeviceError: ``disk_full``, ``read_only``, ``permission`` or ``state``.
    """
    try:
        yield
    except FileNotFoundError as err:
        raise DeviceError(
            f"{err.filename}: the folder of a rollout's file is not there",
            reason=Reason.STATE,
            todo="Make the folder, or name another file with --state.",
        ) from err
    except OSError as err:
        raise disk_error(err, {}) from err


def _rollout(what: str, todo: str) -> SettingsError:
    """Return the error for a rollout's file."""
    return SettingsError(what, reason=Reason.ROLLOUT, todo=todo)
