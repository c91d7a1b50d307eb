"""The unit files and fragments that this version ships.

They lie in ``agent/systemd`` of an installed wheel and in ``systemd`` of a source tree.

The rules this module keeps:
 * What is installed is byte for byte what is shipped: ``systemd-analyze verify`` judged
   these files, and nothing is filled in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import agent
from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.install.places import (
    DROP_INS,
    FALLBACK,
    SERVICE,
    UNIT_FOLDER,
    Places,
)

# What a pipeline's programs may need beyond the sandbox, and how it is asked for.
EXTRAS = ("camera", "sound", "jit", "clock", "credentials", "seal")


@dataclass(frozen=True, slots=True)
class Shipped:
    """Files by the path they are installed to.

    Attributes:
        units: The service and the one that goes back from a version on trial.
        sysusers: The fragment that names the user.
        tmpfiles: The fragment that names the directories.
        extras: Drop-ins by the word that asks for them.
    """

    units: Mapping[str, bytes]
    sysusers: bytes
    tmpfiles: bytes
    extras: Mapping[str, bytes]

    def drop_ins(self, extras: Sequence[str]) -> dict[str, bytes]:
        """Return path -> content of the drop-ins that are asked for."""
        return {drop_in_path(extra): self.extras[extra] for extra in extras}


def drop_in_path(extra: str) -> str:
    """Return where a drop-in is installed.

    >>> drop_in_path("camera")
    '/etc/systemd/system/tinyward.service.d/tinyward-camera.conf'
    """
    return f"{DROP_INS}/tinyward-{extra}.conf"


def shipped_folder() -> Path:
    """Return the folder that the shipped files lie in."""
    package = Path(agent.__file__).parent
    installed = package / "systemd"
    return installed if installed.is_dir() else package.parent / "systemd"


def read_shipped(folder: Path | None = None) -> Shipped:
    """Read what this version ships.

    Raises:
        SettingsError: ``not_installed``: the package is not whole.
    """
    folder = folder or shipped_folder()
    return Shipped(
        units={
            f"{UNIT_FOLDER}/{name}": _read(folder, name) for name in (SERVICE, FALLBACK)
        },
        sysusers=_read(folder, "tinyward.sysusers.conf"),
        tmpfiles=_read(folder, "tinyward.tmpfiles.conf"),
        extras={extra: _read(folder, f"drop-ins/{extra}.conf") for extra in EXTRAS},
    )


def _read(folder: Path, name: str) -> bytes:
    """Read one shipped file."""
    try:
        return (folder / name).read_bytes()
    except OSError as err:
        raise SettingsError(
            f"this package lacks {name}: {err.strerror}",
            reason=Reason.NOT_INSTALLED,
            todo="Install it again: `pip install --force-reinstall` into this slot.",
        ) from err


def installed_extras(places: Places) -> list[str]:
    """Return the extras whose drop-ins are installed: an upgrade renews them."""
    return [name for name in EXTRAS if places.at(drop_in_path(name)).is_file()]
