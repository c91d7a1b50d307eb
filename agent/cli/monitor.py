"""``tinyward monitor``: what the drift monitors see, and letting one begin anew."""

import json
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.reach import (
    Local,
    Remote,
    complete_pipelines,
    local_link,
    local_options,
    remote_links,
    remote_options,
)
from agent.core.reasons import Reason
from agent.errors import RequestRefusedError

if TYPE_CHECKING:
    from agent.cli.board_link import BoardLink

_EXPLAINED = """Show what the drift monitors see, or let them begin anew.

\b
tinyward monitor                      every pipeline of the daemon here
tinyward monitor door --json          one of them, as JSON
tinyward monitor commission door      forget what the input of `door` looked like
                                      on this board, and learn it anew

A score is a statistic over its threshold: above 1 it alarms. `shipped` compares
with the profile in the bundle, `site` with what this board saw after it was
commissioned. After a camera was moved, commission its pipeline."""


class Where(Local, Remote):
    """Which board, as options say it."""


class ShowByDefault(click.Group):
    """A group that shows, where no command of its own is named first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``show`` before what is meant for it."""
        named = bool(args) and (
            args[0] in self.commands or args[0] in ctx.help_option_names
        )
        return super().parse_args(ctx, args if named else ["show", *args])


_board_option = click.option(
    "--board", metavar="BOARD", help="Another board, over TLS: [NAME@]HOST[:PORT]."
)


@click.group(cls=ShowByDefault, help=_EXPLAINED)
def command() -> None:
    """Group the commands below."""


@command.command()
@click.argument("pipeline", default="", shell_complete=complete_pipelines)
@local_options
@_board_option
@remote_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def show(
    pipeline: str, *, board: str | None, as_json: bool, **where: Unpack[Where]
) -> None:
    """Show scores beside their thresholds, alarms, and what moved most."""
    link = _link(board, where)
    if as_json:
        click.echo(json.dumps(_raw(link, pipeline), indent=2))
        return
    from rich.console import Console

    from agent.cli.monitor_view import render_monitors
    from agent.cli.status_view import clock_of, show_lines

    state = link.state()
    shown = state.pipelines
    if pipeline:
        shown = {pipeline: shown[_known(pipeline, shown)]}
    now = time.time()  # noqa: TID251 - for boards without a clock of their own
    for part in render_monitors(shown, clock_of(state, now)):
        show_lines(Console(highlight=False), part)


@command.command()
@click.argument("pipeline", shell_complete=complete_pipelines)
@local_options
@_board_option
@remote_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def commission(
    pipeline: str, *, board: str | None, yes: bool, **where: Unpack[Where]
) -> None:
    """Forget the board's own baseline of PIPELINE, and collect another.

    Do so after the input was changed on purpose: a camera moved, a sensor replaced.
    What the input looks like from now on is what later input is compared with, so
    make sure that it is as it should be.
    """
    link = _link(board, where)
    # Before anybody is asked to agree to what cannot be done.
    _known(pipeline, link.state().pipelines)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to ask: say --yes")
        asked = f"Forget what the input of {pipeline} looked like here?"
        click.confirm(asked, abort=True)
    name = link.commission(pipeline)
    click.echo(f"{name}: collecting a new baseline")


def _link(board: str | None, where: Where) -> "BoardLink":
    """Return the link to the board that the options name."""
    if board is None:
        return local_link(where["config"], where["socket"])
    return remote_links([board], where)[0]


def _raw(link: "BoardLink", pipeline: str) -> dict[str, object]:
    """Return pipeline -> what its monitors say, with all that the board says."""
    state = link.read_all("/v1/state")
    found = state.get("pipelines") if isinstance(state, dict) else None
    pipelines = found if isinstance(found, dict) else {}
    names = [_known(pipeline, pipelines)] if pipeline else list(pipelines)
    return {
        name: each.get("watch", []) if isinstance(each := pipelines[name], dict) else []
        for name in names
    }


def _known(pipeline: str, pipelines: Mapping[str, object]) -> str:
    """Return the name of a pipeline that the board has.

    Raises:
        RequestRefusedError: ``unknown_pipeline``.
    """
    if pipeline not in pipelines:
        known = ", ".join(pipelines) or "none"
        raise RequestRefusedError(
            f"there is no pipeline {pipeline!r} there, but: {known}",
            reason=Reason.UNKNOWN_PIPELINE,
        )
    return pipeline
