"""What options of a rollout mean: its group, its models, where its report goes."""

from pathlib import Path

from agent.cli.fleet_options import Options
from agent.cli.repo_options import open_keyless, parse_place
from agent.core.inventory import Inventory
from agent.core.reasons import Reason
from agent.core.targets import group_path
from agent.errors import SettingsError


def name_models(
    assign: dict[str, tuple[str, int]], options: Options
) -> dict[str, tuple[str, int]]:
    """Return an assignment with all models named, as a signed file needs them."""
    path = options["repository"]
    if path is None:
        return assign
    known = open_keyless(path).models(group_path(group_of(options["by_percent"] or "")))
    return {
        name: (model or known.get(name, name), version)
        for name, (model, version) in assign.items()
    }


def require_boards(group: str, inventory: Inventory) -> None:
    """Check that boards follow a group, as far as the inventory says.

    Raises:
        SettingsError: ``inventory``: no board is in it.
    """
    if group not in {"all", *inventory.groups()}:
        raise SettingsError(
            f"--by-percent: no board is in the group {group!r}",
            reason=Reason.INVENTORY,
            todo="Name a group of the inventory that boards follow, or group:all.",
        )


def group_of(text: str) -> str:
    """Return NAME of ``group:NAME``.

    Raises:
        SettingsError: It is written otherwise.
    """
    place = parse_place(text)
    if not text.startswith("group:"):
        raise SettingsError(
            f"{text!r} is not group:NAME",
            reason=Reason.SETTINGS,
            todo="Waves go by the file of a group.",
        )
    return place.rpartition("/")[2]


def check_report(path: Path | None) -> None:
    """Check that a report can be written where it is asked for.

    Raises:
        SettingsError: Its folder is not there.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise SettingsError(
            f"{path}: there is no folder {path.absolute().parent}",
            reason=Reason.SETTINGS,
            todo="Name a file that can be written with --report.",
        )


def write_report(path: Path, text: str) -> None:
    """Write a report.

    Raises:
        SettingsError: It cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as err:
        raise SettingsError(
            f"{path}: {err.strerror}",
            reason=Reason.SETTINGS,
            todo="Name a file that can be written with --report.",
        ) from err
