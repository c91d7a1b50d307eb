"""``tinyward fleet rollout``: bring versions to a fleet in waves, behind gates."""

from pathlib import Path
from typing import Unpack

import click

from agent.cli.fleet_boards import inventory_option
from agent.cli.fleet_options import Options, state_option
from agent.cli.passphrase import passphrase_option
from agent.cli.reach import INTERRUPTED, remote_options
from agent.cli.repo_options import keys_option

HELP = """Bring versions to the boards of an inventory, wave by wave.

\b
tinyward fleet rollout --assign door=kws@8 --repository ./fleet-repo
tinyward fleet rollout --assign door=kws@8 --wave group:canary --wave 10% --wave all
tinyward fleet rollout --assign door=kws@8 --dry-run
tinyward fleet rollout --assign door=kws@8 --by-percent group:all \\
    --repository ./fleet-repo --keys ./fleet-repo-keys

A wave is group:NAME, N% of all boards (those of waves before included; a hash draws
them, the same ones each time) or all. The next wave begins when the boards of this
one have committed, [rollout.gate] soak_s have passed, and no gate is closed: boards
that failed, refused or rolled back, do not answer, make errors, are slow or drift.
A closed gate pauses the rollout: no further board is told.

Boards whose orchestrator is `push` are told over their control listeners, and brought
the repository's files if --repository is given. With --by-percent boards follow a
signed group file: each wave raises its percent and is published; a wave group:NAME
goes by the file of that group. Groups of the inventory only choose boards: a board
follows the files of [update] groups in its own agent.toml, and both have to agree.
Whoever publishes something else in between stops the rollout, and is left alone.

What can be known is checked before anybody is told, by a look at the boards as well;
--dry-run does the same, but opens no keys.

All that is decided is in a file beside the inventory before a board is told: after
Ctrl-C, or a machine that died, run the same command again. `fleet pause` and `fleet
abort` stop it from another terminal.

\b
Exit code 0 if it is done, 1 if it is paused or aborted, 2 if it cannot begin."""


@click.command(help=HELP, short_help="Bring versions to the boards in waves.")
@inventory_option
@remote_options
@click.option(
    "--assign",
    multiple=True,
    required=True,
    metavar="PIPELINE=[MODEL@]VERSION",
    help="What a pipeline shall run; may be given several times.",
)
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    help="A repository, or a .tar or .zip of one, to bring to boards.",
)
@click.option(
    "--by-percent",
    metavar="group:NAME",
    help="Raise percent in this group's file instead of telling boards.",
)
@keys_option
@passphrase_option
@click.option(
    "--wave",
    multiple=True,
    metavar="group:NAME|N%|all",
    help="One wave; in their order.  [default: [rollout] waves]",
)
@click.option("--salt", help="Draw other boards.  [default: the assignment]")
@state_option
@click.option(
    "--patience",
    type=click.FloatRange(0.1, 86_400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a board may be out of reach before it counts as that.",
)
@click.option("--retry", is_flag=True, help="Tell boards that failed once more.")
@click.option(
    "--restart", is_flag=True, help="Begin anew what was aborted with this state."
)
@click.option("--dry-run", is_flag=True, help="Show the waves, and tell nobody.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report (JSON) to a file as well.",
)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    inventory: Path,
    dry_run: bool,
    as_json: bool,
    report: Path | None,
    **options: Unpack[Options],
) -> None:
    """Roll out and show how it goes.

    Raises:
        AgentError: A file cannot be used, or belongs to another rollout.
        click.UsageError: Options do not go together.
    """
    from agent.cli.fleet_choices import check_report
    from agent.cli.fleet_rollout_work import Work

    check_report(report)
    work = Work.prepare(inventory, options)
    if dry_run:
        work.show_plan(as_json=as_json, report=report)
        return
    try:
        work.run(quiet=as_json)
    except KeyboardInterrupt:
        click.echo(
            "left the boards as they are: updates under way go on there; run the same "
            "command again to go on, or `tinyward fleet abort`",
            err=True,
        )
        work.write_report(report)
        ctx.exit(INTERRUPTED)
    work.show_end(as_json=as_json, report=report)
    ctx.exit(work.exit_code)
