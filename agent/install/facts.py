"""What is on a machine already: read once, before anything is planned.

The rules this module keeps:
 * Looking changes nothing, and needs no rights beyond what files ask for: what may not
   be read counts as not there, so that ``--dry-run`` works for everybody.
 * Nothing is followed out of the tree: links are read, not resolved.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from struct import unpack_from
from types import MappingProxyType

from agent.errors import DeviceError, SettingsError
from agent.install.places import (
    BEFORE,
    CURRENT,
    DEMO_REPOSITORY,
    DEMO_ROOT,
    DEMO_STREAM,
    IDENTITY,
    PREVIOUS,
    SERVICE,
    SETTINGS,
    STARTED,
    STATE,
    TRIAL,
    USER,
    Places,
)
from agent.install.systemd import Systemd, UnitState
from agent.settings import Settings, parse_settings

# https://www.sqlite.org/fileformat2.html, section 1.3: offset of `user_version`.
_MAGIC = b"SQLite format 3\0"
_USER_VERSION = 60
_HEADER_BYTES = 100
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Found:
    """What has a name.

    Attributes:
        content: Of a regular file that may be read.
        target: Of a symbolic link.
        mode: Permission bits; 0 for a link.
    """

    content: bytes | None = None
    target: str = ""
    mode: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is.

    Attributes:
        current: The slot that runs, or is to run at the next start; "" for none.
        previous: The slot before.
        on_trial: Whether the current one has not been ready yet.
        found: What the paths that a plan is about have, by path.
        user: Whether the service's user and group exist.
        folders: Whether the directories of the tmpfiles fragment are as it says.
        demo: Whether the demo's signed model is there.
        identity: Whether the board has a key and a request.
        service: What systemd says of the service.
        state_dir: Where the daemon keeps its state, as the settings say.
        schema: Of its state; 0 for none, ``UNKNOWN`` where it is damaged.
        kept_schema: Of the state as the version before left it.
    """

    current: str = ""
    previous: str = ""
    on_trial: bool = False
    found: Mapping[str, Found] = field(default_factory=dict)
    user: bool = False
    folders: bool = False
    demo: bool = False
    identity: bool = False
    service: UnitState = field(default_factory=UnitState)
    state_dir: str = STATE
    schema: int = 0
    kept_schema: int = 0

    def has(self, path: str, content: bytes, mode: int) -> bool:
        """Whether a file is there with this content and these permissions."""
        return self.found.get(path) == Found(content=content, mode=mode)

    def links(self, path: str, target: str) -> bool:
        """Whether a link is there and points to that."""
        found = self.found.get(path)
        return found is not None and found.target == target


def look(
    places: Places,
    systemd: Systemd,
    paths: Iterable[str],
    tmpfiles: bytes,
    *,
    may_guess: bool = False,
) -> Facts:
    """Read everything that a plan depends on.

    Args:
        places: The tree.
        systemd: Asked about the service.
        paths: Whose content matters beside the fixed ones.
        tmpfiles: The fragment whose directories are compared.
        may_guess: Whether a systemd that does not answer this user is no error.

    Raises:
        DeviceError: systemd does not answer (without ``may_guess``).
    """
    # Links to slots are read apart: only their last part counts.
    named = {*paths, STARTED, SETTINGS, TRIAL}
    every = {path: found for path in named if (found := find(places.at(path)))}
    state_dir = _state_dir(every.get(SETTINGS))
    # One file of each part: all of it appears by one rename.
    demo = (f"{DEMO_REPOSITORY}/metadata/timestamp.json", DEMO_ROOT, DEMO_STREAM)
    keys = (f"{IDENTITY}/board.key", f"{IDENTITY}/board.csr")
    return Facts(
        current=_slot(places, CURRENT),
        previous=_slot(places, PREVIOUS),
        on_trial=TRIAL in every,
        found=MappingProxyType(every),
        user=user_id(places) >= 0 and group_id(places) >= 0,
        folders=_are_folders_made(places, tmpfiles),
        demo=all(_exists(places.at(path)) for path in demo),
        identity=all(_exists(places.at(path)) for path in keys),
        service=_service(systemd, may_guess=may_guess),
        state_dir=state_dir,
        schema=read_schema(places.at(f"{state_dir}/state.db")),
        kept_schema=read_schema(places.at(f"{BEFORE}/state.db")),
    )


def _service(systemd: Systemd, *, may_guess: bool) -> UnitState:
    """Return what the service is doing."""
    try:
        return systemd.state(SERVICE)
    except DeviceError:
        # Without D-Bus systemd answers root alone; a plan can be shown all the same.
        if not may_guess:
            raise
        return UnitState(active="unknown")


def find(path: Path) -> Found | None:
    """Return what has a name, None where nothing has it or it may not be seen."""
    try:
        seen = path.lstat()
        if stat.S_ISLNK(seen.st_mode):
            return Found(target=str(path.readlink()))
        mode = stat.S_IMODE(seen.st_mode)
        if not stat.S_ISREG(seen.st_mode):
            return Found(mode=mode)
        return Found(content=_read(path), mode=mode)
    except (OSError, ValueError):
        return None


def read_schema(path: Path) -> int:
    """Return the schema number in a state.db's header.

    Returns:
        0 where there is none or it may not be read, ``UNKNOWN`` where it is none.
    """
    # Not by SQLite: opening a database as root may leave files of root's behind.
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            header = file.read(_HEADER_BYTES)
    except (FileNotFoundError, PermissionError):
        return 0
    except OSError:
        return UNKNOWN
    if not header:
        return 0
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        return UNKNOWN
    (number,) = unpack_from(">i", header, _USER_VERSION)
    return int(number)


def user_id(places: Places) -> int:
    """Return the number of the service's user in the tree, -1 without one."""
    return _number(places.at("/etc/passwd"))


def group_id(places: Places) -> int:
    """Return the number of the service's group in the tree, -1 without one."""
    return _number(places.at("/etc/group"))


def configured(found: Found | None) -> Settings | None:
    """Return the settings in a file; None without any, or broken ones."""
    try:
        return parse_settings(found.content) if found and found.content else None
    except SettingsError:
        return None


def _number(path: Path) -> int:
    """Return the third field of the service's line: its number, as passwd(5) says."""
    # Of the tree's own file: the libraries' functions know this machine's users.
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return -1
    rows = (line.split(":") for line in lines)
    return next((int(row[2]) for row in rows if row[0] == USER and len(row) > 2), -1)


def _state_dir(found: Found | None) -> str:
    """Return the state directory that the settings name, as an absolute path."""
    settings = configured(found)
    named = settings.state_dir if settings else ""
    return named if named.startswith("/") else STATE


def _slot(places: Places, link: str) -> str:
    """Return the slot that a link points to."""
    found = find(places.at(link))
    return Path(found.target).name if found else ""


def _exists(path: Path) -> bool:
    """Whether a name is there; one that may not be looked at is not."""
    try:
        return path.exists()
    except OSError:
        return False


def _are_folders_made(places: Places, fragment: bytes) -> bool:
    """Whether the ``d`` lines of a tmpfiles.d(5) fragment hold."""
    rows = (line.split() for line in fragment.decode().splitlines())
    owners = {USER: (user_id(places), group_id(places)), "root": (0, 0)}
    for kind, path, mode, user, group, *_ in (row for row in rows if len(row) > 4):
        if kind != "d":  # modes of single files are only mended, never waited for
            continue
        try:
            seen = places.at(path).lstat()
        except OSError:
            return False
        wanted = (int(mode, 8), owners[user][0], owners[group][1])
        if (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) != wanted:
            return False
    return True


def _read(path: Path) -> bytes | None:
    """Return a small file's content, None where it may not be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None
