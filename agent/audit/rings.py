"""Rings of receipts that outlive a killed daemon: files of a memory file system.

The rules this module keeps:
 * They lie where no disk is: in ``$RUNTIME_DIRECTORY``, ``$XDG_RUNTIME_DIR`` or
   ``/dev/shm``, whichever is memory; in a folder that is this user's alone and named
   after the state directory. Without one, rings die with the daemon, as they are then
   anonymous memory, and the next start says that something may be missing.
 * A ring is locked by its file: who has mapped it holds the lock until it is dead.
 * All of a ring's memory is taken when it is made: no write to it can fail later.
 * Of each pipeline the last two are kept: what the last but one held is on the disk by
   then, or is counted as lost.
"""

import fcntl
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from agent.core.receipts import RING_BYTES, name_word

log = logging.getLogger(__name__)
MEMORY = {"tmpfs", "ramfs"}
MOUNTS = Path("/proc/self/mountinfo")
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a folder in it is made, and looked at
SUFFIX, MARKER = ".ring", "kept"
KEPT_LIVES = 2
PRIVATE_FOLDER, PRIVATE = 0o700, 0o600
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL
Told = Callable[[], tuple[int, int]]


class Rings:
    """Makes the rings of one daemon's life, and knows what the last one left.

    Args:
        folder: Where they lie; None where there is no memory for them.
        boot: The kernel's boot id.
        told: Returns the log as a word, and how many inferences it knows of by now:
            those that it has and those that it lost.

    Attributes:
        left: Rings of the last life, if it did not end in peace.
        was_kept: Whether that life kept all of its rings here.
    """

    def __init__(self, folder: Path | None, boot: str, told: Told) -> None:
        self.folder = folder
        self.boot = word_of(boot)
        self._told = told
        self._life = os.urandom(4).hex()
        self._made: dict[str, list[Path]] = {}
        self._count = 0
        self._unkept = False
        self.left: list[Path] = []
        self.was_kept = False
        if folder is not None:
            self.left = sorted(folder.glob(f"*{SUFFIX}"))
            self.was_kept = (folder / MARKER).exists()

    def keep(self) -> None:
        """Say that a kill from now on loses nothing, if all rings lie here."""
        if self.folder is not None and not self._unkept:
            with suppress(OSError):
                (self.folder / MARKER).touch(PRIVATE)

    def make(self, pipeline: str) -> int | None:
        """Return the descriptor of a new ring; None where there is no room for one."""
        if self.folder is None:
            return None
        self._count += 1
        name = f"{name_word(pipeline):08x}-{self._life}-{self._count}{SUFFIX}"
        path = self.folder / name
        try:
            descriptor = os.open(path, _FLAGS, PRIVATE)
            try:
                os.posix_fallocate(descriptor, 0, RING_BYTES)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                remove(path)
                raise
        except OSError as err:
            # From now on a kill may lose what nobody can count.
            self._unkept = True
            remove(self.folder / MARKER)
            said = {"pipeline": pipeline, "detail": str(err)}
            log.warning("receipts.ring_not_kept", extra=said)
            return None
        made = self._made.setdefault(pipeline, [])
        made.append(path)
        while len(made) > KEPT_LIVES:
            remove(made.pop(0))
        return descriptor

    def told(self) -> tuple[int, int, int]:
        """Return what a ring says of its time: boot, log, and inferences so far."""
        return self.boot, *self._told()

    def settle(self) -> None:
        """Keep no more of the last life than is on the disk by now."""
        self.forget_left()
        self.keep()

    def forget_left(self) -> None:
        """Remove what the last life left: it is on the disk."""
        for path in self.left:
            remove(path)
        self.left = []

    def forget(self) -> None:
        """Remove all of it: this life ended in peace, and all is on the disk."""
        self.forget_left()
        for made in self._made.values():
            for path in made:
                remove(path)
        self._made.clear()
        if self.folder is not None:
            remove(self.folder / MARKER)
            with suppress(OSError):
                self.folder.rmdir()


def memory_folder(state_dir: Path) -> Path | None:
    """Return where the rings of a state directory lie; None where they cannot."""
    whose = sha256(os.fsencode(state_dir.resolve())).hexdigest()[:16]
    places = [os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]]
    places += [os.environ.get("XDG_RUNTIME_DIR", ""), SHARED_MEMORY]
    for place in filter(None, places):
        path = Path(place) / f"tinyward-{os.geteuid()}-{whose}"
        try:
            if not is_memory(Path(place)):
                continue
            path.mkdir(PRIVATE_FOLDER, exist_ok=True)
            if is_ours(path.lstat(), stat.S_IFDIR):
                return path
        except OSError as err:
            log.info("receipts.no_memory", extra={"path": place, "detail": str(err)})
    return None


def is_memory(path: Path) -> bool:
    """Whether what lies there is in memory, and never on a disk (but for swap).

    Source: proc_pid_mountinfo(5).
    """
    device = path.stat().st_dev
    numbers = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
        mount, _, filesystem = line.partition(" - ")
        if mount.split()[2] == numbers:
            return filesystem.split()[0] in MEMORY
    return False


def is_ours(status: os.stat_result, kind: int) -> bool:
    """Whether this is of a kind, and nobody else may write it."""
    mine = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return mine and stat.S_IFMT(status.st_mode) == kind


def word_of(text: str) -> int:
    """Return what a name is in a ring's header: eight bytes of its hash."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little")


def remove(path: Path) -> None:
    """Remove a file; one that cannot be removed is looked at, at the next start."""
    with suppress(OSError):
        path.unlink()
