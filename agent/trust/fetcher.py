"""What a repository's files are read through; and the reading of a directory.

A repository may be a disk, a mount or a USB stick (``DirectoryFetcher``, here) or lie
behind a network (``HttpFetcher``, in ``agent.trust.http_fetcher``); ``Fetcher`` is what
the rest of this folder needs of either.

The rules this module keeps:
 * Only regular files below the directory are opened, and never more than the caller's
   limit is kept: a pipe, a device or an endless file cannot hold us.
 * Names come from metadata: one that could lead out of the directory is not opened.
 * Whatever goes wrong leaves as python-tuf's ``DownloadError``, also from within the
   iteration; an absent file is 404, which is how TUF ends a chain of roots.
"""

import os
import stat
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
)
from tuf.ngclient import FetcherInterface

from agent.core.reasons import Reason

CHUNK_BYTES = 256 * 1024  # large enough to be fast, small enough for a Pi Zero
# Opening a pipe that nobody writes would wait for ever without O_NONBLOCK.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class TransportError(DownloadError):
    """The way to a repository failed; ``reason`` says how."""

    def __init__(self, message: str, reason: Reason = Reason.UNREACHABLE) -> None:
        super().__init__(message)
        self.reason = reason


def nobody_stops() -> None:
    """Go on: what is asked between two reads where nobody can end a fetch."""


def nothing_to_close() -> None:
    """Let go of nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was last served: its bytes, and the ETag they had, if any."""

    content: bytes = b""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A file that is being read, from ``start`` to its end; close it.

    Attributes:
        start: Offset of the first byte: what was asked for, or 0.
        length: How long the whole file is, None where nobody says.
        tag: Stands for exactly these bytes of the file; empty where there is none.
        chunks: The bytes.
        release: Lets go of what lies behind them.
    """

    start: int
    length: int | None
    tag: str
    chunks: Generator[bytes, None, None]
    release: Callable[[], None] = field(default=nothing_to_close)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close; a generator that was never started would not do it."""
        self.chunks.close()
        self.release()


class Fetcher(Protocol):
    """One repository's files; all calls raise ``DownloadError`` or ``DeviceError``."""

    @property
    def retry_after_s(self) -> float:
        """For how many seconds the last answer asked to be left alone."""

    def judge_by(
        self, now_s: float, floor_s: float, certificate_floor_s: float = 0.0
    ) -> None:
        """Learn the system clock and both floors of ``clock``, Unix seconds."""

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return a whole file."""

    def look(self, url: str, seen: Seen, max_length: int) -> Seen:
        """Return a file as it is now; what was seen before may spare the asking."""

    def open_part(
        self,
        path: str,
        start: int = 0,
        tag: str = "",
        pulse: Callable[[], None] = nobody_stops,
    ) -> Part:
        """Open a file; at ``start`` if it is still the one that ``tag`` stands for."""


class DirectoryFetcher(FetcherInterface):
    """Serves python-tuf the files of one directory; URLs are relative paths."""

    retry_after_s = 0.0  # a disk never asks

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def judge_by(
        self, now_s: float, floor_s: float, certificate_floor_s: float = 0.0
    ) -> None:
        """Learn nothing: a disk has no certificate."""
        del now_s, floor_s, certificate_floor_s

    def open_part(
        self,
        path: str,
        start: int = 0,
        tag: str = "",
        pulse: Callable[[], None] = nobody_stops,
    ) -> Part:
        """Open a file at once; at ``start`` if ``tag`` still stands for it.

        Raises:
            DownloadError: It cannot be read, or is absent (404).
        """
        descriptor = self._open(path)
        status = os.fstat(descriptor)
        served = f"{status.st_size}-{status.st_mtime_ns}"
        if tag != served or start > status.st_size:
            start = 0
        os.lseek(descriptor, start, os.SEEK_SET)
        opened = os.fdopen(descriptor, "rb", buffering=0)
        chunks = _chunks(descriptor, path, pulse)
        return Part(start, status.st_size, served, chunks, opened.close)

    def _fetch(self, url: str) -> Generator[bytes, None, None]:
        """Serve python-tuf."""
        with self.open_part(url) as part:
            yield from part.chunks

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return a whole file, from memory: $TMPDIR may be full, or small.

        Raises:
            DownloadError: It cannot be read, is absent (404) or too long.
        """
        content = bytearray()
        with closing(self._fetch(url)) as chunks:
            for chunk in chunks:
                content += chunk
                if len(content) > max_length:
                    raise DownloadLengthMismatchError(
                        f"{url} has more than {max_length} bytes"
                    )
        return bytes(content)

    def look(self, url: str, seen: Seen, max_length: int) -> Seen:
        """Return a file as it is now: reading it is cheaper than asking.

        Raises:
            DownloadError: As from ``download_bytes``.
        """
        del seen
        return Seen(self.download_bytes(url, max_length))

    def _open(self, url: str) -> int:
        """Return the descriptor of a regular file below the directory."""
        if "\0" in url or not {"..", "."}.isdisjoint(url.split("/")):
            raise DownloadError(f"{url!r} leads out of the repository")
        try:
            # Told apart from an absent file: an unmounted disk is nobody's 404.
            if not self.directory.is_dir():
                raise DownloadError(f"{self.directory} is not a directory")
            descriptor = os.open(self.directory / url.lstrip("/"), _FLAGS)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise DownloadHTTPError(f"{url} is missing", 404) from err
        except (OSError, ValueError) as err:
            raise DownloadError(f"{url}: {err}") from err
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise DownloadError(f"{url} is not a regular file")
        return descriptor


def _chunks(
    descriptor: int, url: str, pulse: Callable[[], None]
) -> Generator[bytes, None, None]:
    """Yield what is left of a file."""
    try:
        while chunk := os.read(descriptor, CHUNK_BYTES):
            yield chunk
            pulse()
    except OSError as err:
        raise DownloadError(f"{url}: {err}") from err
