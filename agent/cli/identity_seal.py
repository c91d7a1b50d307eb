"""``tinyward identity seal``: the board's key for sealed models and its public line."""

import socket
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.core.reasons import Reason
from agent.errors import DeviceError, SettingsError

if TYPE_CHECKING:
    from agent.core.sealing import Suite
    from agent.core.sealing_keys import PublicKey
    from agent.settings import Settings
    from agent.trust.seal_key import SealKey

DEFAULT_KEY = Path("/var/lib/tinyward/identity/seal.key")
SETTINGS = Path("/etc/tinyward/agent.toml")


HELP = """Make this board's key for sealed models, once, and print its public line.

\b
tinyward identity seal > pi-0042.pub    on the board; give it to the models' owner

The private key never leaves the board. Where there is one already, its line is
printed again. Run this as the daemon's user."""


@click.command(
    "seal", help=HELP, short_help="Make the key for sealed models, print its .pub."
)
@click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False, path_type=Path),
    default=SETTINGS,
    show_default=True,
    help="The settings, whose [seal] names the key and [board] the id.",
)
@click.option(
    "--file",
    "-f",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Where the private key is.  [default: seal.key, or {DEFAULT_KEY}]",
)
@click.option(
    "--name", help="The board's id.  [default: [board] id, or the host's name]"
)
@click.option(
    "--hybrid",
    is_flag=True,
    help="ML-KEM-768 with X25519: who records envelopes now opens none with a quantum "
    "computer later. 1,168 instead of 80 bytes each.",
)
def command(file: Path | None, config: Path, name: str | None, *, hybrid: bool) -> None:
    """Make the key unless there is one, and print its public line.

    Raises:
        SettingsError: The board has no id, or a setting is wrong.
        DeviceError: ``seal_key``: the key there is cannot be used; or none can be made.
    """
    from agent.core.sealing_keys import render_public_key
    from agent.trust.seal_key import load_seal_key, make_seal_key

    settings = _settings(config)
    path = file or _named(settings)
    suite: Suite = "mlkem768-x25519" if hybrid else "x25519"
    there = path.exists()
    key = load_seal_key(path) if there else make_seal_key(path, suite)
    if hybrid and key.suite != suite:
        raise SettingsError(
            f"{path} is a key of {key.suite}",
            reason=Reason.SETTINGS,
            todo="Name another place with --file; versions have to be sealed for the "
            "new key before [seal] names it.",
        )
    board = name or (settings.board.id if settings else "") or socket.gethostname()
    click.echo(render_public_key(told_public(key, board)))
    # Beside what a shell writes to a file.
    click.echo(f"{'there already:' if there else 'made'} {path}", err=True)
    if settings is None or not (settings.seal.key or settings.seal.credential):
        click.echo(f'agent.toml: [seal] key = "{path.absolute()}"', err=True)


def told_public(key: "SealKey", board: str) -> "PublicKey":
    """Return the public half of this board's key, with what its processor can do."""
    import msgspec

    from agent.board.hardware import cpu_flags
    from agent.core.targets import BoardId

    try:
        msgspec.convert(board, BoardId)
    except msgspec.ValidationError as err:
        raise SettingsError(
            f"{board!r} is no board's id",
            reason=Reason.SETTINGS,
            todo="Name it with --name: 1 to 64 of A-Z, a-z, 0-9, -, _ and .",
        ) from err
    fast = "aes" in (cpu_flags() or ()) and find_spec("cryptography.cobblestone")
    return msgspec.structs.replace(key.public(board), aes=bool(fast))


def seal_line(config: Path) -> str:
    """Return what is said about the key for sealed models that settings name.

    Empty where they name none.

    Raises:
        SettingsError: The settings are wrong.
    """
    from agent.core.sealing_keys import render_public_key
    from agent.trust.seal_key import load_seal_key

    settings = _settings(config)
    if settings is None or not (settings.seal.key or settings.seal.credential):
        return ""
    if settings.seal.credential:
        return f"sealed models: credential {settings.seal.credential}"
    path = Path(settings.seal.key).expanduser()
    try:
        public = told_public(
            load_seal_key(path), settings.board.id or socket.gethostname()
        )
    except DeviceError as err:
        return f"sealed models: {err} [{err.reason}]"
    return f"sealed models: {path}\n  {render_public_key(public)}"


def _settings(config: Path) -> "Settings | None":
    """Return the settings; None where there is no such file.

    Raises:
        SettingsError: They are wrong.
    """
    from agent.cli.places import read_settings

    return read_settings(config) if config.exists() else None


def _named(settings: "Settings | None") -> Path:
    """Return where the private key is, or is to be.

    Raises:
        SettingsError: It is a credential, which systemd alone hands out.
    """
    if settings is None:
        return DEFAULT_KEY
    if settings.seal.credential:
        raise SettingsError(
            f"[seal] names the credential {settings.seal.credential!r}",
            reason=Reason.SETTINGS,
            todo="Name the file that systemd reads it from with --file, as root; see "
            "`tinyward install --help`.",
        )
    return Path(settings.seal.key).expanduser() if settings.seal.key else DEFAULT_KEY
