"""The inventory that a command of ``fleet`` names, and the links to its boards.

The rules this module keeps:
 * Every board has to prove the id that the inventory gives it, whatever its address.
 * Options come before the inventory's [papers], whose paths lie beside the inventory.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.cli.reach import Remote, remote_links
from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.cli.board_link import BoardLink
    from agent.core.inventory import BoardTable, Inventory

DEFAULT_INVENTORY = Path("fleet.toml")
Command = TypeVar("Command", bound=Callable[..., Any])

inventory_option = click.option(
    "--inventory",
    "-i",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_INVENTORY,
    show_default=True,
    help="The boards of the fleet.",
)


def read_inventory(path: Path) -> "Inventory":
    """Read and check an inventory.

    Raises:
        SettingsError: ``inventory``: it cannot be read, or makes no sense.
    """
    from agent.core.inventory import MAX_INVENTORY_BYTES, parse_inventory

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_INVENTORY_BYTES + 1)
    except OSError as err:
        raise SettingsError(
            f"{path}: {err.strerror}",
            reason=Reason.INVENTORY,
            todo="Name it with --inventory; `tinyward fleet --help` shows one.",
        ) from err
    try:
        return parse_inventory(raw)
    except SettingsError as err:
        raise SettingsError(f"{path}: {err}", reason=err.reason, todo=err.todo) from err


def board_links(
    inventory: "Inventory",
    path: Path,
    options: Remote,
    *,
    boards: "Sequence[BoardTable] | None" = None,
    pause: Callable[[float], None] = time.sleep,
) -> "dict[str, BoardLink]":
    """Return the links to boards by their ids; none of them is open yet.

    Args:
        inventory: What was read.
        path: Where it was read.
        options: --cert, --key and --ca.
        boards: Some of the inventory's; all of them without.
        pause: Waits some seconds; raises to break off.

    Raises:
        SettingsError: A file of papers cannot be used.
        click.UsageError: None is named.
    """
    beside, papers = path.parent, inventory.papers
    remote = Remote(
        certificate=options["certificate"] or _beside(beside, papers.cert),
        # A key of the inventory belongs to the inventory's certificate alone.
        key=options["key"]
        or (None if options["certificate"] else _beside(beside, papers.key)),
        ca=options["ca"] or _beside(beside, papers.ca),
    )
    chosen = inventory.board if boards is None else boards
    places = [f"{board.id}@{board.address}" for board in chosen]
    links = remote_links(places, remote, pause)
    return dict(zip((board.id for board in chosen), links, strict=True))


def _beside(folder: Path, name: str) -> Path | None:
    """Return a path of the inventory, None where it is empty."""
    return folder / name if name else None
