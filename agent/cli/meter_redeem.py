"""``tinyward meter redeem``: vouchers from a file, a pipe, or typed."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import click
import msgspec

from agent.cli.meter_link import (
    VoucherAnswer,
    Where,
    board_option,
    looks_like_text,
    meter_link,
    send_vouchers,
)
from agent.cli.places import read_file
from agent.cli.plain_text import plain, span_text
from agent.cli.reach import local_options, remote_options
from agent.core.reasons import Reason
from agent.core.voucher import MAX_TOTAL
from agent.core.voucher_text import MAX_TEXT_CHARS, parse_file
from agent.errors import RequestRefusedError, SettingsError


@click.command("redeem", short_help="Redeem vouchers on a board.")
@click.argument("vouchers", metavar="FILE|-|TEXT", nargs=-1, required=True)
@local_options
@board_option
@remote_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def command(
    vouchers: Sequence[str],
    *,
    board: str | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Redeem the vouchers in a FILE, from a pipe (-), or as they are typed.

    Case, blanks and line ends do not matter, nor O for 0 or I for 1; a line with a
    mistake in it is named before anything is sent. The daemon has to run: it alone
    knows what is reserved. Exit code 1 where one voucher does not count.
    """
    found = parse_file(_read(vouchers))
    answer = send_vouchers(meter_link(board, where), found)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(answer), indent=2))
    else:
        for each in answer.redeemed:
            click.echo(_describe(each))
        click.echo(f"left: {answer.left:,} units")
    refused = [each for each in answer.redeemed if each.reason]
    if refused:
        raise RequestRefusedError(
            f"{len(refused)} of {len(answer.redeemed)} vouchers do not count",
            reason=plain(refused[-1].reason, 64),
        )


def _read(given: Sequence[str]) -> bytes:
    """Return what was given: a file's content, standard input, or the words.

    Raises:
        SettingsError: There is no such file.
    """
    if list(given) == ["-"]:
        return sys.stdin.buffer.read(MAX_TEXT_CHARS)
    try:
        if len(given) == 1:
            return read_file(Path(given[0]), MAX_TEXT_CHARS)
    except OSError as err:
        if not looks_like_text(given):
            raise SettingsError(
                f"{given[0]}: {err.strerror or err}",
                reason=Reason.SETTINGS,
                todo="Name a file with vouchers, or type all eight lines of one.",
            ) from err
    return " ".join(given).encode()


def _describe(voucher: VoucherAnswer) -> str:
    """Say what became of a voucher."""
    if voucher.reason:
        return f"refused: {plain(voucher.detail)} [{plain(voucher.reason, 64)}]"
    gave = {
        "units": f"{voucher.units:,} units",
        "time": f"{span_text(min(voucher.units, MAX_TOTAL))} of unlimited running",
        "until": "unlimited until its date",
        "revoke": f"took back up to {voucher.units:,} units"
        if voucher.units
        else "took back all; what pipelines were handed already is owed if they use it",
    }
    return f"voucher {voucher.voucher}: {gave.get(voucher.kind, plain(voucher.kind))}"
