"""``tinyward update``: ask the daemon on this machine to look, go back, or import."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.reach import (
    INTERRUPTED,
    Local,
    complete_pipelines,
    local_link,
    local_options,
)
from agent.core.reasons import Reason
from agent.errors import RequestRefusedError

if TYPE_CHECKING:
    from agent.cli.board_link import BoardLink
    from agent.cli.outcome import Outcome
    from agent.cli.update_view import BoardView

_EXPLAINED = """Ask the running daemon to look, to roll back or to import.

\b
tinyward update now                   look at the repository at once, and watch
tinyward update rollback door         back to the model before; holds until the
                                      fleet publishes a newer generation
tinyward update import /media/usb     a repository from a stick or an archive
tinyward update list                  what was updated, and what is set aside
tinyward update forgive 3f2a          try a bundle again that failed here

It talks to the daemon over its unix socket: run it as the daemon's user or root.
Exit code 0 if all runs as desired or waits, 1 with the reason if not; Ctrl-C
leaves the board to itself and ends with 130."""

_wait_option = click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Watch until it has ended.",
)
_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the outcome as JSON."
)


@click.group("update", help=_EXPLAINED)
def command() -> None:
    """Group the commands below."""


@command.command()
@local_options
@_wait_option
@_json_option
@click.pass_context
def now(
    ctx: click.Context,
    *,
    wait: bool,
    as_json: bool,
    **where: Unpack[Local],
) -> None:
    """Look at the repository at once, and follow what it leads to."""
    from agent.cli.delivery import Delivery, Order

    def run(link: "BoardLink", view: "BoardView") -> "list[Outcome]":
        return Delivery(link, view, _pause()).carry_out(Order(wait=wait))

    _tell(ctx, local_link(**where), run, as_json=as_json)


@command.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@local_options
@click.option("--all", "everything", is_flag=True, help="Send every file it holds.")
@_wait_option
@_json_option
@click.pass_context
def import_(
    ctx: click.Context,
    path: Path,
    *,
    everything: bool,
    wait: bool,
    as_json: bool,
    **where: Unpack[Local],
) -> None:
    """Bring in a repository from PATH: a folder, or a .tar or .zip of one.

    What this board needs of it is streamed to the daemon, which verifies it as it
    verifies its repository: the same root, the same floors. What is there already is
    not sent again, and nothing of an archive is extracted.
    """
    from agent.cli.delivery import Delivery, Order
    from agent.cli.slice_files import open_slice

    with open_slice(path) as files:
        order = Order(files=files, everything=everything, wait=wait)

        def run(link: "BoardLink", view: "BoardView") -> "list[Outcome]":
            return Delivery(link, view, _pause()).carry_out(order)

        _tell(ctx, local_link(**where), run, as_json=as_json)


@command.command()
@click.argument("pipeline", default="", shell_complete=complete_pipelines)
@local_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_wait_option
@click.pass_context
def rollback(
    ctx: click.Context,
    pipeline: str,
    *,
    yes: bool,
    wait: bool,
    **where: Unpack[Local],
) -> None:
    """Go back to the model before, or end a trial that is under way.

    PIPELINE may be left out where there is only one. The rollback holds until whoever
    orders models for this board publishes a newer generation.
    """
    from agent.cli.follow import Follower

    link = local_link(**where)
    _confirm(link, pipeline, yes=yes)

    def run(link: "BoardLink", view: "BoardView") -> "list[Outcome]":
        follower = Follower(link, view, _pause())
        mark = follower.mark()
        name = link.roll_back(pipeline)
        view.say(f"{name}: rolling back")
        return follower.follow_rollback(mark, name) if wait else []

    _tell(ctx, link, run, as_json=False)


@command.command("list")
@local_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def list_(*, as_json: bool, **where: Unpack[Local]) -> None:
    """Show the updates that ended, and the bundles that are set aside."""
    import time

    from rich.console import Console

    from agent.cli.status_view import (
        clock_of,
        quarantine_table,
        reports_table,
        show_lines,
    )

    link = local_link(**where)
    if as_json:
        click.echo(json.dumps(link.read_all("/v1/updates"), indent=2))
        return
    updates, console = link.updates(), Console(highlight=False)
    clock = clock_of(link.state(), time.time())  # noqa: TID251 - where a board shows no clock
    if updates.reports:
        show_lines(console, reports_table(updates.reports, clock))
    else:
        click.echo("no updates yet")
    if updates.quarantine:
        click.echo()
        show_lines(console, quarantine_table(updates.quarantine, clock))


@command.command()
@click.argument("sha256")
@local_options
def forgive(sha256: str, **where: Unpack[Local]) -> None:
    """Let a bundle be tried again that failed here.

    SHA256 is its digest as `tinyward update list` shows it, its first letters, or
    `all`.
    """
    link = local_link(**where)
    # Resolved here: the board takes whole digests only, and guesses nothing.
    kept = [each.sha256 for each in link.updates().quarantine]
    chosen = (
        kept if sha256 == "all" else [each for each in kept if each.startswith(sha256)]
    )
    if sha256 != "all" and len(chosen) != 1:
        what = (
            f"{len(chosen)} bundles that are set aside begin"
            if chosen
            else "none begins"
        )
        raise RequestRefusedError(
            f"{what} with {sha256!r}",
            reason=Reason.REQUEST,
            todo="See `tinyward update list` for their digests.",
        )
    for digest in chosen:
        link.forgive(digest)
        click.echo(f"{digest[:16]} may be tried again")
    if not chosen:
        click.echo("nothing is set aside")


def _confirm(link: "BoardLink", pipeline: str, *, yes: bool) -> None:
    """Ask before a model is taken back.

    Raises:
        click.UsageError: Nobody is there to ask.
        click.Abort: The answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask: say --yes")
    state = link.state()
    running = {name: each.active for name, each in state.pipelines.items()}
    name = pipeline or (next(iter(running)) if len(running) == 1 else "")
    active = running.get(name)
    what = f"{active.model} {active.version}" if active else "its model"
    click.confirm(f"Roll {name or 'the pipeline'} back from {what}?", abort=True)


def _pause() -> Callable[[float], None]:
    """Return what waits; Ctrl-C breaks it off."""
    import time

    return time.sleep


def _tell(
    ctx: click.Context,
    link: "BoardLink",
    run: "Callable[[BoardLink, BoardView], Sequence[Outcome]]",
    *,
    as_json: bool,
) -> None:
    """Run something with its steps shown, then print the outcome."""
    from rich.console import Console

    from agent.cli.outcome_view import show_outcomes
    from agent.cli.update_view import UpdateView

    errors = Console(
        stderr=True, highlight=False, quiet=as_json and not sys.stderr.isatty()
    )
    try:
        with UpdateView(errors) as view:
            outcomes = run(link, view.board())
    except KeyboardInterrupt:
        click.echo("left; the board goes on by itself: `tinyward status`", err=True)
        ctx.exit(INTERRUPTED)
    show_outcomes(outcomes, as_json=as_json)
    ctx.exit(0 if all(row.good for row in outcomes) else 1)
