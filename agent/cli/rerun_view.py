"""An audit for people: bars while it works, a table and a sentence in the end."""

from collections import Counter
from types import TracebackType
from typing import Self

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from agent.cli.rerun import Audit
from agent.core.checkpoint import Checkpoint
from agent.core.rerun import Verdict

SHOWN = 20  # verdicts that are listed: bad ones first, the rest by their number


class RerunView:
    """Shows how far an audit is, on standard error."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def verified(self, done: int, of: int) -> None:
        """So many records of the log were verified."""
        self._show("log", done, of)

    def computed(self, done: int, of: int) -> None:
        """So many inferences have their verdict."""
        self._show("inferences", done, of)

    def _show(self, what: str, done: int, of: int) -> None:
        """Move a bar."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what)
        self._bars.update(self._tasks[what], completed=done, total=of)


def print_json(audit: Audit, checkpoint: Checkpoint, seed: bytes) -> None:
    """Print one JSON object."""
    told = {
        "good": audit.is_good,
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "seed": seed.hex(),
        "candidates": audit.candidates,
        "removed": audit.removed,
        "results": dict(Counter(it.result for it in audit.verdicts)),
        "absent": {it.hex(): number for it, number in audit.absent.items()},
        "verdicts": audit.verdicts,
    }
    click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())


def print_audit(audit: Audit, checkpoint: Checkpoint, seed: bytes) -> None:
    """Print a table of what is not right, and what it all comes to."""
    console = Console()
    wrong = [it for it in audit.verdicts if it.reason]
    if wrong:
        table = Table("receipt", "result", "distance", "tolerance", "why")
        for verdict in wrong[:SHOWN]:
            table.add_row(*_cells(verdict))
        console.print(table)
        if len(wrong) > SHOWN:
            console.print(f"... and {len(wrong) - SHOWN} more")
    counts = Counter(it.result for it in audit.verdicts)
    said = ", ".join(f"{number} {result}" for result, number in counts.most_common())
    console.print(f"{checkpoint.origin}, {checkpoint.size} records: {said}.")
    for digest, number in audit.absent.most_common(SHOWN):
        console.print(f"Not at hand, {number} of them:", digest.hex(), soft_wrap=True)
    removed = f"; the quota removed {audit.removed} older" if audit.removed else ""
    console.print(f"Drawn of {audit.candidates} kept{removed}. Seed {seed.hex()}")


def _cells(verdict: Verdict) -> tuple[str, ...]:
    """Return a row of the table."""
    distance = "" if verdict.distance is None else f"{verdict.distance:.4g}"
    tolerance = "" if verdict.tolerance is None else f"{verdict.tolerance:.4g}"
    return str(verdict.seq), verdict.result, distance, tolerance, verdict.detail
