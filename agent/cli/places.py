"""Where the command line finds things: the settings file and the state directory."""

import os
from pathlib import Path

from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.settings import MAX_SETTINGS_BYTES, Settings, parse_settings


def read_settings(path: Path) -> Settings:
    """Read and check a settings file.

    Raises:
        SettingsError: ``settings``: it cannot be read, or a key in it is wrong.
    """
    try:
        return parse_settings(read_raw(path))
    except SettingsError as err:
        todo = err.todo or "The README's section Settings lists every key."
        raise SettingsError(f"{path}: {err}", reason=err.reason, todo=todo) from err


def read_raw(path: Path) -> bytes:
    """Read the bytes of a settings file, a little more than allowed at most.

    Raises:
        SettingsError: ``settings``: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_SETTINGS_BYTES + 1)
    except OSError as err:
        raise SettingsError(
            f"cannot be read: {err.strerror or err}",
            reason=Reason.SETTINGS,
            todo="Name the settings file, such as /etc/tinyward/agent.toml.",
        ) from err


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
