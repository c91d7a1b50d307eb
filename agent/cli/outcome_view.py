"""How outcomes are printed: a table for people, or JSON for scripts."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from agent.cli.outcome import Outcome


def show_outcomes(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    """Print how it ended; nothing where nobody waited for the end."""
    if as_json:
        click.echo(json.dumps(describe(outcomes), indent=2))
    elif outcomes:
        from rich.console import Console

        from agent.cli.status_view import pipelines_table, show_lines

        show_lines(Console(highlight=False), pipelines_table(outcomes))


def describe(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Return outcomes for scripts: ``ok`` is false if somebody has to act."""
    return {
        "ok": all(row.good for row in outcomes),
        "pipelines": [asdict(row) for row in outcomes],
    }
