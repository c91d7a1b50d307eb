"""How making a profile looks: a bar while it lasts, a few lines at the end.

The rules this module keeps:
 * The bar and warnings go to standard error, and the bar to a terminal only; what a
   script reads goes to standard output.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Self

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from agent.cli.bundle_view import count_of, render_size
from agent.cli.plain_text import plain

if TYPE_CHECKING:
    from agent.cli.profile_making import Made, MadeVariant

UNKNOWN = -1.0  # as Reference says it
BAR_WIDTH = 30  # description, bar, count and time fit 80 columns


class ProfileView:
    """A bar for each stage, below each other."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(BAR_WIDTH),
            TextColumn("{task.completed}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *details: object) -> None:
        """Take the bars away."""
        if self._console.is_terminal:
            self._bars.stop()

    def begin(self, what: str, total: int | None) -> None:
        """Begin a stage of so many steps, None if nobody knows."""
        if self._task is not None:
            done = self._bars.tasks[self._task].completed
            self._bars.update(self._task, total=done)
        self._task = self._bars.add_task(plain(what), total=total)

    def move(self, done: int) -> None:
        """So many steps of the stage are done."""
        if self._task is not None:
            self._bars.update(self._task, completed=done)


def print_made(made: "Made", path: Path, into: Path | None) -> None:
    """Say what was made, what could not be calibrated, and what comes next."""
    manifest = made.manifest
    click.echo(
        f"{path}  {manifest.model} {manifest.version}  {render_size(len(made.raw))}"
    )
    for one in made.variants:
        click.echo(f"  {one.variant.name:<12} {describe(one)}")
    show_warnings(made)
    if into:
        click.echo(f"next: tinyward repo add REPO {into}")
    else:
        click.echo(f'next: profile = "{path.name}" in pack.toml, then tinyward pack')


def describe(one: "MadeVariant") -> str:
    """Return one line about a reference.

    It reads ``600 samples, 14 groups, 12 features, grouped``.
    """
    reference = one.reference
    parts = [count_of(reference.count, "sample")]
    if reference.groups:
        parts.append(count_of(reference.groups, "group"))
    parts += [count_of(len(reference.features), "feature"), reference.calibration]
    return ", ".join(parts)


def show_warnings(made: "Made") -> None:
    """Say what could not be calibrated, each thing once."""
    for warning in dict.fromkeys(
        said for one in made.variants for said in one.warnings
    ):
        click.echo(f"warning: {plain(warning)}", err=True)


def print_json(made: "Made") -> None:
    """Print what was made as one JSON object."""
    show_warnings(made)
    tree = {
        "model": made.manifest.model,
        "version": made.manifest.version,
        "size": len(made.raw),
        "variants": [_tree(one) for one in made.variants],
    }
    text = msgspec.json.format(msgspec.json.encode(tree), indent=2)
    click.echo(text.decode())


def _tree(one: "MadeVariant") -> dict[str, object]:
    """Return what is known of one variant."""
    reference, said = one.reference, one.rows.said
    return {
        "variant": one.variant.name,
        "sha256": one.variant.sha256,
        "kind": reference.kind,
        "features": reference.features,
        "samples": {
            "read": said.samples,
            "failed": said.failed,
            "invalid": said.invalid,
            "used": reference.count,
        },
        "groups": reference.groups,
        "calibration": reference.calibration,
        "interval": one.calibrated.interval,
        # -1 means in a profile that nobody knows; scripts expect null for that.
        "autocorrelation": _known(reference.autocorrelation),
        "accuracy": _known(reference.accuracy),
        "thresholds": reference.thresholds,
        "site_thresholds": reference.site_thresholds,
        "delays": [
            {"shift": delay.shift, "size": delay.size, "samples": delay.samples}
            for delay in one.calibrated.delays
        ],
        "input_delays": [
            {
                "shift": delay.meaning,
                "warning": delay.warning,
                "critical": delay.critical,
                "found": delay.found,
            }
            for delay in one.delays
        ],
        "warnings": one.warnings,
    }


def _known(value: float) -> float | None:
    """Return a number, None where a profile says that it is unknown."""
    return None if value == UNKNOWN else value
