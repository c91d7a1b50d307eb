"""``tinyward audit head``: the newest checkpoint of a board's log."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.audit_board import Where, board_options, link_to, write_text

if TYPE_CHECKING:
    from agent.core.checkpoint import Checkpoint

HELP = """Show the newest checkpoint of a board's log of receipts.

\b
tinyward audit head                   for people
tinyward audit head -o seen.note      the signed note, to be kept off the board
tinyward audit head --json | jq .size

Kept elsewhere it is what makes a restored card evident: `tinyward audit verify LOG
--last-seen seen.note`. The signature is not verified here: the board's word is."""


@click.command(help=HELP, short_help="Show the newest checkpoint of a board's log.")
@board_options
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the signed note there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(*, output: Path | None, as_json: bool, **where: Unpack[Where]) -> None:
    """Ask the board and show what it signed last.

    Raises:
        AgentError: It cannot be asked, or gives no receipts.
    """
    from agent.core.checkpoint import parse_checkpoint
    from agent.core.note import split_note

    note = link_to(where).read_text("/v1/audit/checkpoint")
    text, _ = split_note(note.encode())
    checkpoint = parse_checkpoint(text)
    if output is not None:
        write_text(note, output)
    click.echo(_as_json(checkpoint, note) if as_json else _describe(checkpoint))


def _describe(checkpoint: "Checkpoint") -> str:
    """Return a checkpoint for people."""
    from agent.cli.plain_text import plain
    from agent.core.checkpoint import say_starts

    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(checkpoint.time_s))
    rows = {
        "log": plain(checkpoint.origin),
        "records": f"{checkpoint.size} ({checkpoint.inferences} inferences)",
        "lost": str(checkpoint.lost),
        "starts": say_starts(checkpoint),
        "root": checkpoint.root.hex(),
        "head": checkpoint.head.hex(),
        "signed": f"{at} by the board's clock",
    }
    return "\n".join(f"{word:8} {value}" for word, value in rows.items())


def _as_json(checkpoint: "Checkpoint", note: str) -> str:
    """Return a checkpoint for programs."""
    found = {
        name: value.hex() if isinstance(value, bytes) else value
        for name in checkpoint.__slots__
        if (value := getattr(checkpoint, name)) is not None
    }
    return json.dumps({**found, "note": note})
