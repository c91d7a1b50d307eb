"""Options that say which board is meant, and the link to it.

The rules this module keeps:
 * The daemon on this machine is found as ``run`` finds its place: by the settings.
 * Where nothing is said, the socket of the systemd service counts as well.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import click
from click.shell_completion import CompletionItem

from agent.cli.board_link import BoardLink
from agent.cli.connections import Papers, TlsConnection, UnixConnection, parse_address
from agent.cli.own_certificate import find_fault
from agent.cli.places import control_socket, read_settings
from agent.errors import AgentError, SettingsError
from agent.settings import Settings

DEFAULT_CONFIG = Path("/etc/tinyward/agent.toml")
# Of the unit file's StateDirectory, which a shell's environment does not name.
SERVICE_SOCKET = Path("/var/lib/tinyward/control.sock")
INTERRUPTED = 130  # what shells return after Ctrl-C
Command = TypeVar("Command", bound=Callable[..., Any])
_file = click.Path(dir_okay=False, path_type=Path)


class Local(TypedDict):
    """Options that name the daemon on this machine."""

    config: Path | None
    socket: Path | None


class Remote(TypedDict):
    """Options for TLS, None where they are not given."""

    certificate: Path | None
    key: Path | None
    ca: Path | None


def local_options(command: Command) -> Command:
    """Add --config and --socket."""
    command = click.option(
        "--socket", type=_file, help="The daemon's unix socket, instead of --config."
    )(command)
    return click.option(
        "--config",
        "-c",
        type=_file,
        help=f"The daemon's settings file.  [default: {DEFAULT_CONFIG}]",
    )(command)


def remote_options(command: Command) -> Command:
    """Add the files of an operator."""
    command = click.option("--ca", type=_file, help="CA of the boards (PEM).")(command)
    command = click.option(
        "--key", type=_file, help="Your private key (PEM), if not in --cert."
    )(command)
    return click.option(
        "--cert", "certificate", type=_file, help="Your certificate (PEM)."
    )(command)


def local_link(config: Path | None, socket: Path | None) -> BoardLink:
    """Return the link to the daemon on this machine.

    Raises:
        SettingsError: The settings file is wrong.
    """
    path = socket or find_socket(config)
    return _closed_at_the_end(BoardLink(str(path), lambda: UnixConnection(path)))


def remote_links(
    boards: list[str],
    options: Remote,
    pause: Callable[[float], None] = time.sleep,
) -> list[BoardLink]:
    """Return the links to boards by their addresses.

    Raises:
        SettingsError: An address or a file cannot be used.
        click.UsageError: A file is not named.
    """
    certificate, ca = options["certificate"], options["ca"]
    if certificate is None or ca is None:
        missing = "--cert" if certificate is None else "--ca"
        raise click.UsageError(f"{missing} is needed: boards are reached over TLS only")
    places = [parse_address(board) for board in boards]
    context = Papers(certificate, options["key"], ca).context()

    def link(name: str, host: str, port: int) -> BoardLink:
        called = name or f"{host}:{port}"
        connect = partial(TlsConnection, host, port, context, name)
        fault = partial(find_fault, certificate, ca)
        return _closed_at_the_end(BoardLink(called, connect, pause, fault))

    return [link(*place) for place in places]


def find_socket(
    config: Path | None,
    *,
    default: Path = DEFAULT_CONFIG,
    service: Path = SERVICE_SOCKET,
) -> Path:
    """Return the socket of the daemon that runs with these settings.

    Raises:
        SettingsError: The settings file cannot be read, or is wrong.
    """
    try:
        settings = _settings(config, default)
    except SettingsError as err:
        # A daemon that refused a new file runs on with the old settings.
        if config is not None or not os.access(service, os.W_OK):
            raise
        click.echo(f"note: {err}; the service is asked at {service}", err=True)
        return service
    path = control_socket(settings)
    if settings.state_dir or settings.local.socket or _is_there(path):
        return path
    return service if _is_there(service) else path


def complete_pipelines(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a pipeline from the settings, if they can be read."""
    del param
    try:
        settings = _settings(ctx.params.get("config"))
    except AgentError:
        return []
    return [
        CompletionItem(pipeline.name, help=f"model {pipeline.model}")
        for pipeline in settings.pipeline
        if pipeline.name.startswith(incomplete)
    ]


def _closed_at_the_end(link: BoardLink) -> BoardLink:
    """Let a link be closed when its command ends, however it ends."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None:
        ctx.call_on_close(link.close)
    return link


def _settings(config: Path | None, default: Path = DEFAULT_CONFIG) -> Settings:
    """Return the settings; all defaults where no file is named and none is there."""
    if config is None and not _is_there(default):
        return Settings()
    return read_settings(config or default)


def _is_there(path: Path) -> bool:
    """Return whether something is at a path, also where we may not look."""
    try:
        return path.exists()
    except PermissionError:
        return True
