"""``tinyward check``: is this settings file right, and what does it mean here?"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from agent.cli.fleet_papers import check_address, find_token_trouble
from agent.cli.places import control_socket, read_settings, state_directory
from agent.cli.seal_trouble import find_seal_trouble
from agent.core.flow import CommandSink, CommandSource, FileSink, FilesSource
from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.settings import PipelineSettings, Settings
from agent.telemetry.ranks import least_series

HELP = """Check the settings in FILE and print every effective value.

\b
The output is TOML again, with a comment on each value: `file` or `default`,
its unit, and what an empty value stands for on this board.
A wrong file ends with exit code 2 and an error that names the key.
What the file cannot know, such as a source that is not there yet, is only a
warning on stderr (exit code 0): it may appear before the daemon starts."""

RELATIVE = "# relative paths start where `tinyward run` is started (by systemd: at /)"


@click.command(help=HELP, short_help="Check a settings file.")
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Print the effective settings, then warn about what is not there.

    Raises:
        SettingsError: ``settings``: the file cannot be read, a key is wrong, or the
            repository or the fleet's server has an address that ``run`` refuses.
    """
    import tomllib

    from agent.cli.places import read_raw
    from agent.cli.settings_text import render_effective

    settings = read_settings(file)
    folder = repository_folder(file, settings.update.repository)
    check_address(settings)
    tree = tomllib.loads(read_raw(file).decode())
    click.echo(RELATIVE)
    click.echo(render_effective(settings, tree, resolve(settings)), nl=False)
    click.echo(describe_series(settings))
    for key, what, reason in find_absences(settings, folder):
        click.echo(f"warning: {key}: {what} [{reason}]", err=True)


def resolve(settings: Settings) -> dict[str, str]:
    """Return key -> what an empty value stands for on this board."""
    resolved: dict[str, str] = {}
    if not settings.state_dir:
        resolved["state_dir"] = str(state_directory(settings))
    if not settings.local.socket:
        resolved["local.socket"] = str(control_socket(settings))
    return resolved


def describe_series(settings: Settings) -> str:
    """Return a line about how many series there will be; which models is not known."""
    from agent.telemetry.estimate import USUAL_FEATURES, USUAL_LABELS

    return (
        f"\n# /metrics: about {_count_series(settings)} series of "
        f"{settings.monitor.max_series}, with models of {USUAL_LABELS} labels "
        f"and {USUAL_FEATURES} features"
    )


def _count_series(settings: Settings) -> int:
    """Return about how many series these settings make."""
    from agent.telemetry.estimate import estimate_series, usual_models

    return estimate_series(usual_models(settings), settings.monitor)


def repository_folder(file: Path, repository: str) -> str:
    """Return the folder that a repository lies in; empty for none, or a server.

    Raises:
        SettingsError: ``settings``: no board can use the address.
    """
    from agent.trust.transport import parse_address

    if not repository:
        return ""
    try:
        return str(parse_address(repository).directory or "")
    except SettingsError as err:
        what = f"{file}: {err}"
        raise SettingsError(what, reason=err.reason, todo=err.todo) from err


def find_absences(settings: Settings, folder: str) -> Iterator[tuple[str, str, Reason]]:
    """Yield (key, what is wrong, reason) of files and programs that are not there.

    Args:
        settings: What the file says.
        folder: What ``repository_folder`` says.
    """
    if not settings.pipeline:
        yield "pipeline", "there is none, so nothing will run", Reason.SETTINGS
    for pipeline in settings.pipeline:
        yield from _pipeline_absences(pipeline)
    update, control = settings.update, settings.control
    yield from find_token_trouble(settings)
    yield from find_seal_trouble(settings)
    if update.orchestrator == "push" and not update.root:
        what = "without it nothing that is pushed can be verified"
        yield "update.root", what, Reason.SIGNATURE
    elif settings.pipeline and update.orchestrator == "tuf" and not update.root:
        # Without a root the settings can name neither a repository nor a factory.
        what = "there is none, nor a repository: no model will ever come"
        yield "update.root", what, Reason.NO_MODEL
    yield from _no_room(settings)
    named = (
        ("update.repository", folder, Reason.UNREACHABLE),
        ("update.root", update.root, Reason.METADATA),
        ("update.ca", update.ca, Reason.TLS),
        ("update.certificate", update.certificate, Reason.CERTIFICATE),
        ("update.key", update.key, Reason.CERTIFICATE),
        ("control.certificate", control.certificate, Reason.CERTIFICATE),
        ("control.key", control.key, Reason.CERTIFICATE),
        ("control.client_ca", control.client_ca, Reason.CERTIFICATE),
        ("fleet.ddi.ca", settings.fleet.ddi.ca, Reason.TLS),
        ("fleet.ddi.certificate", settings.fleet.ddi.certificate, Reason.CERTIFICATE),
        ("fleet.ddi.key", settings.fleet.ddi.key, Reason.CERTIFICATE),
        *(
            (f"delegate.{d.name}.path", d.path, Reason.DELEGATE)
            for d in settings.delegate
        ),
    )
    for key, path, reason in named:
        yield from _absent(key, path, reason)


def _no_room(settings: Settings) -> Iterator[tuple[str, str, Reason]]:
    """Warn about a series budget that is too small for what there will be."""
    least = least_series(len(settings.pipeline))
    if least > settings.monitor.max_series:
        what = f"what alerts need are {least} series: /metrics will show them all"
        yield "monitor.max_series", what, Reason.SETTINGS
    elif (found := _count_series(settings)) > settings.monitor.max_series:
        what = (
            f"there will be about {found} series: labels, then features of some "
            "pipelines will be left out"
        )
        yield "monitor.max_series", what, Reason.SETTINGS


def _pipeline_absences(
    pipeline: PipelineSettings,
) -> Iterator[tuple[str, str, Reason]]:
    """Yield what one pipeline names and this board does not have."""
    key = f"pipeline.{pipeline.name}"
    source = pipeline.source
    if isinstance(source, FilesSource):
        yield from _absent(f"{key}.source.path", source.path, Reason.SOURCE_MISSING)
    elif isinstance(source, CommandSource):
        yield from _no_program(f"{key}.source.command", source.command[0])
    for sink in pipeline.sinks:
        if isinstance(sink, FileSink):
            yield from _unwritable(f"{key}.sinks.path", Path(sink.path).expanduser())
        elif isinstance(sink, CommandSink):
            yield from _no_program(f"{key}.sinks.command", sink.command[0])
    yield from _absent(f"{key}.factory", pipeline.factory, Reason.UNREACHABLE)


def _absent(key: str, path: str, reason: Reason) -> Iterator[tuple[str, str, Reason]]:
    """Warn about a path that is named and not there."""
    try:
        there = not path or Path(path).expanduser().exists()
    except (RuntimeError, ValueError) as err:  # ~ of nobody, or a NUL byte
        yield key, f"{path!r} is no path: {err}", reason
        return
    if not there:
        yield key, f"{path} does not exist", reason


def _unwritable(key: str, path: Path) -> Iterator[tuple[str, str, Reason]]:
    """Warn about a file whose folder is not there and cannot be made."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        yield key, f"{folder} is no directory", Reason.SETTINGS
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield key, f"{folder} cannot be written by this user", Reason.PERMISSION


def _no_program(key: str, program: str) -> Iterator[tuple[str, str, Reason]]:
    """Warn about a program that cannot be found."""
    if shutil.which(program) is None:
        yield key, f"no program {program}", Reason.SOURCE_MISSING
