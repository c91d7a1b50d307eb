"""``tinyward uninstall``: remove the service, and everything else if asked to."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.install.steps import Plan

HELP = """Stop the service and remove what `tinyward install` made.

\b
Removed are the units, the command, the slots with all versions, and the demo. Kept are
/etc/tinyward, /var/lib/tinyward (models, floors, keys) and the user tinyward: a new
installation goes on where this one ended.

--purge removes these as well, and leaves nothing: no models, no history, and no key
that a certificate was issued for. It asks first; scripts say --yes."""


@click.command(help=HELP, short_help="Remove the service, with --purge everything.")
@click.option("--purge", is_flag=True, help="Also settings, models, keys and the user.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; needs no root.")
@click.option("--yes", is_flag=True, help="Do not ask before a purge.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("--image", is_flag=True, help="In a chroot: nothing runs.")
@click.option(
    "--root-directory",
    "root",
    type=click.Path(path_type=Path),
    default=Path("/"),
    hidden=True,
)
@click.pass_context
def command(  # noqa: PLR0913 - click passes options so
    ctx: click.Context,
    root: Path,
    *,
    purge: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    image: bool,
) -> None:
    """Remove the installation.

    Raises:
        AgentError: Something is in the way, or a step failed.
    """
    from agent.cli.installing import Session

    session = Session.begin(root, image=image)
    plan = session.plan_removal(purge=purge)
    if not dry_run:
        session.check_root("uninstall" + " --purge" * purge)
        if purge and not yes:
            _ask(plan)
    ctx.exit(session.remove(plan, dry_run=dry_run, as_json=as_json))


def _ask(plan: "Plan") -> None:
    """Ask a person whether all of it may go.

    Raises:
        SettingsError: ``settings``: there is nobody to ask.
        click.Abort: They said no.
    """
    if not (sys.stdin.isatty() and os.isatty(2)):
        raise SettingsError(
            "a purge removes models and keys for good, and nobody can be asked here",
            reason=Reason.SETTINGS,
            todo="Say `--yes`.",
        )
    for planned in plan:
        if not planned.already:
            click.echo(f"  {planned.step.line}", err=True)
    click.confirm("Remove all of it for good?", abort=True, err=True)
