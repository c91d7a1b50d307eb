"""What ``tinyward watermark instances`` says in the end."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agent.publish.marks_book import MarkedVersion, MarksBook

# Logits; robustness was measured with twice as much.
GENTLE = 0.6


@dataclass(frozen=True, slots=True)
class Made:
    """What this call did.

    Attributes:
        out: The bundle it wrote; ``count`` copies it made in ``took_s``.
    """

    out: Path
    count: int
    took_s: float


def show_copies(
    book: "MarksBook", known: "MarkedVersion", boards: frozenset[str], made: Made
) -> None:
    """Say who has a copy, and what it costs the model."""
    agreed = [it.agreement for it in book.copies(known) if it.board in boards]
    each = f", {made.took_s / made.count * 1000:.0f} ms each" if made.count else ""
    click.echo(
        f"{made.out}  {known.model} {known.version}  {known.bits} bits, "
        f"margin {known.margin:g}"
    )
    if known.margin < GENTLE:
        click.echo(
            "  this model is seldom sure and has room for no larger margin: its mark "
            "survives fewer changes than others do; fewer --bits leave more room"
        )
    click.echo(
        f"  {len(agreed):,} boards have a copy in {book.path}; "
        f"{made.count:,} made now{each}"
    )
    click.echo(
        f"  agreement with the unmarked model, on data no copy was made with: "
        f"{fmean(agreed):.2%}, the worst {min(agreed):.2%}"
    )
    click.echo(f"next: tinyward seal {made.out} --to BOARD.pub --marks {book.path}")
