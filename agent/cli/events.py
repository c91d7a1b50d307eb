"""``tinyward events``: what happened on a board, and what happens."""

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.reach import Local, Remote, local_options, remote_options
from agent.errors import AgentError

if TYPE_CHECKING:
    from agent.cli.board_answers import EventAnswer
    from agent.cli.board_link import BoardLink

FOLLOW_S = 0.5  # an event is seen while its cause is in mind; a board allows 20 per s
LEVELS = ("debug", "info", "warning", "error")
COLOURS = {"warning": "yellow", "error": "red", "debug": "bright_black"}
HELP = """Show what happened on this board, and follow it.

The agent keeps its last 500 events; the journal has all of them:
journalctl -u tinyward.

\b
tinyward events                       what is kept, oldest first
tinyward events --level warning       what somebody should know
tinyward events --follow              and then what comes, until Ctrl-C
tinyward events --json | jq -r .name
tinyward events --board board-7@10.0.0.7 --cert me.pem --ca fleet-ca.pem

Exit code 0 if the board could be asked."""


class Where(Local, Remote):
    """Which board, as options say it."""


@click.command(help=HELP, short_help="Show what happened on this board, and follow it.")
@local_options
@click.option(
    "--board", metavar="BOARD", help="Another board, over TLS: [NAME@]HOST[:PORT]."
)
@remote_options
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="Leave out what matters less.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--follow", "-f", is_flag=True, help="Go on as they come; Ctrl-C ends.")
def command(
    *,
    board: str | None,
    level: str,
    as_json: bool,
    follow: bool,
    **where: Unpack[Where],
) -> None:
    """Ask the board and print what it logged.

    Raises:
        AgentError: It cannot be asked.
    """
    link = _link(board, where)
    shown = LEVELS[LEVELS.index(level) :]
    render = _as_json if as_json else _as_line

    def show(events: "Sequence[EventAnswer]") -> None:
        for event in events:
            # A level that is not known here is a newer board's, and may matter.
            if event.level in shown or event.level not in LEVELS:
                click.echo(render(event))

    answer = link.events(0)
    show(answer.events)
    if follow:
        try:
            Tail(link, show, time.sleep).run(answer.last)
        except KeyboardInterrupt:
            return


class Tail:
    """Follows a board's events through restarts of it and of the network.

    Args:
        link: The board.
        show: Takes events, oldest first.
        pause: Waits some seconds; raises to end.
    """

    def __init__(
        self,
        link: "BoardLink",
        show: "Callable[[Sequence[EventAnswer]], None]",
        pause: Callable[[float], None],
    ) -> None:
        self._link = link
        self._show = show
        self._pause = pause
        self._lost = False

    def run(self, after: int) -> None:
        """Show what was logged after an event's number, for ever.

        Raises:
            AgentError: The board refuses.
        """
        while True:
            self._pause(FOLLOW_S)
            after = self._look(after)

    def _look(self, after: int) -> int:
        """Show what is new; return the newest number.

        Raises:
            AgentError: As ``run``.
        """
        from agent.core.reasons import Reason

        try:
            answer = self._link.events(after)
            if answer.last < after:  # the agent began anew and counts from one
                answer = self._link.events(0)
        except AgentError as err:
            if err.reason != Reason.UNREACHABLE:
                raise
            if not self._lost:
                click.echo("lost the board; waiting for it to come back", err=True)
            self._lost = True
            return after
        self._lost = False
        self._show(answer.events)
        return answer.last


def _link(board: str | None, where: Where) -> "BoardLink":
    """Return the link to the board that the options name."""
    from agent.cli.reach import local_link, remote_links

    if board is None:
        return local_link(where["config"], where["socket"])
    return remote_links([board], where)[0]


def _as_line(event: "EventAnswer") -> str:
    """Return one event as the log spells it, with the time of this machine's zone."""
    from agent.cli.plain_text import plain
    from agent.telemetry.logs import render_value

    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    level = click.style(f"{plain(event.level):7}", fg=COLOURS.get(event.level))
    fields = (
        f"{plain(key)}={plain(render_value(value))}"
        for key, value in event.fields.items()
        if value
    )
    return " ".join([at, level, click.style(plain(event.name), bold=True), *fields])


def _as_json(event: "EventAnswer") -> str:
    """Return one event as a line of JSON, in ASCII."""
    import msgspec

    return json.dumps(msgspec.to_builtins(event))
