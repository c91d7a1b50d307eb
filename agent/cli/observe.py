"""``tinyward observe``: dashboards and rules for those who watch boards from afar."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from agent.core.disk_reasons import disk_reason
from agent.core.reasons import Reason
from agent.errors import DeviceError, RequestRefusedError

HELP = """Write a Grafana dashboard and Prometheus rules into DIR.

A README.md beside them says how to load them. Existing files are kept, and nothing
is written, unless --force is given."""


@click.group(short_help="Write dashboards and alert rules.")
def command() -> None:
    """Write what Grafana and Prometheus need to watch boards."""


@command.command(help=HELP, short_help="Write them all into a directory.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def export(directory: Path, force: bool) -> None:  # noqa: FBT001 - click passes options so
    """Write the files that are shipped, all or none.

    Raises:
        RequestRefusedError: ``request``: one of the files is there already.
        DeviceError: ``permission``, ``disk_full``...: they cannot be written.
    """
    shipped = list_shipped()
    there = [file.name for file in shipped if (directory / file.name).exists()]
    if there and not force:
        raise RequestRefusedError(
            f"{directory} holds {', '.join(there)} already",
            reason=Reason.REQUEST,
            todo="Choose another directory, or overwrite them with --force.",
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file in shipped:
            (directory / file.name).write_bytes(file.read_bytes())
    except OSError as err:
        raise unwritten(directory, err) from err
    for file in shipped:
        click.echo(str(directory / file.name))
    click.echo(f"{directory / 'README.md'} says how to load them.", err=True)


def list_shipped() -> list[Traversable]:
    """Return the files that are part of the package, by name."""
    folder = files("agent.telemetry") / "dashboards"
    return sorted(folder.iterdir(), key=lambda file: file.name)


def unwritten(directory: Path, error: OSError) -> DeviceError:
    """Return the error for a directory that takes no files."""
    what = f"{directory} cannot be written: {error.strerror}"
    return DeviceError(what, reason=disk_reason(error.errno))
