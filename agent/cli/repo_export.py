"""``tinyward repo export``: a slice of a repository, to be carried or pushed."""

from collections.abc import Sequence
from pathlib import Path

import click

from agent.cli.repo_options import (
    complete_bundle,
    parse_bundle,
    parse_place,
    repository_argument,
)


@click.command(short_help="Write a slice for boards without a network.")
@repository_argument
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--group", "groups", multiple=True, help="Bundles this group wants.")
@click.option("--device", "devices", multiple=True, help="Bundles this board wants.")
@click.option(
    "--model",
    "models",
    metavar="MODEL=VERSION",
    multiple=True,
    shell_complete=complete_bundle,
    help="This bundle.",
)
@click.option("--all", "everything", is_flag=True, help="All bundles that are listed.")
def export(
    repository: Path,
    out: Path,
    groups: Sequence[str],
    devices: Sequence[str],
    models: Sequence[str],
    *,
    everything: bool,
) -> None:
    """Write a slice of REPO to the new folder OUT, or to OUT.tar.

    All signed metadata and desired states are in it, and those bundles that are
    chosen; without a choice, all that any group or board is told to run. Boards take
    it by `tinyward update import` and `tinyward push`, or as a factory slice.
    """
    from agent.publish.slices import Choice, export_slice

    for name in groups:
        parse_place(f"group:{name}")
    for name in devices:
        parse_place(f"device:{name}")
    named = [parse_bundle(text) for text in models]
    choice = Choice(groups, devices, named, everything)
    pieces = export_slice(repository, out, choice)
    bundles = [piece.name for piece in pieces if piece.name.endswith(".bundle")]
    for name in bundles:
        click.echo(name)
    click.echo(f"exported {len(pieces)} files, {len(bundles)} bundles, to {out}")
