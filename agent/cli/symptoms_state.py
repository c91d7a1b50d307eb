"""Looks at whom ``tinyward doctor`` is about: which settings, whose state directory.

The rules this module keeps:
 * Where the service is installed, it is meant: its settings, its directory, its user.
 * What this user may not read is told, and nothing is guessed of it.
 * The state directory is not created here; where it would be is looked at instead.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.cli.findings import MB, Finding
from agent.cli.fleet_papers import check_address, find_token_trouble
from agent.cli.places import read_settings, state_directory
from agent.cli.seal_trouble import look_at_sealing
from agent.cli.symptoms_service import daemons
from agent.core.executors import DelegateFile
from agent.errors import SettingsError
from agent.install.facts import user_id
from agent.install.places import SERVICE, SETTINGS, STATE, UNIT_FOLDER, USER, Places
from agent.settings import Settings

PAPERS = "Name a token under [fleet.ddi]; `tinyward install --with credentials`."
LITTLE_MB = 50  # two bundles of the usual size, while one replaces the other


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined.

    Attributes:
        state_dir: Where the daemon would keep its state.
        user: Number of the user it runs as.
        serves: Whether that is the installed service.
        delegates: The libraries that the settings allow.
        findings: What is to be said of the settings themselves.
        config: The file that was named, if one was.
    """

    state_dir: Path
    user: int
    serves: bool = False
    delegates: tuple[DelegateFile, ...] = ()
    findings: tuple[Finding, ...] = ()
    config: Path | None = None


def find_subject(config: Path | None, root: Path = Path("/")) -> Subject:
    """Return what is meant: the installed service, unless other settings are named.

    Args:
        config: The settings file that was named.
        root: Where ``/etc`` and ``/var`` lie.

    Raises:
        SettingsError: ``settings``: the file that was named is wrong.
    """
    places = Places(root)
    installed = places.at(SETTINGS)
    unit = places.at(f"{UNIT_FOLDER}/{SERVICE}")
    user = user_id(places) if _is_there(unit) else -1
    # The same file by another name is the service's as well.
    own = config is None or config.resolve() == installed.resolve()
    findings: tuple[Finding, ...] = ()
    if config is not None:
        settings = read_settings(config)
    else:
        settings, findings = _read_installed(installed)
    findings += tuple(look_at_papers(settings))
    mine = os.geteuid()
    who = user if own and user >= 0 else mine
    findings += tuple(look_at_sealing(settings, who, partial(daemons, root), root))
    if not own or user < 0:
        named = state_directory(settings)
        return Subject(named, mine, False, settings.delegate, findings, config)
    # StateDirectory= of the unit, which only the service's environment names.
    directory = Path(settings.state_dir) if settings.state_dir else places.at(STATE)
    return Subject(directory, user, True, settings.delegate, findings, config)


def look_at_papers(settings: Settings) -> Iterator[Finding]:
    """Look at what this board shows to the fleet's server that orders about it."""
    if settings.update.orchestrator != "ddi":
        return
    try:
        check_address(settings)
    except SettingsError as err:
        yield Finding("fleet", "red", str(err), err.todo)
        return
    troubles = list(find_token_trouble(settings))
    for key, what, _reason in troubles:
        text, _, todo = what.partition(" -> ")
        yield Finding("fleet", "yellow", f"{key}: {text}", todo or PAPERS)
    if not troubles:
        what = f"papers for {settings.fleet.ddi.url} are here (it was not asked)"
        yield Finding("fleet", "green", what)


def _read_installed(path: Path) -> tuple[Settings, tuple[Finding, ...]]:
    """Read the installed settings; what hinders it is a finding, not the end."""
    try:
        path.stat()
        if os.access(path, os.R_OK):
            return read_settings(path), ()
        raise PermissionError
    except FileNotFoundError:
        return Settings(), ()
    except SettingsError as err:
        return Settings(), (Finding("settings", "red", str(err), err.todo),)
    except OSError:
        todo = "sudo tinyward doctor shows the service's own."
        what = f"{path} is closed to this user"
        return Settings(), (Finding("settings", "yellow", what, todo),)


def look_at_directory(
    state_dir: Path, user: int | None = None, *, serves: bool = False
) -> Finding:
    """Look at the state directory, or at where it will be made.

    Args:
        state_dir: Where it is or will be.
        user: Whose it has to be; this user's if not given.
        serves: Whether the service will use it: then this user need not.
    """
    place = state_dir
    while not _is_there(place) and place != place.parent:
        place = place.parent
    if not place.is_dir() or not _may_write(place, serves=serves):
        todo = "Choose another state_dir, correct its owner, or remount it read-write."
        return Finding("state", "red", f"{place} cannot be written", todo)
    owner, wanted = place.stat().st_uid, os.geteuid() if user is None else user
    if place == state_dir and owner != wanted:
        what, todo = f"{place} belongs to user {owner}", "Run as its owner."
        if serves:
            what += f", the service runs as {USER}"
            todo = f"sudo chown -R {USER}: {place}"
        return Finding("state", "red", what, todo)
    free = shutil.disk_usage(place).free // MB
    note = "" if place == state_dir else " (will be made)"
    what = f"{state_dir}{note}, {free} MB free"
    if free < LITTLE_MB:
        return Finding("state", "yellow", what, "Free some space for updates.")
    return Finding("state", "green", what)


def _may_write(place: Path, *, serves: bool) -> bool:
    """Whether a directory can be written; by the service's user, if its disk can."""
    if serves:
        return not os.statvfs(place).f_flag & os.ST_RDONLY
    return os.access(place, os.W_OK | os.X_OK)


def _is_there(path: Path) -> bool:
    """Whether a path exists; what we may not look at does not, for us."""
    try:
        return path.exists()
    except PermissionError:
        return False
