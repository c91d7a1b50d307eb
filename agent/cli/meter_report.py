"""``tinyward meter report``: the signed usage report, fetched or checked."""

import json
from datetime import datetime
from pathlib import Path
from typing import Unpack

import click
import msgspec

from agent.cli.meter_link import (
    ReportAnswer,
    Where,
    board_option,
    meter_link,
    read_answer,
)
from agent.cli.places import read_file
from agent.cli.reach import local_options, remote_options
from agent.core.meter_report import Usage, open_report, spell_hour
from agent.core.reasons import Reason
from agent.errors import SettingsError

MAX_REPORT_BYTES = 8_000_000
_file = click.Path(dir_okay=False, path_type=Path)


@click.command("report", short_help="Fetch the signed usage report, or check one.")
@local_options
@board_option
@remote_options
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Leave out the days before this one (UTC).",
)
@click.option("--output", "-o", type=_file, help="Write it there instead.")
@click.option("--check", type=_file, help="Check this report; no board is asked.")
@click.option(
    "--log-key", type=_file, help="For --check: the board's verifier key, as a file."
)
@click.option("--json", "as_json", is_flag=True, help="For --check: print JSON.")
def command(
    *,
    board: str | None,
    since: datetime | None,
    output: Path | None,
    check: Path | None,
    log_key: Path | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Fetch how many answers each model gave in each hour: that, and nothing else.

    The board signs it with the key of its log; the vendor checks it with --check and
    the board's verifier key (`tinyward audit head` on the board shows it).
    """
    if check is not None:
        if log_key is None:
            raise click.UsageError("--check needs --log-key")
        _show(_check(check, log_key), as_json=as_json)
        return
    since_s = int(since.timestamp()) if since else 0
    link = meter_link(board, where)
    path = f"/v1/meter/usage?since={max(0, since_s)}"
    report = read_answer(link, path, ReportAnswer).report
    if output is None:
        click.echo(report, nl=False)
    else:
        from agent.publish.files import write_durably

        write_durably(output, report.encode())


def _check(report: Path, key: Path) -> Usage:
    """Return what a report says that a board signed.

    Raises:
        BundleRefusedError: ``signature``, ``malformed``.
        SettingsError: A file cannot be read.
    """
    from agent.audit.key import verify_ed25519
    from agent.core.note import parse_key

    try:
        raw, line = read_file(report, MAX_REPORT_BYTES), read_file(key)
    except OSError as err:
        raise SettingsError(str(err), reason=Reason.SETTINGS) from err
    named = parse_key(line.decode("utf-8", errors="replace"))
    return open_report(raw, named, verify_ed25519)


def _show(usage: Usage, *, as_json: bool) -> None:
    """Print a report that is signed."""
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(usage), indent=2))
        return
    click.echo(
        f"signed by the board; {usage.answers:,} answers, {usage.used:,} charged"
    )
    for row in usage.rows:
        model = row.model[:16] or "no receipt"
        click.echo(f"{spell_hour(row.hour)}  {model:16}  {row.count:>12,}")
