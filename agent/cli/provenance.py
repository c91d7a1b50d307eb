"""``tinyward provenance``: what runs on a board, and where that came from."""

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.reach import Local, Remote, local_options, remote_options
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError

if TYPE_CHECKING:
    from agent.cli.provenance_view import Shown
    from agent.trust.statements import PublicKey

NONCE_BYTES = 16
HELP = """Show what runs on a board and where it came from, signed.

\b
tinyward provenance                              the daemon on this machine
tinyward provenance --verify board.crt           and whether it has signed that
tinyward provenance --board board-7@10.0.0.7 --cert me.pem --ca fleet-ca.pem
tinyward provenance --bundle kws-8.bundle        what a bundle says of its origin
tinyward provenance --bundle kws-8.bundle --verify owner.pem

A board signs with the key of its certificate, else with the key of its log, a fresh
statement about the digest of the bytes that its worker was told to check. Beside it
stands what the bundle says of itself: training data, code, evaluation, approver.

A signature says who speaks. A board whose root lies can sign anything.

\b
Exit code 0 if everything that was asked for holds, 1 if not."""


class Where(Local, Remote):
    """Which board, as options say it."""


@click.command(help=HELP, short_help="Show what runs and where it came from, signed.")
@local_options
@click.option(
    "--board", metavar="BOARD", help="Another board, over TLS: [NAME@]HOST[:PORT]."
)
@remote_options
@click.option("--pipeline", help="Only this one.")
@click.option(
    "--bundle",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Show what a bundle says, instead of a board.",
)
@click.option(
    "--verify",
    "key_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificate or public key (PEM) that has to have signed what is shown.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the statements instead.")
def command(
    *,
    board: str | None,
    pipeline: str | None,
    bundle: Path | None,
    key_file: Path | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Ask, verify and show.

    Raises:
        AgentError: It cannot be asked; ``signature`` or ``provenance``: what is said
            does not hold.
    """
    from agent.cli.provenance_check import read_key
    from agent.cli.provenance_view import show_lines

    key = read_key(key_file) if key_file is not None else None
    if bundle is not None:
        shown = [_of_bundle(bundle, key)]
    else:
        shown = _of_board(board, where, key)
    if pipeline is not None:
        shown = [it for it in shown if it.name == pipeline]
        if not shown:
            what = f"pipeline {pipeline!r} runs nothing there"
            raise DeviceError(what, reason=Reason.UNKNOWN_PIPELINE)
    if as_json:
        click.echo(json.dumps({it.name: it.tree for it in shown}, indent=2))
        return
    for line in show_lines(shown, verified=key is not None):
        click.echo(line)


def _of_bundle(path: Path, key: "PublicKey | None") -> "Shown":
    """Return what a bundle says of its origin, checked against its variants.

    Raises:
        BundleRefusedError: ``provenance``: it says nothing, or is about other bytes;
            ``signature``; or it is no bundle.
    """
    from agent.cli.provenance_check import check_published
    from agent.cli.provenance_view import shown_bundle
    from agent.trust.bundle import open_bundle

    content = path.read_bytes()
    try:
        opened = open_bundle(content, max_bytes=len(content))
        check_published(opened, key)
        return shown_bundle(str(path), opened)
    except BundleRefusedError as err:
        what = f"{path}: {err}"
        raise BundleRefusedError(what, reason=err.reason, todo=err.todo) from err


def _of_board(
    board: str | None, where: Where, key: "PublicKey | None"
) -> list["Shown"]:
    """Return what a board says of every pipeline that runs something.

    Raises:
        AgentError: It cannot be asked, or what it says does not hold.
    """
    from agent.cli.provenance_view import ask_running
    from agent.cli.reach import local_link, remote_links

    if board is None:
        link = local_link(where["config"], where["socket"])
    else:
        link = remote_links([board], where)[0]
    return ask_running(link, secrets.token_hex(NONCE_BYTES), key)
