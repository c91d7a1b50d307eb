"""``tinyward meter``: what is paid for, on the vendor's side and on the board.

The rules this module keeps:
 * Each command is a module beside this one, imported when it is called.
"""

import click

from agent.cli import LazyGroup

EXPLAINED = """Sell inferences to boards, and see what is left; works offline.

\b
On the vendor's machine:
  tinyward meter key vendor.key              once; vendor.key.pub goes onto boards
  tinyward meter vouchers --board pi-0042=KEY --units 100000 --key vendor.key
\b
On the board ([meter] vendor_key names vendor.key.pub):
  tinyward meter status                      what is left; KEY for the vendor
  tinyward meter redeem FILE                 a voucher as a file, from a pipe (-), or
                                             typed: eight lines of six groups
  tinyward meter report -o usage.txt         answers by model and hour, signed

A voucher counts once, on one board. Neither what a board's root does to its own memory
nor a card that is restored is prevented; the second is proven to whoever kept an
earlier checkpoint: `tinyward audit verify --last-seen`.
"""

# The line each command has in ``tinyward meter --help``; help imports none of them.
COMMANDS = {
    "status": "Show what is left, by pipeline, and what a power cut would cost.",
    "redeem": "Redeem vouchers on a board.",
    "report": "Fetch the signed usage report, or check one.",
    "vouchers": "Issue vouchers for a board.",
    "key": "Make the vendor's key.",
}


class MeterGroup(LazyGroup):
    """The commands of the table."""

    table = COMMANDS
    modules = "agent.cli.meter_"


@click.group("meter", cls=MeterGroup, help=EXPLAINED)
def command() -> None:
    """Group the commands below."""
