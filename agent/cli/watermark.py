"""``tinyward watermark``: every board's own copy of a model, and whose a leak is.

The rules this module keeps:
 * Each command is a module beside this one, imported when it is called.
"""

import click

from agent.cli import LazyGroup

EXPLAINED = """Make each board's own copy of a classifier; name the board of a leak.

\b
tinyward watermark instances kws-8.bundle --boards boards.csv --data clean.npz
tinyward seal kws-8.marked.bundle --to boards/*.pub --marks marks.db
tinyward watermark trace suspect.tflite --book marks.db

A copy answers secret inputs in its own way, and others as the model does. This finds
who leaked a copy as it is, or after light changes. It does not stop someone who knows
the scheme and has some inputs: see `python -m benchmarks watermark`. The book names
boards and could clean copies: keep it, and its passphrase, beside the signing keys."""

# The line each command has in ``tinyward watermark --help``; help imports none of them.
COMMANDS = {
    "instances": "Make a bundle that can be marked, and a copy for each board.",
    "challenge": "Ask a board whose copy of a model it runs.",
    "trace": "Name the board that a leaked file or an answering endpoint is from.",
}


class WatermarkGroup(LazyGroup):
    """The commands of the table."""

    table = COMMANDS
    modules = "agent.cli.watermark_"


@click.group("watermark", cls=WatermarkGroup, help=EXPLAINED)
def command() -> None:
    """Group the commands below."""
