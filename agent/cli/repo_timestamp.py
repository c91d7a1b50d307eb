"""``tinyward repo timestamp``: keep a repository fresh with its online keys alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.passphrase import passphrase_option
from agent.cli.repo_options import (
    keys_option,
    open_with_keys,
    read_clock,
    repository_argument,
)
from agent.core.reasons import Reason
from agent.errors import DeviceError

if TYPE_CHECKING:
    from datetime import datetime

    from agent.publish.upkeep import Deadlines


@click.command(short_help="Sign timestamp again; for a timer.")
@repository_argument
@keys_option
@click.option(
    "--warn-days",
    default=30.0,
    show_default=True,
    help="Fail when root or targets expire within so many days.",
)
@passphrase_option
def timestamp(
    repository: Path,
    keys: Sequence[Path],
    passphrase_files: Sequence[Path],
    warn_days: float,
) -> None:
    """Sign timestamp again, and snapshot and fleet when they are due.

    Only these three keys are needed, and nothing that is staged goes out: a timer
    can do it (systemd/tinyward-timestamp.timer). Exit code 1, after it signed, when
    root or targets are about to expire: that needs `publish` with their keys.
    """
    from agent.publish.roles import utc

    now = read_clock()
    opened = open_with_keys(repository, keys, passphrase_files)
    found = opened.renew_online(now, told=click.echo)
    click.echo(f"published {repository}")
    click.echo(f"run again before {found.online:%Y-%m-%d %H:%M} UTC")
    warn(found, utc(now), warn_days)


def warn(found: "Deadlines", moment: "datetime", days: float) -> None:
    """Fail where a role that no timer can sign is about to expire.

    Raises:
        DeviceError: ``expired``.
    """
    near = found.near(moment, days)
    if not near:
        return
    said = [
        f"{role} expired at {at:%Y-%m-%d %H:%M} UTC: boards update no more"
        if at <= moment
        else f"{role} expires in {(at - moment).days} days ({at:%Y-%m-%d})"
        for role, at in near.items()
    ]
    raise DeviceError(
        "; ".join(said),
        reason=Reason.EXPIRED,
        todo="Run `tinyward repo publish` with the keys of "
        f"{' and '.join(near)}, which are kept offline.",
    )
