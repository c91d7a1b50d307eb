"""``tinyward status``: what should run on a board, what does, and why not."""

import json
import time
from socket import gethostname
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.reach import Local, Remote, local_options, remote_options
from agent.errors import RequestRefusedError

if TYPE_CHECKING:
    from rich.console import Console, Group

    from agent.cli.board_answers import Updates
    from agent.cli.board_link import BoardLink

WATCH_S = 1.0
HELP = """Show what should run on a board, what does, and why not.

\b
tinyward status                       the daemon on this machine
tinyward status --watch               the same, as it changes
tinyward status --variants            and why other variants do not run
tinyward status --json | jq .state.update.decisions
tinyward status --board board-7@10.0.0.7 --cert me.pem --ca fleet-ca.pem

\b
STATE   runs        as desired
        silent      as desired, and answers nothing: WHY says what to do
        ordered     it begins now, or is under way
        waits       for a time, a window or a person, or to be tried again
        refused     it will not begin until something changes
        unassigned  nobody says what should run

Exit code 0 if the board could be asked, whatever it says."""


class Where(Local, Remote):
    """Which board, as options say it."""


@click.command(help=HELP, short_help="Show what should run, what does, and why not.")
@local_options
@click.option(
    "--board", metavar="BOARD", help="Another board, over TLS: [NAME@]HOST[:PORT]."
)
@remote_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@click.option(
    "--variants", is_flag=True, help="Say why other variants and executors do not run."
)
@click.option("--watch", is_flag=True, help="Show it again every second; Ctrl-C ends.")
def command(
    *,
    board: str | None,
    as_json: bool,
    variants: bool,
    watch: bool,
    **where: Unpack[Where],
) -> None:
    """Ask the board and show what it says.

    Raises:
        AgentError: It cannot be asked.
        click.UsageError: Two options do not go together.
    """
    link = _link(board, where)
    host = gethostname() if board is None else ""
    if watch:
        if variants:
            raise click.UsageError("--variants needs more room than --watch has")
        _watch(link, as_json=as_json, host=host)
    elif as_json:
        click.echo(_json(link, indent=2))
    else:
        from rich.console import Console

        from agent.cli.status_view import show_lines

        shown = _render(link, variants=variants, host=host)
        show_lines(Console(highlight=False), shown)


def _link(board: str | None, where: Where) -> "BoardLink":
    """Return the link to the board that the options name."""
    from agent.cli.reach import local_link, remote_links

    if board is None:
        return local_link(where["config"], where["socket"])
    return remote_links([board], where)[0]


def _render(
    link: "BoardLink",
    console: "Console | None" = None,
    *,
    variants: bool = False,
    host: str = "",
) -> "Group":
    """Return the status as it is now; as much of it as fits the console if given."""
    from agent.cli.status_room import fit_status
    from agent.cli.status_view import render_status

    state = link.state()
    now = time.time()  # noqa: TID251 - for boards without a clock of their own
    if console is None:
        updates = _updates(link)
        return render_status(state, updates, now, variants=variants, host=host)
    return fit_status(console, state, _updates(link), now, host)


def _updates(link: "BoardLink") -> "Updates":
    """Return the updates; none of a board that takes no orders."""
    from agent.cli.board_answers import Updates

    try:
        return link.updates()
    except RequestRefusedError:
        return Updates()


def _json(link: "BoardLink", indent: int | None = None) -> str:
    """Return state and updates with all that the board says, in ASCII."""
    state = link.read_all("/v1/state")
    try:
        updates = link.read_all("/v1/updates")
    except RequestRefusedError:
        updates = None
    return json.dumps({"state": state, "updates": updates}, indent=indent)


def _watch(link: "BoardLink", *, as_json: bool, host: str) -> None:
    """Show it again and again, through restarts of the daemon."""
    try:
        if as_json:
            while True:
                click.echo(_json(link))
                time.sleep(WATCH_S)
        _watch_live(link, host)
    except KeyboardInterrupt:
        return


def _watch_live(link: "BoardLink", host: str) -> None:
    """Redraw the status in place.

    Raises:
        click.UsageError: There is no terminal to redraw.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from agent.cli.plain_text import plain
    from agent.core.reasons import Reason
    from agent.errors import AgentError

    console = Console(highlight=False)
    if not console.is_terminal:
        raise click.UsageError("--watch needs a terminal; --json --watch does not")
    shown = _render(link, console, host=host)
    with Live(shown, console=console, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_S)
            try:
                live.update(_render(link, console, host=host), refresh=True)
            except AgentError as err:
                if err.reason != Reason.UNREACHABLE:
                    raise
                live.update(Text(f"waiting: {plain(err)}", "yellow"), refresh=True)
