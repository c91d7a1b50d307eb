"""The few changes to a file system that an installation is made of, each durable.

The rules this module keeps:
 * Whatever is written or linked appears whole, by one rename, and is on the medium
   when the call returns: a power cut leaves the old or the new, never a half.
 * What is written aside has one fixed name, so that a killed run leaves nothing that
   the next one does not replace.
 * An ``OSError`` leaves as a ``DeviceError`` that says who can do what.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.core.disk_reasons import disk_error
from agent.core.reasons import Reason

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TODOS = {
    Reason.DISK_FULL: "Free space there and run the same command again.",
    Reason.READ_ONLY: "Remount it read-write (`mount -o remount,rw`), then again.",
    Reason.STATE: "Look at what is at that path; then run the same command again.",
}


@contextmanager
def machine_errors() -> Iterator[None]:
    """Report what the operating system says as the operator's to mend.

    Raises:
        DeviceError: ``disk_full``, ``read_only``, ``permission`` or ``state``.
    """
    try:
        yield
    except OSError as err:
        raise disk_error(err, _TODOS) from err


class Tree:
    """Changes files; tests stand in between by overriding ``about_to``."""

    def about_to(self, change: str, path: Path) -> None:
        """Called before each change that a power cut could come after."""
        del change, path

    def write(
        self, path: Path, content: bytes, mode: int = 0o644, group: int = 0
    ) -> None:
        """Replace a file, its mode and group (a number); folders above it are made.

        Raises:
            DeviceError: It cannot be written; the old one is still there.
        """
        with machine_errors():
            self._make_folder(path.parent)
            aside = path.with_name(f".{path.name}.tmp")
            self._clear(aside)  # O_EXCL: nobody else's file or link is written to
            self.about_to("write", aside)
            descriptor = os.open(aside, _FLAGS, mode)
            with os.fdopen(descriptor, "wb") as file:
                if group:
                    os.fchown(file.fileno(), -1, group)
                os.fchmod(file.fileno(), mode)  # the umask is nobody's intention
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self.rename(aside, path)

    def link(self, path: Path, target: str) -> None:
        """Make a symbolic link point somewhere, at one moment.

        Raises:
            DeviceError: It cannot be made; the old one is still there.
        """
        with machine_errors():
            self._make_folder(path.parent)
            aside = path.with_name(f".{path.name}.tmp")
            self._clear(aside)
            self.about_to("link", aside)
            # `ln -sfn` removes first: a power cut between would leave no version.
            aside.symlink_to(target)
            self.rename(aside, path)

    def rename(self, source: Path, path: Path) -> None:
        """Give something its final name, durably.

        Raises:
            DeviceError: It cannot be done.
        """
        with machine_errors():
            self.about_to("rename", path)
            source.replace(path)
            _sync(path.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, a link or a whole folder; what is not there is fine.

        Raises:
            DeviceError: It cannot be removed.
        """
        with machine_errors():
            if not path.is_symlink() and not path.exists():
                return
            self._clear(path)
            _sync(path.parent)

    def remove_if_empty(self, path: Path) -> None:
        """Remove a folder that holds nothing any more.

        Raises:
            DeviceError: It cannot be removed.
        """
        with machine_errors():
            if path.is_dir() and not any(path.iterdir()):
                self.about_to("rmdir", path)
                path.rmdir()
                _sync(path.parent)

    def sync(self, folder: Path) -> None:
        """Return when a folder and all below it is on the medium.

        Raises:
            DeviceError: It cannot be read.
        """
        with machine_errors():
            for place in (*folder.rglob("*"), folder):
                if not place.is_symlink():
                    _sync(place)

    def _clear(self, path: Path) -> None:
        """Remove whatever has a name; a link itself, not what it points to."""
        if path.is_dir() and not path.is_symlink():
            self.about_to("remove", path)
            shutil.rmtree(path)  # follows no link, also not one that appears meanwhile
        elif path.is_symlink() or path.exists():
            self.about_to("remove", path)
            path.unlink()

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, for all to read."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        self.about_to("mkdir", folder)
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the medium."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
