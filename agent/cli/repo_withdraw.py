"""``tinyward repo remove|revoke``: take back what was listed, or forbid it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from agent.cli.repo_options import (
    complete_bundle,
    complete_place,
    open_keyless,
    parse_bundle,
    parse_place,
    repository_argument,
)
from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.publish.keyless import KeylessRepository


class Named(TypedDict):
    """Options of ``revoke``: whom, beside bundles."""

    operators: Sequence[str]
    boards: Sequence[str]


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Offer what can be removed."""
    places = complete_place(ctx, param, incomplete)
    devices = [name for name in places if name.startswith("device:")]
    return devices + complete_bundle(ctx, param, incomplete)


@click.command(short_help="Stage that a bundle is listed no longer.")
@repository_argument
@click.argument("name", metavar="MODEL=VERSION|device:ID", shell_complete=_complete)
def remove(repository: Path, name: str) -> None:
    """Stage that a bundle is listed no longer, or end one board's exception.

    Boards that run the bundle keep it; `revoke` stops them. A bundle that a group or
    a board is still told to run stays.
    """
    opened = open_keyless(repository)
    if name.startswith("device:"):
        board = parse_place(name).rpartition("/")[2]
        opened.release_device(board)
        click.echo(f"staged: device {board} follows its groups again")
        return
    path = opened.remove(*parse_bundle(name))
    click.echo(f"staged: {path} is listed no longer")


@click.command(short_help="Stage that bundles or operators must not act.")
@repository_argument
@click.argument(
    "bundles",
    metavar="[MODEL=VERSION|SHA256]...",
    nargs=-1,
    shell_complete=complete_bundle,
)
@click.option(
    "--operator",
    "operators",
    metavar="SERIAL",
    multiple=True,
    help="A client certificate, by its serial number (repeatable).",
)
@click.option(
    "--board",
    "boards",
    metavar="ID",
    multiple=True,
    help="Give this board no envelope of sealed bundles any more (repeatable).",
)
@click.option("--undo", is_flag=True, help="Take these revocations back.")
def revoke(
    repository: Path, bundles: Sequence[str], *, undo: bool, **named: Unpack[Named]
) -> None:
    """Stage that bundles may run nowhere, or that operators may do nothing.

    `publish` signs it with the keys of targets. Boards that run a revoked bundle go
    back to the model before it, or stop answering.

    --board acts at once and needs no signature: the board's envelopes are removed, and
    `add` takes none in for it. It still opens what it has fetched already.
    """
    opened = open_keyless(repository)
    digests = [_digest(opened, text) for text in bundles]
    serials = [_serial(text) for text in named["operators"]]
    if not digests and not serials and not named["boards"]:
        raise SettingsError(
            "nothing to revoke is named",
            reason=Reason.SETTINGS,
            todo="Name MODEL=VERSION, a SHA-256, --operator SERIAL or --board ID.",
        )
    if named["boards"]:
        _withdraw(repository, named["boards"], undo=undo)
    if not digests and not serials:
        return
    after = opened.revoke(digests, serials, undo=undo)
    word = "not revoked any more" if undo else "revoked"
    for text in (*digests, *(f"operator {serial}" for serial in serials)):
        click.echo(f"{word}: {text}")
    click.echo(
        f"staged: {len(after.bundles)} bundles and {len(after.operators)} operators "
        "revoked; publish with the keys of targets"
    )


def _withdraw(repository: Path, boards: Sequence[str], *, undo: bool) -> None:
    """Give boards no envelopes any more, or again."""
    from agent.publish.envelopes import withdraw_boards

    gone = withdraw_boards(repository, boards, undo=undo)
    for board in boards:
        removed = sum(path.name == board for path in gone)
        said = (
            "its envelopes may be added again"
            if undo
            else f"{removed} of its envelopes removed, it is given no other"
        )
        click.echo(f"board {board}: {said}")


def _digest(opened: "KeylessRepository", text: str) -> str:
    """Return the SHA-256 of a bundle that is named by it, or by model and version."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return text.lower()
    return opened.digest(*parse_bundle(text))


def _serial(text: str) -> str:
    """Return a serial number as boards compare it."""
    from agent.core.certificates import parse_serial

    serial = parse_serial(text)
    if not serial:
        raise SettingsError(
            f"{text!r} is no serial number",
            reason=Reason.SETTINGS,
            todo="Write it in hexadecimal, as `tinyward ca list` shows it.",
        )
    return serial
