"""Reading a repository that is a directory: a disk, a mount, a USB stick.

The rules this module keeps:
 * Only regular files below the directory are opened, and never more than the caller's
   limit is kept: a pipe, a device or an endless file cannot hold us.
 * Names come from metadata: one that could lead out of the directory is not opened.
 * Whatever goes wrong leaves as python-tuf's ``DownloadError``, also from within the
   iteration; an absent file is 404, which is how TUF ends a chain of roots.
"""

import os
import stat
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
)
from tuf.ngclient import FetcherInterface

CHUNK_BYTES = 256 * 1024  # large enough to be fast, small enough for a Pi Zero
# Opening a pipe that nobody writes would wait for ever without O_NONBLOCK.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class DirectoryFetcher(FetcherInterface):
    """Serves python-tuf the files of one directory; URLs are relative paths."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self, url: str) -> Generator[bytes, None, None]:
        """Open a file at once, and return its chunks; to be closed by the caller.

        Raises:
            DownloadError: It cannot be read, or is absent (404).
        """
        return _chunks(self._open(url), url)

    def _fetch(self, url: str) -> Generator[bytes, None, None]:
        """Serve python-tuf."""
        return self.open(url)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return a whole file, from memory: $TMPDIR may be full, or small.

        Raises:
            DownloadError: It cannot be read, is absent (404) or too long.
        """
        content = bytearray()
        with closing(self.open(url)) as chunks:
            for chunk in chunks:
                content += chunk
                if len(content) > max_length:
                    raise DownloadLengthMismatchError(
                        f"{url} has more than {max_length} bytes"
                    )
        return bytes(content)

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


def _chunks(descriptor: int, url: str) -> Generator[bytes, None, None]:
    """Yield a file's content and close it."""
    try:
        while chunk := os.read(descriptor, CHUNK_BYTES):
            yield chunk
    except OSError as err:
        raise DownloadError(f"{url}: {err}") from err
    finally:
        os.close(descriptor)
