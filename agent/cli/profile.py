"""``tinyward profile``: held-out data become what a monitor compares with."""

from pathlib import Path
from typing import TypedDict, Unpack

import click

from agent.core.profile import Kind

HELP = """Make a reference profile for MODEL, a bundle or a pack.toml.

Runs the model over held-out data (data it was not trained on) as a board would run it,
with the same preprocess and the same feature code, and writes how its input and output
look while all is well: moments, quantiles and alarm thresholds. No sample is in it.

\b
--groups says where each sample comes from (device, session, site). Thresholds are then
found on halves that share no source; without groups a board away from your desk sees
many more false alarms. It is one of:
    folders     each folder below DATA is a group
    files       each file in DATA is one
    NAME        an array of the .npz that holds the samples
    FILE        a line, or an .npy entry, for each sample
--labels takes the last two. With labels the monitor can estimate accuracy.
--ordered says that samples stand in the order in which they were recorded: the profile
then knows how alike neighbours are, and boards may watch more often.

\b
Then name the file in pack.toml (profile = "profile.json") and pack, or let --into write
a copy of the bundle that holds it.

The same data and seed give the same bytes."""

_PATH = click.Path(path_type=Path)


class Wishes(TypedDict):
    """The options."""

    data: Path
    array: str
    groups: str
    labels: str
    ordered: bool
    variant: tuple[str, ...]
    tensor: str
    kind: Kind | None
    site_samples: int
    seed: int
    output: Path
    report: Path | None
    into: Path | None
    as_json: bool


@click.command(help=HELP, short_help="Make a reference profile of a model.")
@click.argument("model", type=_PATH)
@click.option(
    "--data",
    type=_PATH,
    required=True,
    help="Held-out samples: .npy, .npz, images, WAV, CSV, JSONL, or a folder.",
)
@click.option("--array", default="", help="Which array of an .npz.  [default: first]")
@click.option("--groups", default="", help="Where each sample comes from.")
@click.option("--labels", default="", help="The right answer to each sample.")
@click.option("--ordered", is_flag=True, help="Samples stand as they were recorded.")
@click.option("--variant", multiple=True, help="Only this one.  [default: all]")
@click.option("--tensor", default="", help="An output with inner features.")
@click.option(
    "--kind",
    type=click.Choice(["image", "spectrogram", "vector", "other"]),
    help="How to look at the input.  [default: by its shape]",
)
@click.option(
    "--site-samples",
    type=click.IntRange(200, 20_000),
    default=2000,
    show_default=True,
    help="As `site_samples` of [monitor].",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "-o",
    "--output",
    type=_PATH,
    default=Path("profile.json"),
    show_default=True,
    help="Where to write it.",
)
@click.option("--report", type=_PATH, help="Also write plots, as one HTML file.")
@click.option("--into", type=_PATH, help="Also write a bundle that holds it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(model: Path, **wishes: Unpack[Wishes]) -> None:
    """Read, calibrate, write, and say what could not be calibrated.

    Raises:
        SettingsError: An option does not fit (``settings``).
        AgentError: The model or the data cannot be used.
        DeviceError: A file cannot be written.
    """
    from agent.cli.pack import save
    from agent.cli.profile_held_out import find_held_out
    from agent.cli.profile_making import Making, make_profile
    from agent.cli.profile_model import chosen_variants, open_model, with_profile
    from agent.cli.profile_view import ProfileView, print_json, print_made

    held_out = find_held_out(
        wishes["data"], wishes["array"], wishes["groups"], wishes["labels"]
    )
    bundle, content = open_model(model)
    making = Making(
        bundle=bundle,
        variants=chosen_variants(bundle, wishes["variant"]),
        held_out=held_out,
        ordered=wishes["ordered"],
        tensor=wishes["tensor"],
        kind=wishes["kind"],
        site_samples=wishes["site_samples"],
        seed=wishes["seed"],
        shifts=wishes["report"] is not None,
    )
    with ProfileView() as view:
        made = make_profile(making, view)
    save(wishes["output"], made.raw)
    if wishes["report"]:
        from agent.cli.profile_report import render

        save(wishes["report"], render(made).encode())
    if wishes["into"]:
        save(wishes["into"], with_profile(content, made.raw))
    if wishes["as_json"]:
        print_json(made)
    else:
        print_made(made, wishes["output"], wishes["into"])
