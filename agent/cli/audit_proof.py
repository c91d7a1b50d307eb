"""``tinyward audit proof``: the proof that a record is in a board's log."""

from pathlib import Path
from typing import Unpack

import click

from agent.cli.audit_board import Where, board_options, link_to, write_text

HELP = """Fetch the proof that record SEQ is in a board's log of receipts.

It holds the record, the path to the root and the signed checkpoint, in the format of
C2SP tlog-proof; `tinyward audit verify` needs nothing else but the board's key."""


@click.command(help=HELP, short_help="Fetch the proof that a record is in the log.")
@click.argument("seq", type=click.IntRange(0, 10**15 - 1))
@board_options
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it.  [default: standard output]",
)
def command(*, seq: int, output: Path | None, **where: Unpack[Where]) -> None:
    """Ask the board for a proof and write it.

    Raises:
        AgentError: It cannot be asked, has no such record, or has it no more.
    """
    from agent.core.log_proof import parse_proof

    text = link_to(where).read_text(f"/v1/audit/proof/{seq}")
    parse_proof(text.encode())  # what is none is not written
    write_text(text, output)
