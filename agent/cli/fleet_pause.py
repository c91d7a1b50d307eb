"""``tinyward fleet pause``: a rollout goes no further until it is run again."""

from pathlib import Path

import click

from agent.cli.fleet_boards import inventory_option
from agent.cli.fleet_options import NOT_PUBLISHED, state_option, state_path

HELP = """Let a rollout go no further: no board is told anything more.

Boards that were told go on by themselves. `tinyward fleet rollout` with the options of
before goes on. Where a rollout runs in another terminal, it stops there."""


@click.command(help=HELP, short_help="Let the rollout go no further for now.")
@inventory_option
@state_option
def command(*, inventory: Path, state: Path | None) -> None:
    """Pause.

    Raises:
        AgentError: There is no rollout to pause, or its file cannot be used.
    """
    from agent.cli.fleet_state import Asked, StateFile
    from agent.cli.fleet_stop import stop, who

    file = StateFile(state_path(inventory, state))
    kept, elsewhere = stop(file, Asked("pause", by=who()))
    click.echo(f"{kept.course.phase}: {kept.title()}")
    if kept.mode == "repository" and not elsewhere:
        click.echo(NOT_PUBLISHED)
    click.echo("run `tinyward fleet rollout` with the options of before to go on")
