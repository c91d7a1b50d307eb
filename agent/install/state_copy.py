"""The state as a version leaves it, kept while the next one is on trial.

A new version may migrate state.db to a schema that the one before cannot read. Going
back then needs the file as it was, and only then: an older copy would lower version
floors that have risen since.

The rules this module keeps:
 * Only called while no daemon runs. The copy lies in a folder of root's, whole or not
   at all.
 * The state directory belongs to the daemon, which may have been taken over: nothing in
   it is followed through a link, and what is put there has its owner.
 * The rollback journal is part of state.db: both are kept, and both put back.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.install.tree import Tree, machine_errors

# In the order of putting back: a journal that lay beside another file than its own
# would be played back into it, so it goes first and comes last.
NAMES = ("state.json", "state.db", "state.db-journal")
MAX_BYTES = 1 << 30  # a state.db has some hundred KB; more is none
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def keep_state(tree: Tree, state_dir: Path, place: Path) -> None:
    """Copy what state.db consists of into a folder of its own.

    Raises:
        DeviceError: It cannot be read or written; then there is no copy.
    """
    aside = place.with_name(f".{place.name}.tmp")
    tree.remove(aside)
    # Never an older one: what it would bring back is more than this version changes.
    tree.remove(place)
    with machine_errors():
        aside.mkdir(mode=0o700)
        folder = os.open(state_dir, _FOLDER)
        try:
            for name in NAMES:
                content = _read(folder, name)
                if content is not None:
                    tree.write(aside / name, content, 0o600)
        finally:
            os.close(folder)
    tree.rename(aside, place)


def restore_state(tree: Tree, place: Path, state_dir: Path) -> None:
    """Put the copy back; repeated after a power cut it does the same again.

    Raises:
        DeviceError: It cannot be read or written.
    """
    with machine_errors():
        source, folder = os.open(place, _FOLDER), -1
        try:
            folder = os.open(state_dir, _FOLDER)
            tree.about_to("remove", state_dir / NAMES[-1])
            _unlink(folder, NAMES[-1])
            for name in NAMES:
                content = _read(source, name)
                if content is not None:
                    tree.about_to("write", state_dir / name)
                    _put(folder, name, content)
            os.fsync(folder)  # before `current` is switched back to who reads this
        finally:
            os.close(source)
            if folder >= 0:
                os.close(folder)


def _read(folder: int, name: str) -> bytes | None:
    """Return a file's content, None where there is none."""
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        seen = os.fstat(file.fileno())
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > MAX_BYTES:
            raise DeviceError(f"{name} is no state of ours", reason=Reason.STATE)
        return file.read()


def _put(folder: int, name: str, content: bytes) -> None:
    """Replace a file by one of the folder's owner."""
    aside = f".{name}.restored"
    _unlink(folder, aside)
    owner = os.fstat(folder)
    with os.fdopen(os.open(aside, _WRITE, 0o600, dir_fd=folder), "wb") as file:
        file.write(content)
        os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, name, src_dir_fd=folder, dst_dir_fd=folder)


def _unlink(folder: int, name: str) -> None:
    """Remove a name; one that is not there is fine."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
