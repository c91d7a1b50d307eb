"""``tinyward pack``: .tflite files, a description and samples become one bundle."""

import os
from contextlib import suppress
from pathlib import Path

import click

from agent.core.disk_reasons import disk_reason
from agent.core.reasons import Reason
from agent.errors import AgentError, DeviceError, SettingsError
from agent.trust.bundle import Bundle, open_bundle

HELP = """Make a bundle from DESCRIPTION, a pack.toml.

\b
The description is the manifest without what can be computed:
    model = "digits"              # [a-z0-9_-], up to 64
    version = 1                   # rises with every publication
    task = "classification"       # regression, anomaly, detection, raw
    samples = "recorded.npz"      # .npy, .npz, a folder of images, WAV, CSV, JSONL
    golden_samples = 32           # how many of them are recorded (default 32)
    array = "images"              # which array of an .npz (default: first; "*": all)
    labels = ["zero", "one"]      # or a file with one a line
    profile = "profile.json"      # from `tinyward profile` (default: none)
    provenance = "in-toto.json"   # or a table, see below (default: not said)
    [[variant]]                   # one table for each .tflite file
    name = "int8"
    file = "int8.tflite"
    tolerance = 0.05              # largest difference that still agrees, real units
    runtimes = ["litert"]         # default: any
    delegates = ["edgetpu"]       # default: none
    [[preprocess]]                # steps from a sample to the model's input
    step = "scale"
    factor = 0.0625
and io, version_name, [postprocess], [[state]], [budgets], [trial], [monitor].

\b
Where the model came from, as a table, of which a statement is made:
    [provenance]
    code = {commit = "40 or 64 hex digits", repository = "https://..."}
    approver = {name = "Ada", at = "2026-11-01"}
    [[provenance.training_data]]  # one table for each file, archive or table
    name = "digits.npz"
    file = "digits.npz"           # or sha256 = "..." where it does not lie here
    uri = "https://..."           # default: none
    [[provenance.evaluation]]
    metric = "accuracy"
    value = 0.97
    on = "held-out digits"        # default: not said

\b
Or as a file: an in-toto statement, alone or in a DSSE envelope, of this type and
no other (SLSA's is refused), whose subjects are all of the variants:
    {"_type": "https://in-toto.io/Statement/v1",
     "subject": [{"name": "int8.tflite", "digest": {"sha256": "..."}}],
     "predicateType": "urn:tinyward:provenance:v1",
     "predicate": {
       "trainingData": [{"name": "...", "uri": "...",
                         "digest": {"sha256": "..."}}],
       "code": {"commit": "...", "repository": "..."},
       "evaluation": [{"metric": "...", "value": 0.97, "on": "..."}],
       "approver": {"name": "...", "at": "..."}}}

Tensor contracts, digests, RAM and golden outputs are computed from the files. The same
input gives the same bytes. File names are relative to DESCRIPTION."""


@click.command(help=HELP, short_help="Make a bundle from a description.")
@click.argument("description", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write it.  [default: MODEL-VERSION.bundle, here]",
)
def command(description: Path, output: Path | None) -> None:
    """Pack, open what was packed as a board would, and only then write it.

    Raises:
        SettingsError: A key or a file does not fit (``settings``).
        AgentError: A model or the samples cannot be used; or a board would refuse it.
        DeviceError: The bundle cannot be written.
    """
    from agent.cli.examiner import ChildExaminer
    from agent.publish.pack import load_description, pack

    try:
        described = load_description(description)
        content = pack(described, description.parent, ChildExaminer())
    except SettingsError as err:
        raise SettingsError(
            f"{description}: {err}",
            reason=err.reason,
            todo="`tinyward pack --help` shows the keys.",
        ) from err
    bundle = open_bundle(content, max_bytes=len(content))
    path = output or Path(f"{described.model}-{described.version}.bundle")
    save(path, content)
    show(bundle, path)


def save(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        SettingsError: There can be no file of this name (``settings``).
        DeviceError: It cannot be written (``disk_full``, ``read_only``,
            ``permission``).
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as err:
        raise _unwritable(path, err) from err
    finally:
        with suppress(OSError):
            part.unlink()


def _unwritable(path: Path, err: OSError) -> AgentError:
    """Return the error for a bundle that cannot be written where it should be."""
    reason = disk_reason(err.errno)
    what = f"{path}: {err.strerror or err}"
    if reason == Reason.STATE:
        todo = "Name a file in a directory that exists: -o FILE."
        return SettingsError(what, reason=Reason.SETTINGS, todo=todo)
    return DeviceError(what, reason=reason, todo="Write it elsewhere: -o FILE.")


def show(bundle: Bundle, path: Path) -> None:
    """Say what was packed, and what comes next."""
    from agent.cli.bundle_view import count_of, render_size

    manifest = bundle.manifest
    click.echo(
        f"{path}  {manifest.model} {manifest.version}  {render_size(bundle.size)}"
    )
    for variant in manifest.variants:
        ram = render_size(variant.ram_bytes)
        click.echo(f"  {variant.name:<12} {render_size(variant.size):>9}  RAM {ram:>9}")
    golden = count_of(manifest.golden.samples, "golden sample")
    click.echo(f"  {golden}  sha256 {bundle.sha256}")
    click.echo(f"next: tinyward repo add REPO {path}")
