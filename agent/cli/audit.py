"""``tinyward audit``: the log of receipts, shown, proven and verified.

The rules this module keeps:
 * Each command is a module beside this one, imported when it is called.
"""

import click

from agent.cli import LazyGroup

EXPLAINED = """Show, prove and verify a board's log of receipts.

\b
tinyward audit head -o seen.note          the newest checkpoint, to be kept elsewhere
tinyward audit key > board.vkey           by what it is verified
tinyward audit proof 4711 -o 4711.tlog-proof
tinyward audit verify 4711.tlog-proof --key board.vkey
tinyward audit verify card/audit --key board.vkey --last-seen seen.note

The log proves order and completeness up to a checkpoint, which bytes ran and what they
answered, to whoever kept an earlier checkpoint. It does not prove that a board whose
root lies has told the truth: `tinyward audit rerun` computes kept inputs anew, but a
root that knows which are kept can still answer those rightly.
"""

# The line each command has in ``tinyward audit --help``; help imports none of them.
COMMANDS = {
    "head": "Show the newest checkpoint of a board's log.",
    "key": "Print the public key by which this board's log is verified.",
    "proof": "Fetch the proof that a record is in the log.",
    "verify": "Verify a log, or a proof, with the board's public key alone.",
    "rerun": "Compute kept inferences anew, and compare.",
}


class AuditGroup(LazyGroup):
    """The commands of the table."""

    table = COMMANDS
    modules = "agent.cli.audit_"


@click.group("audit", cls=AuditGroup, help=EXPLAINED)
def command() -> None:
    """Group the commands below."""
