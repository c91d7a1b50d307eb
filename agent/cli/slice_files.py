"""The files of a repository slice: in a folder, or in a .tar or .zip of one.

The rules this module keeps:
 * Only regular files count, and only those whose names a repository has; links,
   devices and everything else are passed over.
 * Nothing is ever extracted: a member is read part by part, and its name is only
   compared, never opened.
 * What an archive says about sizes is checked by reading; more than ``MAX_FILES``
   names, or the same name twice, is no slice.
"""

import hashlib
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Protocol

from agent.cli.plain_text import plain
from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, SettingsError

MAX_FILES = 20_000  # 100 models in 100 versions with their metadata
READ_BYTES = 1024 * 1024
BEACON = "metadata/timestamp.json"  # where it lies, there is a repository
# The names that boards accept, as in agent.endpoint.uploads.
_PART = "[A-Za-z0-9_%][A-Za-z0-9._%+=@-]{0,199}"
_NAME = re.compile(rf"metadata/{_PART}[.]json|targets(/{_PART}){{1,8}}")
# One for each board of a fleet: they are looked for by name, and never listed.
_ENVELOPE = re.compile(rf"envelopes(/{_PART}){{3}}")
# What the readers of archives raise on bytes that are none.
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, NotImplementedError, ValueError, LookupError, OSError),
)


class Reader(Protocol):
    """Where files come from."""

    def names(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the size of every regular file."""
        ...

    def size(self, name: str) -> int:
        """Return the size of one regular file, 0 where there is none."""
        ...

    def read(self, name: str, first: int, count: int) -> bytes:
        """Return bytes of a file; fewer only at its end."""
        ...


class Slice:
    """A slice that several threads may read.

    Attributes:
        sizes: Path in the repository -> bytes.
    """

    def __init__(self, where: Path, reader: Reader) -> None:
        self._where = where
        self._reader = reader
        self._lock = Lock()
        self._digests: dict[str, str] = {}
        self._prefix, self.sizes = _find_files(where, reader)

    def find_envelope(self, path: str) -> bool:
        """Return whether there is such an envelope; then it is one of the files."""
        if _ENVELOPE.fullmatch(path) is None:
            return False
        with self._lock:
            size = self._reader.size(self._prefix + path)
        if size:
            self.sizes[path] = size
        return size > 0

    def read(self, path: str, first: int, count: int) -> bytes:
        """Return ``count`` bytes of a file, or what there is up to its end.

        Raises:
            BundleRefusedError: ``truncated``: it is shorter than it was said to be,
                or damaged.
        """
        count = min(count, self.sizes[path] - first)
        with self._lock:
            try:
                part = self._reader.read(self._prefix + path, first, count)
            except _BROKEN as err:
                raise self._damaged(path, str(err)) from err
        if len(part) != count:
            raise self._damaged(path, "it ends too early")
        return part

    def digest(self, path: str) -> str:
        """Return a file's SHA-256, reading it once."""
        if path not in self._digests:
            digest = hashlib.sha256()
            for first in range(0, self.sizes[path], READ_BYTES):
                digest.update(self.read(path, first, READ_BYTES))
            self._digests[path] = digest.hexdigest()
        return self._digests[path]

    def _damaged(self, path: str, why: str) -> AgentError:
        """Return the error for a file that cannot be read as promised."""
        return BundleRefusedError(
            f"{self._where}: {path}: {plain(why)}",
            reason=Reason.TRUNCATED,
            todo="Copy the folder or archive again.",
        )


@contextmanager
def open_slice(where: Path) -> Iterator[Slice]:
    """Open a folder or an archive as a slice.

    Raises:
        SettingsError: ``settings``: it is not there or may not be read.
        BundleRefusedError: ``metadata``: it holds no repository; ``malformed``: it is
            no archive; ``too_large``: it has too many files.
    """
    try:
        if where.is_dir():
            yield Slice(where, _Folder(where))
            return
        file = where.open("rb")
    except OSError as err:
        raise SettingsError(
            f"{where}: {err.strerror}",
            reason=Reason.SETTINGS,
            todo="Name a repository: a folder, or a .tar or .zip of one.",
        ) from err
    with file:
        yield Slice(where, _open_archive(where, file))


class _Folder:
    """A folder; links below it are not followed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> Iterator[tuple[str, int]]:
        for top in ("metadata", "targets"):
            for folder, _, names in os.walk(self._folder / top):
                for name in names:
                    path = Path(folder, name)
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode):
                        yield path.relative_to(self._folder).as_posix(), status.st_size

    def size(self, name: str) -> int:
        try:
            status = (self._folder / name).lstat()
        except OSError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def read(self, name: str, first: int, count: int) -> bytes:
        opened = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            return os.pread(opened, count, first)
        finally:
            os.close(opened)


class _Tar:
    """A tar archive, compressed or not."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members: dict[str, tarfile.TarInfo] = {}

    def names(self) -> Iterator[tuple[str, int]]:
        for member in self._tar:
            # A sparse member of a few bytes claims to be terabytes.
            if member.isreg() and not member.issparse():
                name = member.name.removeprefix("./")
                self._members[name] = member
                yield name, member.size

    def size(self, name: str) -> int:
        return self._members[name].size if name in self._members else 0

    def read(self, name: str, first: int, count: int) -> bytes:
        member = self._tar.extractfile(self._members[name])
        if member is None:
            return b""
        with member:
            member.seek(first)
            return member.read(count)


class _Zip:
    """A zip archive; the member that was read last stays open."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._sizes: dict[str, int] = {}
        self._reading: tuple[str, IO[bytes]] | None = None

    def names(self) -> Iterator[tuple[str, int]]:
        for entry in self._archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if not entry.is_dir() and kind in {0, stat.S_IFREG}:
                name = entry.filename.removeprefix("./")
                self._sizes[name] = entry.file_size
                yield name, entry.file_size

    def size(self, name: str) -> int:
        return self._sizes.get(name, 0)

    def read(self, name: str, first: int, count: int) -> bytes:
        if self._reading is None or self._reading[0] != name:
            self._reading = (name, self._archive.open(name))
        member = self._reading[1]
        if member.tell() != first:
            member.seek(first)
        return member.read(count)


def _open_archive(where: Path, file: IO[bytes]) -> Reader:
    """Return the reader of an archive.

    Raises:
        BundleRefusedError: ``malformed``: it is none.
    """
    try:
        # Asked first: bundles are zips, so a tar of them ends like one.
        if tarfile.is_tarfile(file):
            file.seek(0)
            return _Tar(tarfile.open(fileobj=file))
        file.seek(0)
        return _Zip(zipfile.ZipFile(file))
    except _BROKEN as err:
        raise BundleRefusedError(
            f"{where} is neither a folder nor a .tar or .zip: {plain(err)}",
            reason=Reason.MALFORMED,
            todo="Name a repository: a folder, or a .tar or .zip of one.",
        ) from err


def _find_files(where: Path, reader: Reader) -> tuple[str, dict[str, int]]:
    """Return the folder in which the repository lies, and its files.

    Raises:
        BundleRefusedError: There is none, or it is none.
    """
    found: dict[str, int] = {}
    try:
        for name, size in reader.names():
            if name in found:
                raise _refused(where, f"{plain(name)} twice", Reason.MALFORMED)
            if "targets/" not in name and _ENVELOPE.search(name) is not None:
                continue
            found[name] = size
            if len(found) > MAX_FILES:
                raise _refused(where, f"over {MAX_FILES} files", Reason.TOO_LARGE)
    except _BROKEN as err:
        raise BundleRefusedError(
            f"{where}: the archive is cut or damaged: {plain(err)}",
            reason=Reason.TRUNCATED,
            todo="Copy the folder or archive again.",
        ) from err
    tops = [name.removesuffix(BEACON) for name in found if _is_beacon(name)]
    if len(tops) != 1:
        what = f"{len(tops)} files {BEACON}" if tops else f"no file {BEACON}"
        raise _refused(where, what, Reason.METADATA)
    cut = len(tops[0])
    inside = {name[cut:]: size for name, size in found.items() if name[:cut] == tops[0]}
    return tops[0], {name: size for name, size in inside.items() if _is_ours(name)}


def _is_beacon(name: str) -> bool:
    """Return whether a name is that of a repository's timestamp."""
    return name == BEACON or name.endswith(f"/{BEACON}")


def _is_ours(name: str) -> bool:
    """Return whether a repository has files of such a name.

    >>> _is_ours("targets/models/kws/1.bundle"), _is_ours("targets/../keys")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def _refused(where: Path, what: str, reason: Reason) -> BundleRefusedError:
    """Return the error for something that is no slice."""
    return BundleRefusedError(
        f"{where} is no repository: it has {plain(what)}",
        reason=reason,
        todo="Name a repository as `tinyward repo` makes it, or a .tar or .zip of one.",
    )
