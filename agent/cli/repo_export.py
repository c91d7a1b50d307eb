"""``tinyward repo export``: a slice of a repository, to be carried or pushed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import click

from agent.cli.repo_options import (
    complete_bundle,
    parse_bundle,
    parse_place,
    repository_argument,
)


class Chosen(TypedDict):
    """Options of ``export``: what goes along."""

    groups: Sequence[str]
    devices: Sequence[str]
    models: Sequence[str]
    deltas_from: Sequence[str]
    everything: bool
    boards: Sequence[str]


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
@click.option("--all", "everything", is_flag=True, help="All that is listed.")
@click.option(
    "--delta-from",
    "deltas_from",
    metavar="MODEL=VERSION",
    multiple=True,
    shell_complete=complete_bundle,
    help="For boards that hold this one: deltas instead of bundles (repeatable).",
)
@click.option(
    "--board",
    "boards",
    metavar="ID",
    multiple=True,
    help="Of sealed bundles, this board's envelopes only (repeatable).",
)
def export(repository: Path, out: Path, **chosen: Unpack[Chosen]) -> None:
    """Write a slice of REPO to the new folder OUT, or to OUT.tar.

    All signed metadata and desired states are in it, and those bundles that are
    chosen; without a choice, all that any group or board is told to run. Boards take
    it by `tinyward update import` and `tinyward push`, or as a factory slice.

    With --delta-from, a bundle that a published delta leads to from there stays
    behind: boards that hold another version cannot use the slice for it.
    """
    from agent.publish.slices import Choice, export_slice

    groups, devices = chosen["groups"], chosen["devices"]
    for name in groups:
        parse_place(f"group:{name}")
    for name in devices:
        parse_place(f"device:{name}")
    named = [parse_bundle(text) for text in chosen["models"]]
    bases = [parse_bundle(text) for text in chosen["deltas_from"]]
    choice = Choice(
        groups, devices, named, chosen["everything"], bases, chosen["boards"]
    )
    pieces = export_slice(repository, out, choice)
    bundles = [piece.name for piece in pieces if piece.name.endswith(".bundle")]
    deltas = [piece.name for piece in pieces if piece.name.endswith(".zst")]
    for name in bundles + deltas:
        click.echo(name)
    counted = f"{len(pieces)} files, {len(bundles)} bundles"
    counted += f", {len(deltas)} deltas" if deltas else ""
    envelopes = sum(piece.name.startswith("envelopes/") for piece in pieces)
    counted += f", {envelopes} envelopes" if envelopes else ""
    click.echo(f"exported {counted}, to {out}")
