"""Which board's log is asked about, and where what it answers is written."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.cli.reach import Local, Remote, local_options, remote_options
from agent.core.disk_reasons import disk_error
from agent.core.reasons import Reason

if TYPE_CHECKING:
    from agent.cli.board_link import BoardLink

Command = TypeVar("Command", bound=Callable[..., Any])
TODOS = {Reason.PERMISSION: "Write it elsewhere: -o FILE."}


class Where(Local, Remote):
    """Which board, as options say it."""

    board: str | None


def board_options(command: Command) -> Command:
    """Add the options that say which board is meant."""
    command = remote_options(command)
    command = click.option(
        "--board", metavar="BOARD", help="Another board, over TLS: [NAME@]HOST[:PORT]."
    )(command)
    return local_options(command)


def link_to(where: Where) -> "BoardLink":
    """Return the link to the board that options name.

    Raises:
        SettingsError: They name none.
    """
    from agent.cli.reach import local_link, remote_links

    if where["board"] is None:
        return local_link(where["config"], where["socket"])
    return remote_links([where["board"]], where)[0]


def write_text(text: str, output: Path | None) -> None:
    """Write a text to a file, or to standard output.

    Raises:
        DeviceError: The file cannot be written.
    """
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as err:
        raise disk_error(err, TODOS) from err
