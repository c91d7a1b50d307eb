"""``tinyward fleet abort``: end a rollout, and take its version back if asked to."""

from pathlib import Path
from typing import Unpack

import click

from agent.cli.fleet_boards import inventory_option
from agent.cli.fleet_options import NOT_PUBLISHED, state_option, state_path
from agent.cli.reach import INTERRUPTED, Remote, remote_options

HELP = """End a rollout: no board is told anything more, and it cannot go on.

Boards that were updated stay as they are, and those that were told go on. With --back
they run again what ran before: by an operator's rollback, which holds until they are
told something newer.

Where a rollout runs in another terminal, that one takes its boards back, and this
command waits for it, 15 minutes at most.

\b
Exit code 0 if it is aborted, 1 if a board could not be taken back so far."""


@click.command(help=HELP, short_help="End the rollout; --back takes it back.")
@inventory_option
@remote_options
@state_option
@click.option("--back", is_flag=True, help="Boards run again what ran before.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    inventory: Path,
    state: Path | None,
    back: bool,
    **papers: Unpack[Remote],
) -> None:
    """Abort.

    Raises:
        AgentError: There is no rollout to abort, or its file cannot be used.
    """
    from agent.cli.fleet_back import left_behind, show_back, take_all_back, wait_for
    from agent.cli.fleet_state import Asked, StateFile
    from agent.cli.fleet_stop import stop, who

    file = StateFile(state_path(inventory, state))
    kept, elsewhere = stop(file, Asked("abort", back=back, by=who()))
    click.echo(f"{kept.course.phase}: {kept.title()}")
    if kept.mode == "repository" and not elsewhere:
        click.echo(NOT_PUBLISHED)
    if elsewhere and not back:
        click.echo("the process that rolled it out ends it, and shows how")
    elif back:
        try:
            if elsewhere:
                kept = wait_for(file)
            else:
                kept = take_all_back(inventory, papers, file)
        except KeyboardInterrupt:
            click.echo("left; run it again for the boards that are left", err=True)
            ctx.exit(INTERRUPTED)
        show_back(kept)
        ctx.exit(1 if left_behind(kept) else 0)
