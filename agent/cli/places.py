"""Where the command line finds things: the settings file and the state directory.

The rules this module keeps:
 * What the settings name is opened only if it is a file: whoever opens a FIFO waits
   for a writer, and no signal ends a daemon that waits so.
"""

import errno
import os
import stat
from pathlib import Path

import click

from agent.core.file_kinds import no_file
from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.settings import MAX_SETTINGS_BYTES, Settings, parse_settings

# O_NONBLOCK: between a look and the opening the path may become a FIFO.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_settings(path: Path) -> Settings:
    """Read and check a settings file.

    Raises:
        SettingsError: ``settings``: it cannot be read, or a key in it is wrong.
    """
    try:
        return parse_settings(read_raw(path))
    except SettingsError as err:
        todo = err.todo or (
            f"Mend it, then try it: `tinyward check {path}`, which shows every key of "
            "a file that is right."
        )
        raise SettingsError(f"{path}: {err}", reason=err.reason, todo=todo) from err


def read_raw(path: Path) -> bytes:
    """Read the bytes of a settings file, a little more than allowed at most.

    Raises:
        SettingsError: ``settings``: it cannot be read.
    """
    try:
        return read_file(path, MAX_SETTINGS_BYTES + 1)
    except OSError as err:
        raise SettingsError(
            f"cannot be read: {err.strerror or err}",
            reason=Reason.SETTINGS,
            todo=_other_way(err),
        ) from err


def _other_way(err: OSError) -> str:
    """Return what to do where settings cannot be read."""
    ctx = click.get_current_context(silent=True)
    if isinstance(err, PermissionError) and ctx is not None:
        return f"`sudo {ctx.command_path}`: they are closed to this user."
    return "Name the settings file, such as /etc/tinyward/agent.toml."


def read_file(path: Path, most: int = MAX_SETTINGS_BYTES) -> bytes:
    """Read a file, or a device such as ``/dev/null``, ``most`` bytes of it at most.

    Raises:
        OSError: It cannot be read, or is none: ``strerror`` says what it is.
    """
    _refuse_other(path.stat().st_mode)
    with os.fdopen(os.open(path, _READ), "rb") as file:
        _refuse_other(os.fstat(file.fileno()).st_mode)
        return file.read(most) or b""  # None: a terminal with nothing typed


def _refuse_other(mode: int) -> None:
    """Nobody knows how long a FIFO without a writer would have to be waited for."""
    if (what := no_file(mode)) and not stat.S_ISCHR(mode):
        raise OSError(errno.EINVAL, what)


def check_files(settings: Settings) -> None:
    """Check that the certificates and keys that are there are files.

    Raises:
        SettingsError: ``settings``: one of them is something that is not read.
    """
    tables = {
        "update": settings.update,
        "control": settings.control,
        "fleet.ddi": settings.fleet.ddi,
    }
    for name, table in tables.items():
        for key in ("ca", "certificate", "key", "client_ca"):
            path = getattr(table, key, "")
            try:
                what = path and no_file(Path(path).expanduser().stat().st_mode)
            except OSError:
                continue  # whoever reads it says so
            if what:
                raise SettingsError(
                    f"{name}.{key}: {path}: {what}",
                    reason=Reason.SETTINGS,
                    todo="Name a file (PEM).",
                )


def state_directory(settings: Settings) -> Path:
    """Return the state directory: from the settings, systemd, or the user's home."""
    if settings.state_dir:
        return Path(settings.state_dir).expanduser()
    # systemd separates several directories by colons; ours is the first.
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(given) if given else Path("~/.local/state/tinyward").expanduser()


def control_socket(settings: Settings) -> Path:
    """Return the unix socket of the local listener."""
    if settings.local.socket:
        return Path(settings.local.socket).expanduser()
    return state_directory(settings) / "control.sock"
