"""``tinyward provenance``: what runs on a board, and where that came from."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.reach import Local, Remote, local_options, remote_options
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError

if TYPE_CHECKING:
    from agent.cli.provenance_view import Shown
    from agent.trust.bundle import Bundle
    from agent.trust.statements import PublicKey

NONCE_BYTES = 16
HELP = """Show what runs on a board and where it came from, signed.

\b
tinyward provenance                              the daemon on this machine
tinyward provenance --verify board.crt           and whether it has signed that
tinyward provenance --board board-7@10.0.0.7 --cert me.pem --ca fleet-ca.pem
tinyward provenance --bundle kws-8.bundle        what a bundle says of its origin
tinyward provenance --bundle kws-8.bundle --verify owner.pem
tinyward provenance --bundle kws-8.bundle --board board-7@10.0.0.7 --cert me.pem ...
                                                 whether that board runs this bundle

A board signs with the key of its certificate, else with the key of its log, a fresh
statement about the digest of the bytes that its worker was told to check. Beside it
stands what the bundle says of itself: training data, code, evaluation, approver.

A board passes on what its bundle says, and checks no signature in there: --origin-key
does that here.

A signature says who speaks. A board whose root lies can sign anything.

\b
Exit code 0 if everything that was asked for holds, 1 if not."""


class Where(Local, Remote):
    """Which board, as options say it."""

    board: str | None
    pipeline: str | None


@dataclass(frozen=True, slots=True)
class Keys:
    """Who has to have signed: what is shown, and what a bundle says inside of that."""

    shown: "PublicKey | None"
    origin: "PublicKey | None"


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
    help="Show what a bundle says; with --board, --socket or --pipeline, whether that "
    "runs it.",
)
@click.option(
    "--verify",
    "key_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificate or public key (PEM) that has to have signed what is shown.",
)
@click.option(
    "--origin-key",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same for what the bundle says of its origin, as a board shows it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the statements instead.")
def command(
    *,
    bundle: Path | None,
    key_file: Path | None,
    origin_key: Path | None,
    as_json: bool,
    **where: Unpack[Where],
) -> None:
    """Ask, verify and show.

    Raises:
        AgentError: It cannot be asked; ``signature``, ``provenance`` or ``mismatch``:
            what is said does not hold.
    """
    from agent.cli.provenance_check import read_provenance_key
    from agent.cli.provenance_view import show_lines

    origin = read_provenance_key(origin_key)
    keys = Keys(read_provenance_key(key_file), origin)
    if bundle is None or where["board"] or where["socket"] or where["pipeline"]:
        shown = _running(where, keys, bundle)
    else:
        # Nobody else has said anything: both options mean the same.
        keys = Keys(keys.shown or keys.origin, keys.origin)
        shown = [_of_bundle(bundle, keys)]
    if as_json:
        click.echo(json.dumps({it.name: it.tree for it in shown}, indent=2))
        return
    for line in show_lines(shown, verified=keys.shown is not None):
        click.echo(line)


def _running(where: Where, keys: Keys, bundle: Path | None) -> "list[Shown]":
    """Return what runs on the board that is meant, of a bundle alone if one is named.

    Raises:
        AgentError: It cannot be asked, what it says does not hold, or it runs nothing
            of the kind.
    """
    from agent.cli.provenance_view import of_bundle

    opened = None if bundle is None else _opened(bundle)
    shown, pipeline = _of_board(where, keys), where["pipeline"]
    if pipeline is not None:
        shown = [it for it in shown if it.name == pipeline]
        if not shown:
            what = f"pipeline {pipeline!r} runs nothing there"
            raise DeviceError(what, reason=Reason.UNKNOWN_PIPELINE)
    return shown if opened is None else of_bundle(shown, opened, str(bundle))


def _opened(path: Path) -> "Bundle":
    """Return a bundle.

    Raises:
        BundleRefusedError: It is none.
    """
    from agent.trust.bundle import open_bundle

    content = path.read_bytes()
    try:
        return open_bundle(content, max_bytes=len(content))
    except BundleRefusedError as err:
        raise _about(path, err) from err


def _of_bundle(path: Path, keys: Keys) -> "Shown":
    """Return what a bundle says of its origin, checked against its variants.

    Raises:
        BundleRefusedError: ``provenance``: it says nothing, or is about other bytes;
            ``signature``; or it is no bundle.
    """
    from agent.cli.provenance_check import check_published
    from agent.cli.provenance_view import shown_bundle

    opened = _opened(path)
    try:
        for key in (keys.shown, keys.origin):
            check_published(opened, key)
        return shown_bundle(str(path), opened)
    except BundleRefusedError as err:
        raise _about(path, err) from err


def _about(path: Path, err: BundleRefusedError) -> BundleRefusedError:
    """Return an error that says which file it is about."""
    return BundleRefusedError(f"{path}: {err}", reason=err.reason, todo=err.todo)


def _of_board(where: Where, keys: Keys) -> "list[Shown]":
    """Return what a board says of every pipeline that runs something.

    Raises:
        AgentError: It cannot be asked, or what it says does not hold.
    """
    from agent.cli.provenance_view import ask_running
    from agent.cli.reach import local_link, remote_links

    if where["board"] is None:
        link = local_link(where["config"], where["socket"])
    else:
        link = remote_links([where["board"]], where)[0]
    return ask_running(link, secrets.token_hex(NONCE_BYTES), keys.shown, keys.origin)
