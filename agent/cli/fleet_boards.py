"""The inventory as commands use it: read from its file, with papers and links.

The rules this module keeps:
 * Paths of ``[papers]`` lie beside the inventory; options come before them.
 * A board's certificate has to name its id: behind an address may be another board.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from agent.cli.board_link import BoardLink
from agent.cli.places import read_file
from agent.cli.reach import Command, Remote, remote_links
from agent.core.inventory import (
    MAX_INVENTORY_BYTES,
    BoardTable,
    Inventory,
    PapersTable,
    parse_inventory,
)
from agent.core.reasons import Reason
from agent.errors import SettingsError

DEFAULT_INVENTORY = Path("fleet.toml")


def inventory_option(command: Command) -> Command:
    """Add --inventory."""
    return click.option(
        "--inventory",
        type=click.Path(dir_okay=False, path_type=Path),
        default=DEFAULT_INVENTORY,
        show_default=True,
        help="The boards of the fleet (TOML).",
    )(command)


def group_option(command: Command) -> Command:
    """Add --group."""
    return click.option(
        "--group", default="", metavar="NAME", help="Only boards of this group."
    )(command)


def read_inventory(path: Path) -> Inventory:
    """Read and check an inventory.

    Raises:
        SettingsError: ``inventory``: it cannot be read, or a key in it is wrong.
    """
    try:
        return parse_inventory(read_file(path, MAX_INVENTORY_BYTES + 1))
    except OSError as err:
        what = f"{path}: cannot be read: {err.strerror or err}"
        raise SettingsError(
            what,
            reason=Reason.INVENTORY,
            todo="Name the file with --inventory.",
        ) from err
    except SettingsError as err:
        raise SettingsError(f"{path}: {err}", reason=err.reason, todo=err.todo) from err


def choose_papers(papers: PapersTable, beside: Path, options: Remote) -> Remote:
    """Return the files for TLS: those of the options, else those of the inventory.

    Args:
        papers: Table ``[papers]``.
        beside: The inventory; relative paths begin where it lies.
        options: What the command line says.
    """

    def found(written: str) -> Path | None:
        return beside.parent / Path(written).expanduser() if written else None

    # A certificate of the command line brings its own key: another's would not fit.
    key = options["key"] or (None if options["certificate"] else found(papers.key))
    return Remote(
        certificate=options["certificate"] or found(papers.cert),
        key=key,
        ca=options["ca"] or found(papers.ca),
    )


def link_boards(
    boards: Sequence[BoardTable],
    papers: Remote,
    pause: Callable[[float], None] = time.sleep,
) -> list[BoardLink]:
    """Return the links to boards, in their order; nothing is connected yet.

    Raises:
        SettingsError: A file cannot be used.
        click.UsageError: A file is not named.
    """
    if papers["certificate"] is None or papers["ca"] is None:
        missing = "cert" if papers["certificate"] is None else "ca"
        raise click.UsageError(
            f"boards are reached over TLS only: name --{missing}, or [papers] "
            f"{missing} in the inventory"
        )
    addresses = [f"{board.id}@{board.place}" for board in boards]
    return remote_links(addresses, papers, pause)
