"""The inbox: a repository slice on its way in, file by file, resumed where it stopped.

The rules this module keeps:
 * ``part/<sha256>`` grows at its end only; ``whole/<sha256>`` was hashed after it was
   read back from the medium; ``slice/<path>`` is a second name of it, given by one
   rename. So a file of the slice is whole at any moment, also after ``kill -9``.
 * Paths come from outside and are checked by a whitelist before they touch the disk;
   no directory on the way is a link.
 * Bytes, files and depth are bounded, and the bound counts what is really here.
 * The slice proves nothing: TUF verifies it like any repository.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, RequestRefusedError
from agent.store.atomic import Disk, device_error, device_errors
from agent.store.objects import DIGEST
from agent.store.parts import is_own_file
from agent.store.room import bytes_in
from agent.store.slice_path import check_slice_path
from agent.store.staging import digest_of_file

MAX_FILES = 1024  # 256 roots, and a hundred pipelines with all that is signed for them
STRIPES = 16  # locks on uploads: one per first digit of a digest


def _no_quota(length: int) -> None:
    """There is room."""
    del length


class Inbox:
    """The folder ``inbox`` of a state directory; the store's lock protects it, too.

    All methods may be called from any thread. Beyond what they say themselves, all
    raise ``DeviceError`` (``disk_full``, ``read_only``, ``descriptors``, ``state``).

    Attributes:
        folder: The slice: a repository directory with ``metadata`` and ``targets``.
    """

    def __init__(
        self,
        state_dir: Path,
        max_bytes: int,
        disk: Disk | None = None,
        *,
        make_room: Callable[[int], None] = _no_quota,
    ) -> None:
        """Create what is missing, and tidy what was left.

        Args:
            state_dir: The state directory, locked by its store.
            max_bytes: What uploads may take on disk together.
            disk: Performs the steps; tests pass one that interrupts them.
            make_room: Called with the length of an upload that begins; it may refuse.
        """
        self._disk = disk or Disk()
        self._max_bytes = max_bytes
        self._make_room = make_room
        self._inbox = state_dir / "inbox"
        self._parts, self._whole = self._inbox / "part", self._inbox / "whole"
        self.folder = self._inbox / "slice"
        self._uploads = [threading.Lock() for _ in range(STRIPES)]
        self._names = threading.Lock()  # taken after an upload's lock, never before
        self._changes = 0
        with device_errors(self._inbox):
            for folder in (self._inbox, self._parts, self._whole, self.folder):
                self._make_folder(folder)
            self._tidy()
        self._taken = bytes_in(self._inbox)

    # What listeners need

    def offset(self, sha256: str) -> int:
        """Return how many bytes of an upload are here; its length once it is whole.

        Raises:
            RequestRefusedError: ``request``: this is no SHA-256.
        """
        _check_digest(sha256)
        with device_errors(self._inbox):
            return max(_size(self._parts / sha256), _size(self._whole / sha256))

    def append(self, sha256: str, length: int, offset: int, content: bytes) -> int:
        """Add bytes at ``offset``, which must be the next; return the next offset.

        Raises:
            RequestRefusedError: ``request``: another offset is the next.
            BundleRefusedError: ``length``: nothing, or more than was announced;
                ``too_large``: more than uploads may take together.
            DeviceError: ``quota``: more than there is room for beside other uploads.
        """
        _check_digest(sha256)
        if length < 1 or offset + len(content) > length:
            raise _refused(f"{sha256} is not {length} bytes long", Reason.LENGTH)
        if length > self._max_bytes:
            what = f"{length} bytes, at most {self._max_bytes} may be uploaded"
            raise _refused(what, Reason.TOO_LARGE)
        with self._upload(sha256), device_errors(self._inbox):
            known = self.offset(sha256)
            if offset != known:
                raise _request(f"{sha256} goes on at {known}, not at {offset}")
            if content:
                self._note_change()
                self._add(sha256, length - known, content)
        return offset + len(content)

    def place(self, sha256: str, length: int, path: str) -> None:
        """Verify an upload that is whole and give it its place in the slice.

        A file that is there already is replaced, and so is its own earlier upload; the
        same upload may be placed twice.

        Raises:
            RequestRefusedError: ``request``: a path that no slice has.
            BundleRefusedError: ``length``: it is not whole; ``digest``: it is other
                bytes, which are removed; ``too_large``: no metadata is that long.
        """
        _check_digest(sha256)
        check_slice_path(path, length)
        with self._upload(sha256), device_errors(self._inbox):
            found = self._parts / sha256
            if not os.path.lexists(found):
                found = self._whole / sha256
            if _size(found) != length:
                raise _refused(
                    f"{path} has {_size(found)} of {length} bytes", Reason.LENGTH
                )
            self._verify(found, sha256)
            self._note_change()
            with self._names:
                self._give_name(found, sha256, self._folder_of(path))

    def clear(self) -> None:
        """Remove everything that was uploaded, what is on its way included."""
        with self._all_locks():
            self._remove_all()

    # What updates need

    @property
    def changes(self) -> int:
        """How often something was uploaded or placed in this life."""
        return self._changes

    def clear_unless_changed(self, since: int) -> bool:
        """Remove everything, unless more came since ``changes`` was ``since``.

        Returns:
            Whether it was removed; what came later may belong to the next slice.
        """
        with self._all_locks():
            if self._changes == since:
                self._remove_all()
            return self._changes == since

    def filled(self) -> bool:
        """Return whether there is a slice: its timestamp, which is uploaded last."""
        with device_errors(self._inbox):
            return self._timestamp().is_file()

    # How it is done

    @contextmanager
    def _all_locks(self) -> Iterator[None]:
        """Keep everybody from every upload."""
        with ExitStack() as locks, device_errors(self._inbox):
            for lock in (*self._uploads, self._names):
                locks.enter_context(lock)
            yield

    def _remove_all(self) -> None:
        """Remove what was uploaded; to be called with all locks."""
        # First: without it there is no slice, whatever else is left of it.
        self._disk.remove(self._timestamp())
        for folder in (self.folder, self._whole, self._parts):
            self._remove_below(folder)
        self._taken = 0

    def _note_change(self) -> None:
        """Count a change before it is made; to be called with its upload's lock."""
        with self._names:
            self._changes += 1

    def _timestamp(self) -> Path:
        """Return where the file lies that names all others."""
        return self.folder / "metadata" / "timestamp.json"

    @contextmanager
    def _upload(self, sha256: str) -> Iterator[None]:
        """Keep others from the same upload, hashing it included."""
        with self._uploads[int(sha256[0], 16)]:
            yield

    def _add(self, sha256: str, left: int, content: bytes) -> None:
        """Write the next bytes of an upload of which ``left`` are still to come."""
        part = self._parts / sha256
        begins = not part.exists()
        self._reserve(left, len(content), begins=begins)
        try:
            descriptor = self._open_part(part, begins=begins)
            try:
                end = os.fstat(descriptor).st_size
                os.lseek(descriptor, end, os.SEEK_SET)
                self._write(descriptor, end, content)
            finally:
                os.close(descriptor)
        except BaseException:
            with self._names:
                self._taken -= len(content)
            raise

    def _reserve(self, left: int, count: int, *, begins: bool) -> None:
        """Count bytes that are to come, if all of their upload would fit."""
        if begins:
            self._make_room(left)
        with self._names:
            names = (*self._parts.iterdir(), *self._whole.iterdir())
            full = begins and len(names) >= MAX_FILES
            if full or self._taken + left > self._max_bytes:
                raise device_error(
                    Reason.QUOTA,
                    f"uploads take {self._taken} bytes in {len(names)} files; {left}"
                    f" more exceed {self._max_bytes} bytes or {MAX_FILES} files",
                )
            self._taken += count

    def _open_part(self, part: Path, *, begins: bool) -> int:
        """Open an upload at its beginning or to go on with it."""
        if begins:
            return self._disk.create(part, 0)
        return self._disk.reopen(part)

    def _write(self, descriptor: int, end: int, content: bytes) -> None:
        """Append all of ``content``, or nothing."""
        try:
            self._disk.write(descriptor, memoryview(content))
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, end)
            raise

    def _verify(self, found: Path, sha256: str) -> None:
        """Sync an upload, read it back from the medium, and hash it."""
        descriptor = self._disk.open_regular(found)
        try:
            self._disk.seal(descriptor)
            self._disk.sync(descriptor)
            right = digest_of_file(descriptor) == sha256
        finally:
            os.close(descriptor)
        if not right:
            with self._names:
                self._remove(found)
            raise _refused(f"{sha256} has other bytes", Reason.DIGEST)

    def _folder_of(self, path: str) -> Path:
        """Return where a path of the slice lies, and make the folders on the way."""
        *folders, name = path.split("/")
        folder = self.folder
        for segment in folders:
            folder /= segment
            if os.path.lexists(folder) and not folder.is_dir():
                raise _request(f"{path} lies below a file")
            self._make_folder(folder)
        if (folder / name).is_dir():
            raise _request(f"{path} is a folder already")
        return folder / name

    def _give_name(self, found: Path, sha256: str, path: Path) -> None:
        """Move an upload to the whole ones, and give it its name in the slice."""
        whole, aside = self._whole / sha256, self._parts / f"{sha256}.name"
        if found != whole:
            self._disk.rename(found, whole)
            self._disk.sync_directory(self._whole)
        self._disk.remove(aside)
        os.link(whole, aside)
        if os.path.lexists(path) and not path.samefile(whole):
            self._remove(path)
        self._disk.rename(aside, path)
        # Two names of one file: rename leaves both, if path was one of them already.
        self._disk.remove(aside)
        self._disk.sync_directory(path.parent)
        self._sweep()

    def _sweep(self) -> None:
        """Remove whole uploads that lost their last name in the slice."""
        for found in self._whole.iterdir():
            if found.lstat().st_nlink == 1:
                self._remove(found)

    def _remove(self, path: Path) -> None:
        """Remove a name, and count its bytes out if it was the last one."""
        found = path.lstat()
        self._disk.remove(path)
        if found.st_nlink == 1:
            self._taken -= found.st_size

    def _tidy(self) -> None:
        """Take up after a death: what was whole and not placed can be placed again."""
        for found in self._whole.iterdir():
            if found.lstat().st_nlink == 1:
                self._disk.rename(found, self._parts / found.name)
        for found in self._parts.iterdir():
            if not DIGEST.match(found.name) or not is_own_file(found):
                self._disk.remove(found)

    def _remove_below(self, folder: Path) -> None:
        """Remove all that a folder holds, and no link's target."""
        for found in folder.iterdir():
            if found.is_dir() and not found.is_symlink():
                self._remove_below(found)
                found.rmdir()
            else:
                self._disk.remove(found)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder durably, unless it is there; a link to one is none."""
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "a link, not a folder", str(folder))
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            self._disk.sync_directory(folder.parent)


def _size(path: Path) -> int:
    """Return how many bytes a regular file has, 0 where there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _check_digest(sha256: str) -> None:
    """The name of an upload is a SHA-256 in lower case hex."""
    if not DIGEST.match(sha256):
        raise _request(f"{sha256[:80]!r} is no SHA-256")


def _request(what: str) -> RequestRefusedError:
    """Return the error for what cannot be done as things are."""
    reason = Reason.REQUEST
    return RequestRefusedError(what, reason=reason, todo=EXPLANATIONS[reason].todo)


def _refused(what: str, reason: Reason) -> BundleRefusedError:
    """Return the error for bytes that are not the announced ones."""
    return BundleRefusedError(what, reason=reason, todo=EXPLANATIONS[reason].todo)
